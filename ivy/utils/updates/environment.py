"""The virtual environment of a release: on top of the distribution's libraries, with what its lock file adds."""

import os
import shutil
import sys
from pathlib import Path

from ivy import constants, files
from ivy.utils.host import commands
from ivy.utils.updates import sandbox
from ivy.utils.updates.errors import NetworkTrouble, Rejected
from ivy.utils.updates.releases import BUNDLED

_MARK = "ivy.pth"
"""Makes the release importable. An environment that is made again gets it when it is whole."""
_LATER = "ivy.later"
_QUESTION = Path("ivy", "fits.sh")
_SECONDS_TO_ANSWER = 60  # it has a shorter limit of its own
_NETWORK_TROUBLES = ("Retrying (", "Connection", "Temporary failure", "timed out")


def make(release: Path, mark: str = _MARK) -> None:
    """Make a release's virtual environment, without anything in it but the release itself.

    As `python3 -m venv --system-site-packages --without-pip` does, but without the scripts that carry its path,
    because the release is renamed when it is done.
    """
    python = Path(sys.executable).resolve()
    packages = _site_packages(release)
    packages.mkdir(parents=True)
    (packages / mark).write_text("../../../..\n", encoding="utf-8")
    programs = release / ".venv" / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(python)
    (programs / "python").symlink_to("python3")
    settings = f"home = {python.parent}\ninclude-system-site-packages = true\n"
    (release / ".venv" / "pyvenv.cfg").write_text(settings, encoding="utf-8")


def python_of(release: Path) -> str:
    """The Python that runs a release."""
    return str(release / ".venv" / "bin" / "python3")


def fits(release: Path) -> bool:
    """Whether a release can be run with its environment: /usr/bin/ivy asks the same, see `ivy/fits.sh`."""
    return why_not(release) is None


def why_not(release: Path) -> str | None:
    """Why a release cannot be run with its environment; None if it can."""
    # The package's, because that decides what is run; where there is none, in a checkout, this one's.
    places = [BUNDLED / _QUESTION, Path(constants.PROJECT_DIR) / _QUESTION]
    question = next((place for place in places if place.is_file()), places[-1])
    try:
        commands.run(["/bin/sh", str(question), str(release)], timeout=_SECONDS_TO_ANSWER)
    except commands.CommandError as error:
        return error.output or "its files are not those of an environment, or Python does not answer"
    return None


def check(release: Path) -> None:
    """Reject a release that cannot be run; so the answer is known before its services ask, which cannot keep it."""
    if (trouble := why_not(release)) is not None:
        raise Rejected(f"it cannot be run with its environment:\n{trouble}")


def has_dependencies(release: Path) -> bool:
    """Whether the lock file of a release names anything that the distribution does not bring."""
    lock = release / "requirements.lock"
    lines = lock.read_text(encoding="utf-8", errors="replace").splitlines() if lock.is_file() else []
    return any(line.strip() and not line.strip().startswith("#") for line in lines)


def install_dependencies(release: Path) -> None:
    """Install what `requirements.lock` names: hashes checked, wheels only, so that no code of theirs runs here.

    Nothing happens, and no network is needed, if it names nothing. Afterwards the environment belongs to the
    sandbox's user.

    Raises:
        Rejected: It cannot be done; the text says why.
        NetworkTrouble: Something cannot be fetched now.
    """
    if not has_dependencies(release):
        return
    pip = [
        sys.executable,
        "-m",
        "pip",
        f"--python={python_of(release)}",
        "--no-input",
        "--disable-pip-version-check",
    ]
    options = ["--require-hashes", "--only-binary=:all:", "--no-cache-dir", "--no-compile", "--quiet"]
    try:
        sandbox.run(
            "install",
            [*pip, "install", *options, f"--requirement={release / 'requirements.lock'}"],
            writable=release / ".venv",
            environment=["HOME=/nonexistent"],
        )
    except commands.CommandError as error:
        # Nothing at all is what the time limit leaves, on a slow link.
        if not error.output or any(pattern in error.output for pattern in _NETWORK_TROUBLES):
            raise NetworkTrouble(f"its dependencies cannot be fetched now: {error.output or error}") from None
        raise Rejected(f"its dependencies cannot be installed: {error.output or error}") from None


def make_anew(release: Path) -> None:
    """Replace the environment of a release in its place. Until that is done, `fits` is false.

    Raises:
        Rejected, NetworkTrouble: As for `install_dependencies`.
    """
    for mark in (release / ".venv").glob(f"lib/*/site-packages/{_MARK}"):
        mark.unlink()  # first, and for good: what is half removed may still import what ivy needs
        files.sync(mark.parent)
    shutil.rmtree(release / ".venv", ignore_errors=True)
    make(release, _LATER)
    install_dependencies(release)
    sandbox.take_back(release / ".venv")
    os.sync()  # all that pip wrote, before anybody takes it for whole
    packages = _site_packages(release)
    (packages / _LATER).rename(packages / _MARK)
    files.sync(packages)


def compile_code(release: Path) -> None:
    """Make the bytecode of a release, which the services cannot write. The release is the sandbox's user's then.

    Raises:
        Rejected: There is code in it that is none.
    """
    command = [python_of(release), "-m", "compileall", "-q", "ivy"]
    try:
        sandbox.run("compile", command, writable=release, directory=release)
    except commands.CommandError as error:
        raise Rejected(f"its code does not compile:\n{error.output or error}") from None


def _site_packages(release: Path) -> Path:
    return release / ".venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
