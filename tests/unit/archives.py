"""Archives that tests write themselves, and the command that reads them, in this process."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.helpers import ARCHIVE_DIR

DAY = 86_400
LONG_AGO = 1_700_000_000.0
"""On 2023-11-14, before any clock that is right."""
NOON = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC).timestamp()
Ivy = Callable[..., tuple[int, str, str]]


def archive(timestamp: float, /, **body: Any) -> None:
    """Append a message to the archive of its day, as procedures do."""
    ARCHIVE_DIR.mkdir(exist_ok=True)
    day = datetime.datetime.fromtimestamp(timestamp, datetime.UTC).date()
    with Path(ARCHIVE_DIR, f"{day}.csv").open("a", encoding="utf-8") as file:
        if file.tell() == 0:
            file.write("timestamp,message_body\n")
        file.write('{},"{}"\n'.format(timestamp, json.dumps(body).replace('"', '""')))


def sample(timestamp: float, /, **data: Any) -> None:
    """Append a sample."""
    archive(timestamp, variant="data", data=data)


def tree(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is there, with modes, times and contents."""
    found = {}
    for path in sorted([directory, *directory.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found
