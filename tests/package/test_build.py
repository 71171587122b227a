"""What packaging/build-deb makes of what a fork adds. That the rest can be built, each node shows."""

import re
import subprocess
from pathlib import Path

import locking
import node_needs
import pytest
from testbed import checkout
from testbed.package_index import write_wheel
from testbed.run import BedError

PROJECT = Path(__file__).parents[2]
EPOCH = 1_700_000_000


def test_wheels_are_packed_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = write_wheel(tmp_path, "rain", {})
    monkeypatch.setattr("os.chown", lambda *_arguments, **_how: None)
    checkout.copy_source(tmp_path / "build" / "tree", EPOCH, [wheel])
    packed = tmp_path / "build" / "tree" / "wheels" / wheel.name
    assert packed.read_bytes() == wheel.read_bytes() and packed.stat().st_mtime == EPOCH
    rules = (PROJECT / "debian" / "rules").read_text()
    assert re.search(r"install .*usr/share/ivy/wheels wheels/\*\.whl", rules)
    assert "dh_strip_nondeterminism -X.whl\n" in rules, "debhelper would pack them anew, and their hashes be others"


def test_a_lock_that_was_forgotten_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "not_locked", lambda: ["rain"])
    with (
        pytest.raises(BedError, match=r"requirements\.lock lacks rain\nRun packaging/lock"),
        checkout.fetched_wheels(),
    ):
        pass


def test_wheels_that_cannot_be_fetched_build_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(_: Path) -> list[Path]:
        raise locking.NotLocked("there is no wheel of rain")

    monkeypatch.setattr(locking, "fetch", fetch)
    with pytest.raises(BedError, match="there is no wheel of rain\nIs there a network"), checkout.fetched_wheels():
        pass


@pytest.fixture
def needy(tmp_path: Path) -> Path:
    """A project that needs something of a node."""
    said = '[project]\nname = "x"\n[tool.x]\ndebian = ["python3-lgpio", "i2c-tools"]\ngroups = ["i2c", "gpio"]\n'
    (tmp_path / "pyproject.toml").write_text(said)
    (tmp_path / "packaging").mkdir()
    script = tmp_path / "packaging" / "node_needs.py"
    script.write_text((PROJECT / "packaging" / "node_needs.py").read_text())
    return script


@pytest.mark.parametrize(
    ("what", "printed"), [("depends", ["i2c-tools, python3-lgpio"]), ("sysusers", ["g gpio -", "g i2c -"])]
)
def test_what_a_version_needs_of_debian_is_in_its_package(needy: Path, what: str, printed: list[str]) -> None:
    said = subprocess.run(["python3", needy, what], capture_output=True, text=True, check=True).stdout
    assert [line for line in said.splitlines() if not line.startswith("#")] == printed
    assert f"node_needs.py {what}" in (PROJECT / "debian" / "rules").read_text()


def test_a_version_that_needs_nothing_of_debian_can_be_built(needy: Path) -> None:
    (needy.parents[1] / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert node_needs.read("debian", needy.parents[1]) == node_needs.read("groups", needy.parents[1]) == []
