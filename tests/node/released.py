"""The package of ivy 1.0.0 as it was released, from this repository's history: what upgrades begin with."""

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from testbed.network import locked
from testbed.roots import CACHE
from testbed.run import run

from tests.support.releases import PROJECT

COMMIT = "f0b5cb3f72956a248a2f5948d0ce910ab5651ced"
SECONDS_TO_BUILD = 900
BUILD_DEPENDS = re.compile(r"(?m)^Build-Depends:.*\n(?:[ \t].*\n)*")


def package() -> Path:
    """The .deb; built once on a machine, as building it again makes the same bytes."""
    built = CACHE / "released" / f"ivy_1.0.0_all-{COMMIT[:12]}.deb"
    with locked(built.parent):  # sessions that run beside this one need it as well
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
        _build_it_as_ours(clone)
        environment = {"DEB_BUILD_OPTIONS": "nocheck", "IVY_SUITE": ""}
        run([clone / "packaging/build-deb"], env=environment, timeout=SECONDS_TO_BUILD)
        beside = target.with_name(f".{target.name}.new")
        shutil.copyfile(clone / "dist/ivy_1.0.0_all.deb", beside)
        beside.rename(target)


def _build_it_as_ours(clone: Path) -> None:
    """In the same Debian as this checkout's package: to make another, with nearly the same in it, takes a minute.

    What comes out is the same, byte by byte.
    """
    for name in ("build-deb", "locking.py", "node_needs.py", "testbed"):
        run(["rm", "-rf", clone / "packaging" / name])
        run(["cp", "--archive", PROJECT / "packaging" / name, clone / "packaging"])
    for name in ("requirements.in", "requirements.lock"):  # neither is a part of the package where it names nothing
        run(["cp", PROJECT / name, clone])
    control = clone / "debian/control"
    ours = BUILD_DEPENDS.findall((PROJECT / "debian/control").read_text())[0]
    control.write_text(BUILD_DEPENDS.sub(lambda _: ours, control.read_text(), count=1))
