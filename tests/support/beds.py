"""Fixtures for all who need nodes: a bed of the session's own, and the package under test."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from testbed.bed import Bed

from tests.support.releases import THIS

__all__ = ["bed", "package"]


@pytest.fixture(scope="session")
def package() -> Path:
    """The .deb under test, as packaging/build-deb made it."""
    return Path("dist", f"ivy_{THIS.replace('-', '~')}_all.deb")


@pytest.fixture(scope="session")
def bed() -> Generator[Bed, None, None]:
    bed = Bed(os.environ.get("IVY_TESTBED", "tests"))  # another name, to run beside other tests
    bed.down()  # of a run that was killed
    with bed:
        yield bed
