"""Checksums of the files of a release, by which it is seen that a card, a kernel or a power cut has damaged some.

They are in the release, as `sha256sum --check` reads them, so that /usr/bin/ivy can look without Python: see
`ivy/whole.sh`. In `manifest` is what came with the release; in `manifest.bytecode` what Python has made of it here,
which can be made again from nothing else. Configs and secrets have a second copy each, and are in neither; nor are
the environment, which is tried out, and `origin`, without which a release is only fetched again.

Whoever edits a release to find a fault removes both files first: a release without them is as it should be.
"""

import compileall
import hashlib
import os
import py_compile
import re
from collections.abc import Iterator
from pathlib import Path

from ivy import files

FILE, BYTECODE = "manifest", "manifest.bytecode"

_NOT_IN_IT = (FILE, BYTECODE, "origin", "config")
_TEMPLATE = os.path.join("config", "config.template.json")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
# sha256sum takes it for a comment. By it a manifest that is damaged itself is told from one that shows damage.
_FIRST_LINE = "# sha256 of all that follows: "


def write(release: Path) -> None:
    """Write both files, of a release that is whole.

    Raises:
        OSError: It cannot be read, or takes nothing.
    """
    write_for(release, checksums(release))
    write_bytecode(release)


def write_for(release: Path, sums: dict[str, str]) -> None:
    """Say what a release consists of: the checksum of each file, by its path in the release."""
    _write(release / FILE, sums)


def write_bytecode(release: Path) -> None:
    """Say that the bytecode is as it should be."""
    paths = sorted((release / "ivy").glob("**/__pycache__/*.pyc"))
    _write(release / BYTECODE, {str(path.relative_to(release)): _digest(path) for path in paths})


def checksums(tree: Path) -> dict[str, str]:
    """The checksum of each file of a release, or of a directory with what one is made of."""
    return {str(path.relative_to(tree)): _digest(path) for path in _files(tree)}


def read(release: Path) -> dict[str, str] | None:
    """What a release should consist of; None where nothing says so.

    Raises:
        ValueError: The manifest itself is damaged.
    """
    return _read(release / FILE)


def damaged(release: Path) -> list[str]:
    """The files that are gone, cannot be read or are others now, by their paths in the release.

    Bytecode is among them. A manifest that is damaged is such a file, and says nothing about others.
    """
    found = []
    for name in (FILE, BYTECODE):
        try:
            sums = _read(release / name)
        except ValueError:
            found.append(name)
        else:
            found += [path for path, expected in (sums or {}).items() if not has(release / path, expected)]
    return found


def has(path: Path, expected: str) -> bool:
    """Whether a file has a checksum. What cannot be read is as good as gone."""
    try:
        return path.is_file() and _digest(path) == expected
    except OSError:
        return False


def compile_code(release: Path, *, force: bool = False) -> bool:
    """Make the bytecode that is not there, or is older than its source; or all of it.

    Returns: Whether all that was compiled is code.
    """
    # Said, because the default follows SOURCE_DATE_EPOCH. Whoever edits a release to find a fault sees the effect.
    by_time = py_compile.PycInvalidationMode.TIMESTAMP
    return bool(compileall.compile_dir(release / "ivy", quiet=1, force=force, invalidation_mode=by_time))


def _files(tree: Path) -> Iterator[Path]:
    """In an order that does not depend on the disk. What a link leads to is in the same tree."""
    for top in sorted(tree.iterdir()):
        if top.is_dir() and top.name not in _NOT_IN_IT and not top.name.startswith("."):
            for parent, directories, names in os.walk(top):
                directories[:] = sorted(name for name in directories if name != "__pycache__")
                yield from (Path(parent, name) for name in sorted(names) if _is_listed(Path(parent, name)))
        elif top.name not in _NOT_IN_IT and _is_listed(top):
            yield top
    if (tree / _TEMPLATE).is_file():
        yield tree / _TEMPLATE


def _is_listed(path: Path) -> bool:
    """Not a name that sha256sum would write in another way, nor what a killed writer left."""
    is_plain = str(path).isprintable() and "\\" not in str(path)
    return is_plain and not path.name.startswith(".") and path.is_file()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, sums: dict[str, str]) -> None:
    if not sums:  # sha256sum takes an empty list for a damaged one
        return files.remove(str(path))
    lines = "".join(f"{checksum}  {name}\n" for name, checksum in sums.items())
    files.write_atomically(path, f"{_FIRST_LINE}{_checksum(lines)}\n{lines}", mode=0o644)


def _read(path: Path) -> dict[str, str] | None:
    try:
        text = files.read(str(path)).decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    first, _, lines = text.partition("\n")
    found = [_LINE.fullmatch(line) for line in lines.split("\n")[:-1]]
    if first != f"{_FIRST_LINE}{_checksum(lines)}" or None in found:
        raise ValueError(f"{path} is damaged")
    return {match[2]: match[1] for match in found if match}


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
