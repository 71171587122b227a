"""Whether a repository, or a copy of one, is whole: signatures, checksums, former indexes, packages.

Changes nothing.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from repository.keys import public_of
from repository.layout import Repository, digest, files_of, is_as_named, packages_of, unpacked, valid_until


def faults(repository: Repository) -> Iterator[str]:
    """What is wrong, in words; nothing if all is well."""
    for file in (repository.public_key, repository.signed):
        if not file.is_file():
            yield f"{file} is missing"
            return
    with public_of(repository.public_key) as keys:
        signers, release = keys.verify(repository.signed)
        missing = set(keys.fingerprints).difference(signers)
    if not signers:
        yield f"{repository.signed} has no signature that holds, by a key of {repository.public_key}"
        return
    yield from (f"{repository.signed} is not signed by {key}, which {repository.public_key} has" for key in missing)
    if (until := valid_until(release)) is not None and until < time.time():
        yield f"{repository.signed} was valid until {time.ctime(until)}: publish again"
    for checksum, size, path in files_of(release):
        yield from _faults_of_index(repository.suite / path, checksum, size)
    yield from _faults_of_packages(repository)


def _faults_of_index(path: Path, checksum: str, size: int) -> Iterator[str]:
    """It is there by its name and by its hash; of the long form there is the checksum only."""
    if path.name == "Packages":
        packed = path.with_name("Packages.xz")
        if packed.is_file() and digest(unpacked(packed.read_bytes()).encode()) != checksum:
            yield f"{packed} is not what {path} is to be"
        return
    for place in (path, path.parent / "by-hash" / "SHA256" / checksum):
        if not place.is_file():
            yield f"{place} is missing"
        elif place.stat().st_size != size or digest(place.read_bytes()) != checksum:
            yield f"{place} is not what was signed"


def _faults_of_packages(repository: Repository) -> Iterator[str]:
    """Those of former indexes, too: there are nodes that have fetched these, and no package yet."""
    wanted = set()
    for path in sorted(repository.suite.glob("**/by-hash/*/*")):
        if not is_as_named(path):
            yield f"{path} is no file of this checksum"
        elif (text := unpacked(path.read_bytes())).startswith("Package: "):
            wanted |= set(packages_of(text))
    for name, file, size, checksum in sorted(wanted):
        package = repository.output / file
        if not package.is_file():
            yield f"{package} ({name}) is missing"
        elif package.stat().st_size != size or digest(package.read_bytes()) != checksum:
            yield f"{package} ({name}) is not what an index says"
