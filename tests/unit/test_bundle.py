"""`ivy bundle`: what is in it, what is not, and that nothing keeps the rest from it."""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy.cli import bundle
from ivy.utils.host import commands
from tests.support.helpers import BACKEND, CONFIG, Node, make_release
from tests.unit.archives import Ivy

PASSWORD = 'pa"ss /word'
PROGRAMS = {command[0] for command in bundle.PARTS.values()}

Make = Callable[..., dict[str, str]]


@pytest.fixture
def say(node: Node, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets each program on the machine do this instead: a line of shell."""
    monkeypatch.setenv("PATH", node.environment["PATH"])

    def be(action: str) -> None:
        for program in PROGRAMS - {"cat"}:
            node.fake(program, {"*": action})

    be('echo "$*"')
    return be


@pytest.fixture
def make(ivy: Ivy, tmp_path: Path, root_dir: Path, say: object, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a bundle on a node with secrets. Returns its texts by their names."""
    make_release(root_dir / "1.0.0")
    (root_dir / "current").symlink_to("1.0.0")
    config = root_dir / "1.0.0" / "config"
    (config / "config.json").write_text(json.dumps({**CONFIG, "backend": BACKEND}))
    kept = {"backend": {"mqtt_connection": {"password": PASSWORD}}}
    (config / "secrets.json").write_text(json.dumps({"0" * 64: kept}))
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def make(name: str = "bundle.tar.gz") -> dict[str, str]:
        status, output, errors = ivy("bundle", str(tmp_path / name))
        assert status == 0, errors
        assert name in output
        found = {}
        with tarfile.open(tmp_path / name) as archive:
            for entry in archive:
                file = archive.extractfile(entry)
                assert file is not None and entry.mode == 0o600
                found[entry.name.partition("/")[2]] = file.read().decode()
        return found

    return make


def test_it_has_what_each_program_says(make: Make, tmp_path: Path) -> None:
    found = make()
    assert found.keys() == {*bundle.PARTS, "problems.txt"}
    assert found["status.json"] == "status --json\n" and found["config.json"] == "config show\n"
    assert "--since=-24h" in found["journal.txt"] and found["problems.txt"] == "none\n"
    assert (tmp_path / "bundle.tar.gz").stat().st_mode & 0o777 == 0o600


def test_no_secret_is_in_it(make: Make, say: Callable[[str], None], tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_text(
        f"{PASSWORD}\nx{PASSWORD}x {json.dumps(PASSWORD)} pa%22ss%20%2Fword https://me:you@example.org\n"
    )
    say(f"cat {said}; cat {said} >&2; exit 1")
    for name, text in make().items():
        assert not [part for part in ("word", "me:you") if part in text], name


def test_what_fails_is_named_and_the_rest_is_there(make: Make, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.fake("ivy", {"status*": "echo '{}'; echo not well >&2; exit 1", "*": "echo fine"})
    node.fake("systemctl", {"*": "echo there is no systemd >&2; exit 1"})
    (node.programs / "journalctl").unlink()
    monkeypatch.setenv("PATH", str(node.programs))
    found = make()
    assert found["status.json"] == "{}\n" and found["queue.json"] == "fine\n"
    assert found["units.txt"] == found["journal.txt"] == ""
    problems = found["problems.txt"]
    assert "\nunits.txt: `systemctl status " in problems and "there is no systemd" in problems
    assert "status.json: " in problems and "not well" in problems
    assert "\njournal.txt: `journalctl " in problems and "queue" not in problems


def test_what_is_long_is_cut_between_lines(make: Make, say: Callable[[str], None]) -> None:
    say("seq 1 2000000")
    found = make()
    text = found["journal.txt"]
    assert len(text) <= 4_000_000 and text.endswith("\n2000000\n")
    first = int(text.partition("\n")[0])
    assert text.startswith(f"{first}\n{first + 1}\n") and first > 1_000_000
    assert "journal.txt:  (only its end is here, of " in found["problems.txt"]


def test_no_file_is_overwritten_and_no_link_followed(ivy: Ivy, make: Make, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("as it was")
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("there", "link", "none/such"):
        assert ivy("bundle", str(tmp_path / name))[0] == 1
    assert (tmp_path / "there").read_text() == "as it was" and not (tmp_path / "elsewhere").exists()


def test_half_a_bundle_is_none(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ivy: Ivy) -> None:
    def interrupt(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupt)
    assert ivy("bundle", str(tmp_path / "half"))[0] == 130
    assert not (tmp_path / "half").exists()


def test_only_root_makes_one(ivy: Ivy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status, _, errors = ivy("bundle", str(tmp_path / "none"))
    assert status == 2 and "sudo" in errors and not (tmp_path / "none").exists()
