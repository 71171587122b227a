"""The list of who may sign a version comes back when a card has lost it, and follows the admin in all else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy import files
from ivy.utils.logger import Logger
from ivy.utils.updates import signers, source
from tests.support.helpers import make_config

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIHNoaXBzIGFuZCBzZWFsaW5nIHdheCBhbmQga2luZ3Mh"
LIST = f'# ours\nus@example.org,you@example.org namespaces="git" ssh-ed25519 {KEY}\n'
OTHER = f"me@example.org ssh-ed25519 {KEY}\n"
LOGGER = Logger(make_config(), "updater").without_messages()


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list, which a pass has seen."""
    path = tmp_path / "allowed_signers"
    path.write_text(LIST)
    monkeypatch.setattr(source, "ALLOWED_SIGNERS", path)
    signers.restore(LOGGER)
    assert (tmp_path / "allowed_signers.copy").read_text() == LIST
    return path


def write_unnoticed(path: Path, content: bytes) -> None:
    """As a card changes a file."""
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    write_unnoticed(path, bytes(content))


DAMAGES: list[Callable[[Path], None]] = [
    lambda path: write_unnoticed(path, bytes(300)),
    lambda path: write_unnoticed(path, b""),
    lambda path: write_unnoticed(path, b"\xff\xfe what a card makes of it \xff"),
    flip,
]


@pytest.mark.parametrize("harm", DAMAGES)
def test_a_damaged_list_comes_back(
    allowed: Path, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    harm(allowed)
    signers.restore(LOGGER)
    assert allowed.read_text() == LIST and allowed.stat().st_mode & 0o777 == 0o644
    assert f"{allowed} was damaged" in capsys.readouterr().out
    signers.restore(LOGGER)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("harm", DAMAGES)
def test_a_damaged_copy_is_made_again(allowed: Path, harm: Callable[[Path], None]) -> None:
    """Only of a bit that is another one nobody can say in which of the two."""
    copy = allowed.with_name("allowed_signers.copy")
    harm(copy)
    signers.restore(LOGGER)
    assert copy.read_bytes() == allowed.read_bytes()
    assert harm is flip or copy.read_text() == LIST


@pytest.mark.parametrize("text", [OTHER, LIST + OTHER, "# nobody may\n", f"{OTHER}a line with a mistake\n"])
def test_what_the_admin_writes_counts(allowed: Path, text: str) -> None:
    allowed.write_text(text)
    os.utime(allowed, (1, 1))  # the clock had jumped
    signers.restore(LOGGER)
    assert allowed.read_text() == allowed.with_name("allowed_signers.copy").read_text() == text


def test_a_change_in_an_image_of_a_disk_counts(allowed: Path) -> None:
    for text in (LIST, OTHER):
        allowed.write_text(text)
        os.utime(allowed, (0, 0))
        signers.restore(LOGGER)
    assert allowed.read_text() == OTHER


def test_a_list_that_a_power_cut_has_emptied_while_it_was_written_comes_back(allowed: Path) -> None:
    allowed.write_text("")
    signers.restore(LOGGER)
    assert allowed.read_text() == LIST


def test_a_list_that_was_removed_stays_so(allowed: Path) -> None:
    allowed.unlink()
    signers.restore(LOGGER)
    assert not allowed.exists()


def test_damage_without_a_copy_is_told(allowed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allowed.with_name("allowed_signers.copy").unlink()
    allowed.write_bytes(b"")
    signers.restore(LOGGER)
    assert f"{allowed} is damaged" in capsys.readouterr().out


def test_a_directory_that_cannot_be_written_stops_nothing(
    allowed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the sandbox that an older package has for a pass."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr(files, "write_atomically", refuse)
    allowed.write_text(OTHER)
    signers.restore(LOGGER)
    assert "Read-only file system" in capsys.readouterr().out
