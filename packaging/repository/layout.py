"""What is where in a repository, and what its files say: no more than APT knows of it."""

import contextlib
import hashlib
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path

from testbed.run import run

COMPONENT = "main"
WITHDRAWN = "ivy-withdrawn"
"""An index beside those of packages: the node's APT fetches it as it does these (debian/ivy.apt)."""

ALGORITHMS = {"MD5Sum": "md5", "SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
"""By the names of directories. We make SHA256 only; aptly, which was used before, made all."""


@dataclass(frozen=True)
class Repository:
    """Where it is published, and for which Debian."""

    output: Path
    codename: str

    @property
    def public_key(self) -> Path:
        """What nodes are given to trust."""
        return self.output / "ivy-archive-keyring.asc"

    @property
    def suite(self) -> Path:
        """All that is for this Debian; packages are for each."""
        return self.output / "dists" / self.codename

    @property
    def signed(self) -> Path:
        """The one file by which all others hold."""
        return self.suite / "InRelease"

    @property
    def pool(self) -> list[Path]:
        """All packages that were ever published."""
        return sorted(self.output.glob("pool/**/*.deb"))

    def withdrawn(self) -> list[str]:
        """Package and version, as in `ivy 1:1.2.0`."""
        file = self.suite / COMPONENT / WITHDRAWN
        return file.read_text().splitlines() if file.exists() else []


@dataclass(frozen=True)
class Package:
    """A package, wherever its file is."""

    file: Path

    @cached_property
    def _fields(self) -> list[str]:
        form = "${Package} ${Version} ${Architecture} ${source:Package}"
        return run(["dpkg-deb", "--show", f"--showformat={form}", self.file]).stdout.split()

    def __str__(self) -> str:
        return " ".join(self._fields[:2])

    @property
    def version(self) -> str:
        """Without its epoch, as in names of files."""
        return self._fields[1].rpartition(":")[2]

    @property
    def place(self) -> Path:
        """Where it belongs in a repository."""
        name, _version, architecture, source = self._fields
        return Path("pool", COMPONENT, source[0], source, f"{name}_{self.version}_{architecture}.deb")


def digest(content: bytes, algorithm: str = "sha256") -> str:
    """The checksum, in hexadecimal digits."""
    return hashlib.new(algorithm, content).hexdigest()


def is_as_named(by_hash: Path) -> bool:
    """Whether what is below `by-hash` is a file (aptly made links, too) of the checksum that it is called by."""
    algorithm = ALGORITHMS.get(by_hash.parent.name)
    is_file = by_hash.is_file() and not by_hash.is_symlink()
    return is_file and algorithm is not None and digest(by_hash.read_bytes(), algorithm) == by_hash.name


def files_of(release: str) -> Iterator[tuple[str, int, str]]:
    """Checksum, size and path of each file that a Release names."""
    for line in re.findall(r"(?m)^ ([0-9a-f]{64} .*)$", release):
        checksum, size, path = line.split()
        yield checksum, int(size), path


def packages_of(index: str) -> Iterator[tuple[str, str, int, str]]:
    """Package with version, file, size and checksum of each entry."""
    for entry in index.split("\n\n"):
        field = dict(re.findall(r"(?m)^(\w+): (.*)$", entry))
        if {"Package", "Version", "Filename", "Size", "SHA256"} <= field.keys():
            yield f"{field['Package']} {field['Version']}", field["Filename"], int(field["Size"]), field["SHA256"]


def valid_until(release: str) -> float | None:
    """In Unix seconds; None if it holds for ever."""
    found = re.search(r"(?m)^Valid-Until: (.*)$", release)
    return parsedate_to_datetime(found[1]).timestamp() if found else None


def unpacked(index: bytes) -> str:
    """The text of an index, in whatever form it is; none of what is no index."""
    with contextlib.suppress(lzma.LZMAError, zlib.error, UnicodeDecodeError):
        if index.startswith(b"\xfd7zXZ"):
            index = lzma.decompress(index)
        elif index.startswith(b"\x1f\x8b"):
            index = zlib.decompress(index, wbits=zlib.MAX_WBITS | 16)
        return index.decode()
    return ""
