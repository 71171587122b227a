"""The package of ivy 1.0.0 as it was released, from this repository's history: what upgrades begin with."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from testbed.roots import CACHE
from testbed.run import run

from tests.support.releases import PROJECT

COMMIT = "f0b5cb3f72956a248a2f5948d0ce910ab5651ced"
SECONDS_TO_BUILD = 900


def package() -> Path:
    """The .deb; built once on a machine, as building it again makes the same bytes."""
    built = CACHE / f"ivy_1.0.0_all-{COMMIT[:12]}.deb"
    if not built.exists():
        _build(built)
    return built


def _build(target: Path) -> None:
    if run(["git", "-C", PROJECT, "cat-file", "-e", COMMIT], check=False).returncode != 0:
        pytest.skip(f"the history of this clone does not reach to {COMMIT[:12]}: git fetch --unshallow")
    with tempfile.TemporaryDirectory(prefix="ivy-released-") as scratch:
        clone = Path(scratch, "ivy")
        run(["git", "clone", "--quiet", "--shared", "--no-checkout", PROJECT, clone])
        run(["git", "-C", clone, "checkout", "--quiet", COMMIT])
        environment = {"DEB_BUILD_OPTIONS": "nocheck"}
        run([clone / "packaging/build-deb"], env=environment, timeout=SECONDS_TO_BUILD)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(clone / "dist/ivy_1.0.0_all.deb", beside)
        beside.rename(target)
