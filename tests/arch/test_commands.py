"""Both packages on another processor, $IVY_ARCH, by emulation: they install there, and what is typed and run works.

Without systemd, which would need a kernel of that processor. What is compiled is Debian's; what trusts it is ours.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed import roots
from testbed.emulation import architecture, slowness
from testbed.overlay import run_confined, throwaway
from testbed.run import CommandError

PROJECT = Path(__file__).parents[2]
SECONDS = 60
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
SAMPLE_UNTIL_ONE_IS_THERE = """
ivy run dummy-procedure &
until grep --quiet random_walk_position /var/lib/ivy/data/messages/*.csv; do
    kill -0 "$!"
    sleep 1
done
kill "$!"
wait "$!"
"""
SAMPLE = """
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent

MessagingAgent().add_message(DataMessageBody(data={"temperature": 20.1, "count": 2**53 + 1}))
"""


class Board:
    """A root of that processor. Nothing of it is running."""

    def __init__(self, root: Path, log: Path) -> None:
        self._root = root
        self._log = log

    def type(self, *words: str, user: str = "root") -> str:
        """What a command says. Raises `CommandError` where it fails."""
        limit = SECONDS * slowness(architecture())
        return run_confined(self._root, words, user, "/", env=QUIET, log=self._log, timeout=limit)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board with both packages."""
    packages = sorted((PROJECT / "dist").glob("*.deb"))
    assert len(packages) == 2, "build them: packaging/build-deb"
    with throwaway(roots.testing_root()) as root:
        for package in packages:
            (root / package.name).write_bytes(package.read_bytes())
        board = Board(root, tmp_path_factory.mktemp("board") / "log")
        board.type("apt-get", "install", "--yes", *(f"/{package.name}" for package in packages))
        yield board


@pytest.fixture(scope="module")
def sampled(board: Board) -> Board:
    """The same, with a message."""
    board.type("/usr/bin/env", "PYTHONPATH=/var/lib/ivy/current", "python3", "-c", SAMPLE, user="ivy")
    return board


def test_it_is_that_processor(board: Board) -> None:
    assert board.type("dpkg", "--print-architecture").strip() == architecture()


def test_the_release_is_in_use(board: Board) -> None:
    assert board.type("readlink", "--canonicalize-existing", "/var/lib/ivy/current/ivy").strip().endswith("/ivy")


@pytest.mark.parametrize("words", ["--version", "info", "queue", "config show", "config schema", "releases"])
def test_what_looks_at_a_node_works(sampled: Board, words: str) -> None:
    assert sampled.type("ivy", *words.split()).strip()


def test_status_says_that_nothing_runs(board: Board) -> None:
    with pytest.raises(CommandError) as said:
        board.type("ivy", "status", "--json")
    assert json.loads(said.value.stdout)["version"]


def test_a_sample_is_archived_to_the_last_digit(sampled: Board) -> None:
    [line] = sampled.type("ivy", "messages", "--json", "--key", "count").splitlines()
    assert json.loads(line)["message_body"]["data"]["count"] == 2**53 + 1


def test_a_procedure_samples_until_it_is_told_to_stop(board: Board) -> None:
    board.type("sh", "-ec", SAMPLE_UNTIL_ONE_IS_THERE, user="ivy")
    assert "random_walk_position" in board.type("ivy", "messages", "--json")
