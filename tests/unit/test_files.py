"""`ivy.files`: written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from ivy import files


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_content_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "file"
    files.write_atomically(file, "old")
    files.write_atomically(file, "nëw")
    assert file.read_bytes() == "nëw".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write_atomically(tmp_path / "shared", "", mode=0o644)
        files.write_atomically(tmp_path / "default", "")
    finally:
        os.umask(before)
    assert (_mode(tmp_path / "shared"), _mode(tmp_path / "default")) == (0o644, 0o640)


def test_a_failure_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    files.write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(file, "new \ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    files.write_atomically(tmp_path / "link", "content")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "content"


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    """Another file takes its place, so whoever has the old one open reads on in that."""
    file = tmp_path / "file"
    files.write_atomically(file, "old")
    with file.open() as reader:
        files.write_atomically(file, "new")
        assert reader.read() == "old"


def test_a_shared_file_is_no_symbolic_link(tmp_path: Path) -> None:
    """The data directory belongs to the services: none of them may point root's command elsewhere."""
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(OSError):
        files.open_shared(str(tmp_path / "link"))
    assert not (tmp_path / "target").exists()


def test_a_shared_file_is_not_for_others(tmp_path: Path) -> None:
    os.close(files.open_shared(str(tmp_path / "file")))
    assert _mode(tmp_path / "file") & 0o007 == 0


def test_a_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    files.make_directory(str(path))
    files.make_directory(str(path))
    assert path.is_dir() and _mode(path) & 0o007 == 0
