"""Fixtures for all who need nodes: a bed of the session's own, and the package under test."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from testbed import roots
from testbed.bed import Bed, Snapshot

from tests.support.releases import THIS

__all__ = ["bed", "furnished", "node_package", "package"]


@pytest.fixture(scope="session")
def package() -> Path:
    """The .deb under test, as packaging/build-deb made it."""
    return Path("dist", f"ivy_{THIS.replace('-', '~')}_all.deb")


@pytest.fixture(scope="session")
def node_package() -> Path:
    """That of ivy-node."""
    return Path("dist", f"ivy-node_{THIS.replace('-', '~')}_all.deb")


@pytest.fixture(scope="session")
def bed() -> Generator[Bed, None, None]:
    bed = Bed(os.environ.get("IVY_TESTBED", "tests"))  # another name, to run beside other tests
    bed.down()  # of a run that was killed
    with bed:
        yield bed


@pytest.fixture(scope="session")
def furnished(bed: Bed) -> Snapshot:
    """The disk of a node without ivy that has all packages which ivy depends on."""
    return furnish(bed)


def furnish(bed: Bed) -> Snapshot:
    """Make such a disk, as if they had come for something else; once on this machine.

    For tests that are not about these packages: to install them takes four times as long as ivy itself.
    """
    root, names = roots.node_root(), roots.dependencies()

    def make() -> Path:
        node = bed.node("furnisher")
        node.boot()
        node.run(["apt-get", "install", "--yes", *names], timeout=600)
        node.run(["apt-mark", "auto", *names])
        frozen = node.snapshot("furnished").layers[0]
        node.destroy()
        return frozen

    made_of = f"{root} {names}".encode()
    return Snapshot("furnished", (roots.kept_layer("furnished", made_of, make), root))
