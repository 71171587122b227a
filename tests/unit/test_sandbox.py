"""What a program gets that handles what strangers wrote. What it cannot do is seen on real nodes."""

import shutil
from pathlib import Path

import pytest

from ivy import constants
from ivy.utils.updates import sandbox
from tests.support.helpers import Node

SHARED = Path("ivy_sandbox-.service.d", "10-sandbox.conf")


@pytest.fixture
def units(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The units of the release whose code runs."""
    node.fake("systemd-run", {})
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
