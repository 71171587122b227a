"""The examples of ivy-procedure(7)."""

import re
from pathlib import Path

from ivy import constants

PAGE = Path(constants.PROJECT_DIR, "debian", "ivy-procedure.7")


def example(containing: str) -> str:
    """The one in the man page that contains something, as it is shown.

    Raises:
        LookupError: There is none, or more than one.
    """
    shown = [_shown(text) for text in re.findall(r"\.EX\n(.*?)\.EE\n", PAGE.read_text(), re.DOTALL)]
    found = [text for text in shown if containing in text]
    if len(found) != 1:
        raise LookupError(f"{len(found)} examples contain {containing!r}")
    return found[0]


def _shown(text: str) -> str:
    return text.replace("\\&", "").replace("\\-", "-").replace("\\e", "\\")
