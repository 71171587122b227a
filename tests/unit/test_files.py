"""`ivy.files`: written whole or not at all."""

import os
import stat
from collections.abc import Callable
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
    files.write_atomically(file, b"\xff\r\n")
    assert file.read_bytes() == b"\xff\r\n"
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


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A directory that is somebody else's, if we are root; it leads root to a file of root's."""
    directory = tmp_path / "foreign"
    directory.mkdir()
    (tmp_path / "roots").write_text("as it was")
    (directory / "link").symlink_to("../roots")
    os.chown(directory, 4711 if os.geteuid() == 0 else -1, -1)
    return directory


def test_root_is_somebody_else_where_files_are_theirs(foreign: Path) -> None:
    before, owner = (os.geteuid(), os.getegid(), os.getgroups()), foreign.stat().st_uid
    with files.as_owner_of(str(foreign)):
        assert os.geteuid() == owner
        if before[0] == 0:
            assert os.getgroups() == [os.getegid()], "root's groups may read what the owner may not"
        with files.as_owner_of(str(foreign)):
            pass  # may be nested
        if before[0] == 0:
            with pytest.raises(PermissionError):
                files.write_atomically(foreign / "link", "x")
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before
    with pytest.raises(ZeroDivisionError), files.as_owner_of(str(foreign)):
        raise ZeroDivisionError
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before
    assert (foreign.parent / "roots").read_text() == "as it was"


def test_where_there_is_no_directory_everybody_is_who_they_are(tmp_path: Path) -> None:
    before = os.geteuid()
    with files.as_owner_of(str(tmp_path / "missing")), files.as_owner_of(str(tmp_path)):
        assert os.geteuid() == before


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**12)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd"), _sparse])
def test_what_is_no_file_of_a_usual_size_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError, match="x"):
        files.read(str(tmp_path / "x"))


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\0")
    assert files.read(str(tmp_path / "x")) == b"\xff\0"
    with pytest.raises(FileNotFoundError):
        files.read(str(tmp_path / "y"))


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("kept")])
def test_whatever_is_there_is_removed_but_not_where_it_leads(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    (tmp_path / "kept" / "inner").mkdir(parents=True)
    make(tmp_path / "x")
    for _ in range(2):
        files.remove(str(tmp_path / "x"))
        assert not os.path.lexists(tmp_path / "x")
    assert (tmp_path / "kept" / "inner").is_dir()


def test_a_closed_directory_is_removed_too(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "x" / "closed").mkdir(parents=True)
    (tmp_path / "x" / "closed" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "x" / "closed").chmod(0)
    (tmp_path / "x").chmod(0)
    files.remove(str(tmp_path / "x"))
    assert not (tmp_path / "x").exists() and (tmp_path / "kept").is_dir()


def test_what_is_made_in_a_shared_directory_is_shared(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    files.make_directory(str(tmp_path / "directory"))
    os.close(files.open_shared(str(tmp_path / "directory" / "file")))
    assert (tmp_path / "directory").stat().st_mode & 0o7777 == 0o2770
    assert (tmp_path / "directory" / "file").stat().st_mode & 0o7777 == 0o660
