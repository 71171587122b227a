"""The file in which the updater remembers what it does and did. Only whoever holds the automation lock writes it.

It is root's, beside the releases: no service can make an offer look decided, or a trial passed. Backends may read
it, and procedures may not: there are configs in it.
"""

import os
from pathlib import Path

from ivy import constants
from ivy.types.updates import History
from ivy.utils.host.json_file import JsonFile

HISTORY_FILE: str = os.path.join(constants.IVY_ROOT_DIR, "updates.json")
"""The file with the history."""

FILE = JsonFile(HISTORY_FILE, History, group_of=Path(constants.BACKEND_DIR))

load, update, tidy = FILE.load, FILE.update, FILE.tidy
peek = FILE.peek  # for services, which only look
