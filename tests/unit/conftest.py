"""Every test finds an empty data directory and leaves nothing behind."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from ivy import constants
from ivy.cli import main
from ivy.types.config import Config
from ivy.utils.host import clock
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.updates.environment import python_of
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, Node, NotifySocket
from tests.unit.archives import Ivy
from tests.unit.procedures import run_hastily

hypothesis.settings.register_profile(
    "ivy",
    database=None,
    deadline=None,
    derandomize=True,  # a package builds, or it does not
    # The directories are the same for all examples of a test, which is meant.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ivy")


@pytest.fixture(autouse=True)
def root_dir() -> Iterator[Path]:
    """`IVY_ROOT_DIR`, with an empty data directory in it and nothing else."""
    root = Path(constants.IVY_ROOT_DIR)
    (root / "data").mkdir(parents=True)
    yield root
    shutil.rmtree(root)


@pytest.fixture(autouse=True)
def synchronised_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's clock is."""
    monkeypatch.setattr(clock, "is_synchronised", lambda: True)


@pytest.fixture
def own_stop_handlers() -> Iterator[None]:
    """Handlers of SIGTERM and SIGINT are those of the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def data_dir(root_dir: Path) -> Path:
    """`IVY_DATA_DIR`, empty."""
    return root_dir / "data"


@pytest.fixture
def agent() -> Iterator[MessagingAgent]:
    """An open queue."""
    agent = MessagingAgent()
    yield agent
    agent.teardown()


@pytest.fixture
def node(root_dir: Path) -> Iterator[Node]:
    """A release to run programs of. Always in the same place, where its bytecode is found again."""
    home = root_dir.parent
    node = Node(home / "node", bytecode=home / "bytecode")
    yield node
    node.close()
    shutil.rmtree(home / "node")


@pytest.fixture
def releases(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A release that runs, and could make the next update; no service of it runs, as there is no systemd."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemctl", {})
    version, releases = Version("1.0.0"), Releases()
    releases.config_file(version).parent.mkdir(parents=True)
    python = Path(python_of(releases.directory(version)))
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    releases.activate(version)
    releases.write_config(version, json.dumps(CONFIG))
    return releases


@pytest.fixture
def start(node: Node) -> Callable[..., subprocess.Popen[str]]:
    """Starts a procedure of a node that has a backend: arguments as for `run_hastily`."""
    node.write_config(backend=BACKEND)
    return lambda *arguments: node.start("-c", run_hastily(*arguments))


@pytest.fixture
def notify_socket(root_dir: Path, node: Node) -> Iterator[NotifySocket]:
    """What the node's services say to systemd."""
    (root_dir / "systemd").mkdir()
    notify_socket = NotifySocket(f"{root_dir}/systemd/notify")
    node.environment["NOTIFY_SOCKET"] = notify_socket.path
    yield notify_socket
    notify_socket.close()


@pytest.fixture
def ivy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ivy:
    """Runs the command in this process. Returns status, output and error output."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ivy", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        output, errors = capsys.readouterr()
        return int(ended.value.code or 0), output, errors

    return run


@pytest.fixture
def ivy_of_node(node: Node, ivy: Ivy) -> Ivy:
    """As `node.ivy`, but in this process: for what a process of its own would prove nothing about, only slower."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(constants, "PROJECT_DIR", str(node.release))
            for name, value in node.environment.items():
                patched.setenv(name, value)
            patched.chdir(node.home)
            return ivy(*arguments)

    return run


class ClosingLogger(Logger):
    """A logger whose queue can be closed, which no service ever needs to."""

    def close(self) -> None:
        """Close the queue, if a message was sent."""
        if self._messaging_agent is not None:
            self._messaging_agent.teardown()


@pytest.fixture
def make_logger() -> Iterator[type[Logger]]:
    """The class `Logger`, whose instances are closed when the test ends."""
    made: list[ClosingLogger] = []

    class Remembered(ClosingLogger):
        def __init__(self, config: Config, origin: str = "test") -> None:
            super().__init__(config, origin)
            made.append(self)

    yield Remembered
    for logger in made:
        logger.close()
