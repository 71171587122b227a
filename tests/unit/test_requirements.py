"""What a lock file may say, as exporters write it, and what else pip would do if it were asked."""

from pathlib import Path

import pytest

from ivy.utils.updates import requirements
from ivy.utils.updates.errors import Rejected

ONE, TWO = f"--hash=sha256:{'1' * 64}", f"--hash=sha512:{'2' * 128}"


def read(release: Path, lock: str) -> list[str]:
    """Let a lock file be read."""
    (release / requirements.FILE).write_text(lock)
    return requirements.read(release)


def test_no_file_names_nothing(tmp_path: Path) -> None:
    assert requirements.read(tmp_path) == []


@pytest.mark.parametrize(
    ("lock", "read_as"),
    [
        ("", []),
        ("# none\n \n\t# at all\n", []),
        (f"a==1.0 {ONE}\n", [f"a==1.0 {ONE}"]),
        (f"a==1.0 {ONE}", [f"a==1.0 {ONE}"]),
        (f"a==1.0 {ONE}  # why\r\nb-c.d==2!1.0rc1+local.1\t{TWO}\r\n", None),
        # As pip-compile, uv and poetry write it.
        (f"#\n# a comment\n#\na==1.0 \\\n    {ONE} \\\n    {TWO}\n    # via b\nb==2 {ONE}\n", None),
        (f"a[x,y-z]==1.0 ; python_version >= '3.9' and (sys_platform == \"linux\") \\\n    {ONE}\n", None),
    ],
)
def test_names_versions_and_hashes_are_read(tmp_path: Path, lock: str, read_as: list[str] | None) -> None:
    found = read(tmp_path, lock)
    if read_as is not None:
        assert found == read_as
    assert all("#" not in line and "\\" not in line and line.isascii() for line in found)
    assert len(found) == lock.count("==") - lock.count("sys_platform ==")


@pytest.mark.parametrize(
    "line",
    [
        "a==1.0",
        "a",
        f"a {ONE}",
        f"a>=1.0 {ONE}",
        f"a==1.* {ONE}",
        f"a===1.0 {ONE}",
        f"a @ http://host/a-1.0.tar.gz {ONE}",
        f"a@http://host/a-1.0.tar.gz {ONE}",
        f"http://host/a-1.0.tar.gz#egg=a {ONE}",
        f"git+https://host/a@1.0 {ONE}",
        f"file:///tmp/a-1.0.tar.gz {ONE}",
        f"./a==1.0 {ONE}",
        f"/a==1.0 {ONE}",
        f"-e . {ONE}",
        "-r other",
        "--requirement=/etc/shadow",
        "--index-url http://host/",
        f"a==1.0 --index-url http://host/ {ONE}",
        f"a==1.0 {ONE} --index-url=http://host/",
        f"a==1.0 ; x --index-url=http://host/ {ONE}",
        f"a==1.0 ; x == 'http://host/' {ONE}",
        f"a==1.0 --global-option=x {ONE}",
        f"a==1.0 --config-settings=x=y {ONE}",
        f"a==1.0 {ONE} \\\n--no-binary=:all:",
        f"a==1.0 \\\n@ http://host/a-1.0.tar.gz {ONE}",
        f"a==${{HOME}} {ONE}",
        f"a==1.0 --hash=md5:{'1' * 32}",
        f"a==1.0 {ONE}\0",
        f"a==1.0 {ONE}\v-r other",
        f"a==1.0 {ONE}\u2028-r other",
        f"\ufeffa==1.0 {ONE}",
        f"\u0430==1.0 {ONE}",
        f"a==1.0+AAo-http://host/a-1.0.tar.gz {ONE}",
    ],
)
def test_everything_else_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    with pytest.raises(Rejected, match=r"requirements\.lock, line 3: must look like") as caught:
        read(tmp_path, f"# coding: utf-7\ngood==1.0 {ONE}\n{line}\n")
    assert len(str(caught.value)) < 500


def test_there_is_no_line_within_a_line(tmp_path: Path) -> None:
    """A dot in a line of its own would be the directory."""
    for end in "\v\f\r\x1c\x1d\x1e\x85\u2028":
        [line] = read(tmp_path, f"a==1.0 ; x == 'y'{end}. {ONE}")
        assert len(line.splitlines()) == 1


def test_a_lock_file_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="is longer than"):
        read(tmp_path, "#" * 1_000_001)
