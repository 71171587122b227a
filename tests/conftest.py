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

_LEFT_OUT = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What tests may be asked for."""
    parser.addoption("--sweep", action="store_true", help="make many more faults, on more nodes")
    parser.addoption("--thorough", action="store_true", help="run the tests that are marked as thorough, too")
    parser.addoption("--share", metavar="K/N", help="run only each Nth test, beginning with the Kth")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests to others that run at once, and to those who have the time."""
    if not (config.getoption("--thorough") or config.getoption("--sweep")):
        leave_out(config, items, [item for item in items if item.get_closest_marker("thorough")])
    if share := config.getoption("--share"):
        first, step = map(int, share.split("/"))
        leave_out(config, items, [item for number, item in enumerate(items) if number % step != first - 1])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A file all of whose tests are left to others has passed."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.stash.get(_LEFT_OUT, False):
        session.exitstatus = pytest.ExitCode.OK


def leave_out(config: pytest.Config, items: list[pytest.Item], others: list[pytest.Item]) -> None:
    """Remove some tests from those that are to run, in place."""
    config.hook.pytest_deselected(items=others)
    config.stash[_LEFT_OUT] = config.stash.get(_LEFT_OUT, False) or bool(others)
    left_out = set(others)
    items[:] = [item for item in items if item not in left_out]
