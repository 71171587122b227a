"""The virtual environment of a release: on top of the distribution's libraries, with what its lock file adds."""

import contextlib
import os
import shutil
import sys
from pathlib import Path

from ivy import constants, files
from ivy.utils.host import commands
from ivy.utils.updates import requirements, sandbox
from ivy.utils.updates.errors import InstallTrouble, Rejected
from ivy.utils.updates.releases import BUNDLED

WHEELS = Path("/usr/share/ivy/wheels")
"""What the package's release needs beyond Debian's libraries, for each architecture; not there if nothing."""

SYSTEMD = Path("/run/systemd/system")
"""It is there where systemd runs, see sd_booted(3)."""

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
    # The package's decides what is run. Where there is none, or it is damaged, this one's answer is as good.
    said = ""
    for place in (BUNDLED, Path(constants.PROJECT_DIR)):
        try:
            commands.run(["/bin/sh", str(place / _QUESTION), str(release)], timeout=_SECONDS_TO_ANSWER)
        except commands.CommandError as error:
            said = error.output
            if error.status == 1:
                break
        else:
            return None
    return said or "its files are not those of an environment, or Python does not answer"


def check(release: Path) -> None:
    """Reject a release that cannot be run; so the answer is known before its services ask, which cannot keep it."""
    if (trouble := why_not(release)) is not None:
        raise Rejected(f"it cannot be run with its environment:\n{trouble}")


def install_dependencies(release: Path, *, wheels: Path = WHEELS) -> None:
    """Install what the lock file names: hashes checked, wheels only, so that no code of theirs runs here.

    Nothing happens if it names nothing; and no network is needed where the package has brought all of it.
    Afterwards the environment belongs to the sandbox's user.

    Raises:
        Rejected: It cannot be done; the text says why.
        InstallTrouble: Something cannot be fetched now.
    """
    if (pip := _pip(release)) is None:
        return
    at_hand = [f"--find-links={wheels}"] if wheels.is_dir() else []
    if at_hand:
        with contextlib.suppress(commands.CommandError):
            return _confined([*pip, "--no-index", *at_hand], release)
    try:
        _confined([*pip, *at_hand], release)
    except commands.CommandError as error:
        # Nothing at all is what the time limit leaves, on a slow link.
        if not error.output or any(pattern in error.output for pattern in _NETWORK_TROUBLES):
            raise InstallTrouble(f"its dependencies cannot be fetched now: {error.output or error}") from None
        raise Rejected(f"its dependencies cannot be installed: {error.output or error}") from None


def install_bundled_dependencies(release: Path, *, wheels: Path = WHEELS, systemd: Path = SYSTEMD) -> None:
    """Install what the lock file names, as a package's script may: with nothing but what the package has brought.

    Raises:
        Rejected: It cannot be done; the text says why.
        NodeTrouble: This node lacks something.
    """
    if (pip := _pip(release)) is None:
        return
    pip += ["--no-index", f"--find-links={wheels}"]
    try:
        if systemd.is_dir():
            sandbox.stop_all()  # a pass that was killed may have left one of the name
            _confined(pip, release)
        else:  # where an image is made; and nothing of a wheel is run. What root has at home, no service finds.
            commands.run(["/usr/bin/env", "PYTHONNOUSERSITE=1", *pip], timeout=sandbox.SECONDS_AT_MOST)
    except commands.CommandError as error:
        raise Rejected(f"its dependencies cannot be installed from {wheels}: {error.output or error}") from None
    sandbox.take_back(release / ".venv")


def _pip(release: Path) -> list[str] | None:
    """The command that installs what the lock file names; None if that is nothing."""
    needed = requirements.read(release)
    if not needed:
        return None
    # Not the release's own file: pip may read that in another way, such as in the encoding that a comment names.
    checked = release / ".venv" / "requirements.txt"
    checked.write_text("".join(f"{line}\n" for line in needed), encoding="ascii")
    pip = [sys.executable, "-m", "pip", f"--python={python_of(release)}"]
    # An index or a proxy in the admin's /etc/pip.conf is wanted here, too, but not "user = true".
    pip += ["install", "--no-user", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-compile"]
    return [*pip, "--quiet", "--require-hashes", "--only-binary=:all:", f"--requirement={checked}"]


def _confined(pip: list[str], release: Path) -> None:
    sandbox.run("install", pip, writable=release / ".venv", environment=["HOME=/nonexistent"])


def make_again(release: Path) -> None:
    """Replace the environment of a release in its place. Until that is done, `fits` is false.

    Raises:
        Rejected, InstallTrouble: As for `install_dependencies`.
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
