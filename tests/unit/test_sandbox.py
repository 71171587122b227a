"""What a program gets that handles what strangers wrote. What it cannot do is seen on real nodes."""

import re
import shutil
from pathlib import Path

import pytest

from ivy import constants
from ivy.utils.host.commands import CommandError
from ivy.utils.updates import sandbox
from ivy.utils.updates.errors import NodeTrouble
from tests.support.helpers import Node

SHARED = Path("ivy_sandbox-.service.d", "10-sandbox.conf")


@pytest.fixture
def units(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The units of the release whose code runs."""
    node.fake("systemd-run", {})
    node.fake("systemctl", {})
    monkeypatch.setenv("PATH", node.environment["PATH"])
    shutil.copytree(Path(constants.PROJECT_DIR, "units"), tmp_path / "units")
    monkeypatch.setattr(constants, "PROJECT_DIR", str(tmp_path))
    return tmp_path / "units"


def test_a_step_gets_what_all_get_then_its_own_and_one_place_to_write(units: Path, node: Node) -> None:
    sandbox.run("fetch", ["git", "--version"], writable=Path("/var/lib/ivy/source.git"), environment=["A=b"])
    [call] = node.calls()
    assert "--unit=ivy_sandbox-fetch.service" in call
    closed, opened = call.index("PrivateNetwork=yes"), call.index("PrivateNetwork=no")
    assert call.index("NoNewPrivileges=yes") < call.index("User=ivy-updater") < opened and closed < opened
    last = ("WorkingDirectory=/", "Environment=A=b", "StateDirectory=ivy/source.git")
    assert call.endswith(" ".join([*(f"--property={setting}" for setting in last), "-- git --version"]))
    assert "#" not in call and "[Service]" not in call


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(None, id="missing"),
        pytest.param("", id="empty"),
        pytest.param("\0" * 900, id="zeros"),
        pytest.param("[Service]\nProtectSystem=strict\n", id="shortened"),
    ],
)
def test_nothing_is_run_where_the_settings_are_lost(units: Path, node: Node, left: str | None) -> None:
    """A power cut may leave zeros, or less than there was: the program would be root without a wall around it."""
    (units / SHARED).unlink()
    if left is not None:
        (units / SHARED).write_text(left)
    with pytest.raises(OSError, match=r"damaged|No such file"):
        sandbox.run("test", ["/bin/true"])
    assert node.calls() == []


@pytest.mark.parametrize(("result", "error"), [("oom-kill", NodeTrouble), ("exit-code", CommandError)])
def test_a_step_that_the_kernel_ended_for_want_of_memory_says_nothing_about_a_version(
    units: Path, node: Node, result: str, error: type[Exception]
) -> None:
    node.fake("systemd-run", {"*": "echo 'tests/test_it.py .F'; exit 1"})
    node.fake("systemctl", {"show*ivy_sandbox-test.service": f"echo Result={result}"})
    with pytest.raises(error, match=result if error is NodeTrouble else "test_it"):
        sandbox.run("test", ["pytest"], is_foreign=True)
    assert node.calls()[-1] == "systemctl reset-failed -- ivy_sandbox-test.service", "the next one has its name"


LACKS = [
    "fatal: write error: No space left on device",
    "error: failed writing detached signature to '/tmp/.git_vtag_tmp0': No space left on device",
    "fatal: Out of memory, malloc failed (tried to allocate 9 bytes)",
    "error: cannot run /usr/bin/ssh-keygen: No such file or directory",
    "take_in.sh: 8: git: not found",
    "/usr/bin/python3: No module named pip",
    "Failed to start transient service unit: Unit ivy_sandbox-ask.service was already loaded",
    "",  # killed for want of memory or time
]


@pytest.mark.parametrize("said", LACKS)
def test_what_the_node_lacks_says_nothing_about_a_version(units: Path, node: Node, said: str) -> None:
    node.fake("systemd-run", {"*": f'echo "{said}" >&2; exit 1'})
    with pytest.raises(NodeTrouble, match=f"the step 'ask'.*: {re.escape(said) or '`git verify-tag` failed'}"):
        sandbox.run("ask", ["git", "verify-tag"])


def test_a_sandbox_that_systemd_cannot_make_says_nothing_about_its_program(units: Path, node: Node) -> None:
    node.fake("systemd-run", {"*": "echo 'what is left of the output' >&2; exit 226"})
    with pytest.raises(NodeTrouble):
        sandbox.run("test", ["pytest"], is_foreign=True)


@pytest.mark.parametrize("said", LACKS)
def test_foreign_code_does_not_speak_for_the_node(units: Path, node: Node, said: str) -> None:
    node.fake("systemd-run", {"*": f'echo "{said}" >&2; exit 1'})
    with pytest.raises(CommandError):
        sandbox.run("test", ["pytest"], is_foreign=True)


def test_a_bad_signature_is_no_lack(units: Path, node: Node) -> None:
    node.fake("systemd-run", {"*": "echo 'No principal matched.' >&2; exit 1"})
    with pytest.raises(CommandError):
        sandbox.run("ask", ["git", "verify-tag"])


def test_each_step_has_a_tmp_of_its_own_in_memory(units: Path, node: Node) -> None:
    """That of the node may be full; systemd makes those of PrivateTmp=yes in there."""
    for step in ("ask", "compile", "fetch", "install", "list", "take", "test", "unpack"):
        sandbox.run(step, ["true"])
        call = node.calls()[-1]
        assert "PrivateTmp=no" in call and "PrivateTmp=yes" not in call
        assert "TemporaryFileSystem=/dev/shm:size=1M,mode=1777 /tmp:size=300M,mode=1777" in call
