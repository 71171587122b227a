"""Word that a backend leaves for units of root's: a file where only backends can write."""

import contextlib
import os
from pathlib import Path

from ivy import constants, files

_OF_THIS_PACKAGE = "/usr/lib/ivy/units/ivy-owners.service"


def leave(path: str) -> None:
    """Make a flag.

    Args:
        path: One of those in `ivy.constants`.

    Raises:
        OSError: It cannot be made.
    """
    files.make_directory(constants.BACKEND_RUN_DIR)
    os.close(files.open_shared(path))
    if not os.path.exists(_OF_THIS_PACKAGE):  # but that of 1.0, whose units look elsewhere
        with contextlib.suppress(OSError):
            os.close(files.open_shared(os.path.join(constants.IVY_RUN_DIR, os.path.basename(path))))


def ask(path: str, content: str) -> None:
    """Make a flag that says more than its name, whole from its first moment.

    Args:
        path: As for `leave`.
        content: What root's unit is to read; it believes none of it.

    Raises:
        OSError: It cannot be made.
    """
    files.make_directory(constants.BACKEND_RUN_DIR)
    files.write_atomically(Path(path), content, mode=0o600, durable=False, follow=False)
