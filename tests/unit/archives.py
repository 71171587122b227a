"""Archives that tests write themselves, and the command that reads them, in this process."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.helpers import ARCHIVE_DIR

DAY = 86_400
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
