"""No test touches the data of this checkout or of a node: what it imports finds an empty directory instead.

But for the updater's, which are to see the node as it is (and may only look).
"""

import atexit
import os
import shutil
import tempfile

import pytest

# Before anything of ivy is imported, because it looks only then where its data is. A short path: sockets need one.
# Not in /tmp, which Debian 13 has in memory: no node there would be well.
if "IVY_VERSION_CHANGE" not in os.environ:
    _home = tempfile.mkdtemp(prefix="ivy-", dir=os.environ.get("TMPDIR", "/var/tmp"))
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
    os.environ["IVY_ROOT_DIR"] = f"{_home}/root"
    os.environ["IVY_DATA_DIR"] = f"{_home}/root/data"
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # into the checkout, by what tests start
for variable in ("JOURNAL_STREAM", "NOTIFY_SOCKET"):
    os.environ.pop(variable, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What tests may be asked for."""
    parser.addoption("--sweep", action="store_true", help="make many more faults, on more nodes")
    parser.addoption("--share", metavar="K/N", help="run only each Nth test, beginning with the Kth")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests to others that run at once."""
    if share := config.getoption("--share"):
        first, step = map(int, share.split("/"))
        mine = items[first - 1 :: step]
        config.hook.pytest_deselected(items=[item for item in items if item not in mine])
        items[:] = mine
