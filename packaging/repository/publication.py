"""Publishing: what is new is made and signed in a scratch directory, then put in place; last what makes it count.

At each instant nodes find a whole repository: packages and indexes of former publications stay, and one that fails
changes nothing that counts.
"""

import lzma
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.run import BedError, run

from repository.keys import Keyring
from repository.layout import COMPONENT, WITHDRAWN, Package, Repository, digest, is_as_named

ORIGIN = "ivy"  # the role of packaging/ansible lets unattended-upgrades take what is of this one
ARCHITECTURES = ("amd64", "arm64", "armhf")  # an `Architecture: all` package is listed for each of them
SECONDS_OF_A_DAY = 86_400


@dataclass(frozen=True)
class Wish:
    """What is to be published."""

    packages: Sequence[Path]
    withdraw: str | None = None
    """A version, with its epoch or without."""
    valid_days: int | None = None


def publish(repository: Repository, wish: Wish, keys: Keyring) -> list[str]:
    """Publish what the repository has with these packages and without what was withdrawn.

    Returns:
        Those of the packages that were withdrawn, and so are left out.
    """
    published = [Package(file) for file in repository.pool]
    added = [Package(file.absolute()) for file in wish.packages]
    _require_same(repository, added)
    withdrawn = sorted({*repository.withdrawn(), *_withdrawn_by(wish, [*published, *added])})
    packages = {package.place: package for package in [*added, *published] if str(package) not in withdrawn}
    with tempfile.TemporaryDirectory(prefix="ivy-apt-") as scratch:
        stage = Path(scratch)
        _stage(stage, repository, packages.values(), withdrawn, wish.valid_days)
        keys.sign(stage / "Release", stage / "InRelease")
        for place, package in packages.items():
            if not (repository.output / place).exists():
                _put(package.file.read_bytes(), repository.output / place)
        _put_indexes(stage / "dists" / repository.codename, repository)
        _put(keys.public.encode(), repository.public_key)
        _put((stage / "InRelease").read_bytes(), repository.signed)
        _remove_remains(stage / "dists" / repository.codename, repository)
    return [str(package) for package in added if str(package) in withdrawn]


def _require_same(repository: Repository, added: Sequence[Package]) -> None:
    """Nodes that have a version never take another one of that name, and those that are about to would fail."""
    for package in added:
        place = repository.output / package.place
        if place.exists() and place.read_bytes() != package.file.read_bytes():
            raise BedError(
                f"{place} was published, and {package.file} is another one",
                "Give it a version of its own, in debian/changelog.",
            )


def _withdrawn_by(wish: Wish, packages: Sequence[Package]) -> Iterator[str]:
    if wish.withdraw is None:
        return
    version = wish.withdraw.rpartition(":")[2]
    found = [str(package) for package in packages if package.version == version]
    if not found:
        there = ", ".join(map(str, packages)) or "nothing"
        raise BedError(f"there is no version {wish.withdraw} to withdraw", f"There is {there}.")
    yield from found


def _stage(
    stage: Path,
    repository: Repository,
    packages: Iterable[Package],
    withdrawn: Sequence[str],
    valid_days: int | None,
) -> None:
    """Indexes below `dists`, and beside it the Release that names them."""
    (stage / "pool").mkdir()
    for package in packages:
        place = stage / package.place
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(package.file)
    suite = stage / "dists" / repository.codename
    for architecture in ARCHITECTURES:
        directory = suite / COMPONENT / f"binary-{architecture}"
        directory.mkdir(parents=True)
        index = _ftparchive(stage, "--arch", architecture, "packages", "pool")
        (directory / "Packages").write_text(index)
        (directory / "Packages.xz").write_bytes(lzma.compress(index.encode()))
    if withdrawn:
        (suite / COMPONENT / WITHDRAWN).write_text("".join(f"{line}\n" for line in withdrawn))
    fields = {
        "Origin": ORIGIN,
        "Label": ORIGIN,
        "Suite": repository.codename,
        "Codename": repository.codename,
        "Architectures": " ".join(ARCHITECTURES),
        "Components": COMPONENT,
        "Acquire-By-Hash": "yes",
        "Patterns::": WITHDRAWN,
    }
    if valid_days is not None:
        fields["ValidTime"] = str(valid_days * SECONDS_OF_A_DAY)
    options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in fields.items()]
    weak = [f"-oAPT::FTPArchive::{name}=no" for name in ("MD5", "SHA1", "SHA512")]
    (stage / "Release").write_text(_ftparchive(stage, *options, *weak, "release", f"dists/{repository.codename}"))


def _ftparchive(stage: Path, *arguments: str) -> str:
    command = ["env", f"--chdir={stage}", f"APT_CONFIG={os.devnull}", "apt-ftparchive", "--quiet"]
    return run([*command, *arguments], timeout=300).stdout


def _put_indexes(staged: Path, repository: Repository) -> None:
    """By their hashes first: of those none is ever replaced."""
    files = [path for path in staged.rglob("*") if path.is_file() and _is_published(path)]
    for path in files:
        by_hash = repository.suite / path.relative_to(staged).parent / "by-hash" / "SHA256"
        _put(path.read_bytes(), by_hash / digest(path.read_bytes()))
    for path in files:
        _put(path.read_bytes(), repository.suite / path.relative_to(staged))


def _is_published(path: Path) -> bool:
    """All but the long form, of which there is the checksum only, as in Debian's own archive."""
    return path.name != "Packages"


def _remove_remains(staged: Path, repository: Repository) -> None:
    """What other tools have made, what was written in vain, and what APT refuses anyway."""
    for path in [*repository.suite.rglob("*")]:
        if not path.is_dir() and path != repository.signed:
            source = staged / path.relative_to(repository.suite)
            is_ours = is_as_named(path) if "by-hash" in path.parts else source.exists() and _is_published(source)
            if not is_ours:
                path.unlink()


def _put(content: bytes, place: Path) -> None:
    """A whole file or none, also after a power cut."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(place)
    directory = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
