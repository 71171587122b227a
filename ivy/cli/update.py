"""`ivy config apply`, `set`, `edit`, `update`, `rollback`: offers of the admin's, on the road of all."""

import argparse
import contextlib
import os
import signal
import sqlite3
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pydantic

from ivy import constants, overview, update_pass
from ivy.cli import fields
from ivy.cli.main import refuse
from ivy.types import secrets, secrets_file
from ivy.types.config import ConfigError, ForeignConfig, as_text, check_names, split_text
from ivy.types.updates import Offer, Source
from ivy.utils.functions import duration, end_automation
from ivy.utils.host import hold, units
from ivy.utils.logger import Logger
from ivy.utils.updater import Updater
from ivy.utils.updates import admin_files, damaged_config, history, sandbox
from ivy.utils.updates.releases import Releases, why_unusable
from ivy.version import Version

INTERRUPTED = 130
_SECONDS_TO_END = 60.0
_WISHES = ("config", "setup", "update", "rollback")
"""The commands that come here."""


@dataclass(frozen=True)
class Wish:
    """How an offer of the admin's is to be taken to its decision."""

    is_urgent: bool = False
    """Whether to restart procedures that are not to be disturbed now, too."""
    is_sure: bool = False
    """Whether what waits under another name of the node may be sent under the new one."""
    most_seconds: float | None = None
    """How long to wait for the decision; None: as long as that takes."""
    files: Path | None = None
    """A directory with files of /etc/ivy that belong to the config."""

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """What the command's options say, as far as it has them."""
        files = getattr(arguments, "files", None)
        return cls(arguments.now, getattr(arguments, "yes", False), arguments.wait, Path(files) if files else None)


PATIENT = Wish()


def apply(arguments: argparse.Namespace) -> int:
    """Use the config of a file."""
    try:
        file = arguments.file
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding=secrets_file.ENCODING)
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{arguments.file} cannot be read: {error}")
    require_admin()
    if arguments.files is not None:
        try:
            admin_files.check(Path(arguments.files))
        except (OSError, ValueError) as error:
            refuse(f"--files: {error}")
    return apply_text(text, Wish.of(arguments))


def set_field(arguments: argparse.Namespace) -> int:
    """Change one field of the config, and use it."""
    path: str = arguments.path
    try:
        fields.check(path)
    except fields.UnknownFieldError as error:
        refuse(str(error))
    require_admin()
    refuse_beside_mistake()
    value: str = sys.stdin.read().rstrip("\n") if arguments.value == "-" else arguments.value
    try:
        before = ForeignConfig.load_from_string(Releases().shown_text()).model_dump(mode="json")
    except ConfigError as error:
        refuse(f"the active config cannot be read: {error}; try ivy config edit")
    after = fields.replace(before, path, value)
    if arguments.value != "-" and (named := fields.secrets_in(after, path)):
        way = f"- reads standard input: ivy config set {path} -"
        refuse(f"{named[0]} is a secret, and everybody can read arguments; {way}")
    if after == before:
        print("Nothing was changed.")
        return 0
    return apply_text(secrets_file.as_text(after), Wish.of(arguments))


def refuse_beside_mistake() -> None:
    """What somebody has typed is not to be replaced by what was accepted before it, changed in one place."""
    releases = Releases()
    version = releases.current()
    if version is not None and damaged_config.mistake(releases) is not None:
        config = releases.config_file(version)
        lost = "Nothing was changed, as what stands there would be lost. First correct it: sudo ivy config edit"
        refuse(f"{config}: {why_unusable(config, version)}\n{lost}", constants.EXIT_CONFIG_ERROR)


def edit(arguments: argparse.Namespace) -> int:
    """Let the admin change the config, and use it."""
    require_admin()
    before = damaged_config.mistake(Releases()) or Releases().shown_text()
    descriptor, name = tempfile.mkstemp(prefix="ivy-config-", suffix=".json")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(before)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "sensible-editor"
    # By a shell, as git and others do it: it may have arguments, such as "code --wait".
    if os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f'{editor} "$1"', "sh", name) != 0:
        os.unlink(name)  # where it cannot be read, it may hold secrets
        refuse(f"{editor} failed; the environment variable EDITOR names another editor. Nothing was changed")
    after = secrets_file.read(Path(name))
    if after == before:
        print("Nothing was changed.")
        os.unlink(name)
        return 0
    status = apply_text(after, Wish.of(arguments))
    if status == 0:
        os.unlink(name)
    else:
        said = f"Your text is kept in {name}, for root only; correct it, then run: ivy config apply {name}"
        if any(value != secrets.HIDDEN for _, value in secrets.values(split_text(after)[1])):
            said += f"\nIt holds a secret that you have typed. Afterwards: rm {name}"
        print(said, file=sys.stderr)
    return status


def update(arguments: argparse.Namespace) -> int:
    """Use another version, with the config as it is."""
    require_admin()
    try:
        version = Version(arguments.version.removeprefix("v"))
    except pydantic.ValidationError:
        refuse(f'a version must look like "1.2.3" or "1.2.3-rc.1", not {arguments.version!r}')
    try:
        config = ForeignConfig.load_from_string(Releases().active_text())
    except ConfigError as error:
        refuse(f"the active config cannot be read: {error}")
    return _perform(config.for_version(version), wish=Wish.of(arguments))


def rollback(arguments: argparse.Namespace) -> int:
    """Use what ran before the last change."""
    require_admin()
    last_good = history.load().last_good
    if last_good is None:
        refuse("there is nothing to go back to: no change was ever accepted")
    return _perform(last_good, "rollback", wish=Wish.of(arguments))


def apply_text(text: str, wish: Wish = PATIENT) -> int:
    """Take a config to its decision.

    Args:
        text: The config.
        wish: How that is to be done.

    Returns: The exit status: 0 accepted, 1 rejected, 75 not decided in time, 130 interrupted.
    """
    try:
        config = ForeignConfig.load_from_string(text)
        check_names(text)
    except ConfigError as error:
        print(f"ivy: rejected: {error}", file=sys.stderr)
        return 1
    status = _perform(config, wish=wish)
    if status == 0:
        _renew_link(text)
    return status


def apply_backend(identifier: str, backend: dict[str, Any], wish: Wish = PATIENT) -> int:
    """Use the active config with another name of the node, and what is given of the section `backend`.

    Where the active config cannot be read, there is nothing to keep. Returns the exit status, as `apply_text`.
    """
    content = Releases().active_content()
    content["general"]["system_identifier"] = identifier
    known = content.get("backend")
    content["backend"] = {**known, **backend} if isinstance(known, dict) else backend
    return apply_text(as_text(ForeignConfig.model_validate(content)), wish)


def _renew_link(text: str) -> None:
    """Let the file in /etc be the link to the active config again, unless it says what was not applied."""
    link = Path(constants.CONFIG_LINK)
    if overview.config_link_trouble() is None:
        return
    try:
        if not link.is_symlink() and secrets_file.read(link) != text:
            return
        make_link()
    except OSError as error:
        print(f"ivy: {link} could not be made the link to the active config: {error}", file=sys.stderr)
    else:
        print(f"{link} is the link to the active config again.")


def make_link() -> None:
    """Let the file in /etc be the link to the active config.

    Raises:
        OSError: It cannot be made.
    """
    link = Path(constants.CONFIG_LINK)
    beside = link.with_name(f".{link.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(Releases().root / "current" / "config" / "config.json")
    beside.rename(link)


def _perform(config: ForeignConfig, source: Source = "admin", *, wish: Wish) -> int:
    """Take an offer to its decision. A pass of the updater that is under way has to wait until then."""
    offer = Offer(identifier=f"{source}-{time.time_ns()}", config=config, source=source)
    limit = _Limit(wish.most_seconds)
    _let_signals_interrupt()
    try:
        with limit, alone():
            TalkingUpdater(update_pass.running_config()).trials.resume("the admin wants something else")
            failure = TalkingUpdater(update_pass.running_config()).perform(
                offer, is_urgent=wish.is_urgent, is_sure=wish.is_sure, files=wish.files
            )
            with contextlib.suppress(OSError, sqlite3.Error):  # the pass that follows tells it
                update_pass.announce()
    except KeyboardInterrupt:
        return _say_what_goes_on(offer, limit)
    return 1 if failure else 0


@contextlib.contextmanager
def alone() -> Generator[None, None, None]:
    """Nobody else changes what runs, across the body of a `with`. Signals interrupt it as Ctrl-C does."""
    _let_signals_interrupt()
    _end_former_wish()
    with _without_passes(), update_pass.automation_lock():
        sandbox.stop_all()  # what the pass had begun would be in the way
        # From here on a pass waits for the lock: whatever ends this command, that one goes on.
        _start_passes()
        yield


def _let_signals_interrupt() -> None:
    signal.signal(signal.SIGHUP, signal.default_int_handler)  # a terminal that is gone, e.g. with its network
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class _Limit:
    """Ends the body of a `with` when its time is up, whatever it waits for, as Ctrl-C would."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds or 0.0
        self.is_over = False
        self._timer = None if seconds is None else threading.Timer(seconds, self._end)

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self.is_over = True
        os.kill(os.getpid(), signal.SIGTERM)  # not SIGALRM, by which the queue's writers wait for their turn


@contextlib.contextmanager
def _without_passes() -> Generator[None, None, None]:
    """No pass of the updater begins in the body of a `with`; one does afterwards."""
    try:
        units.control("stop", "ivy-updater.path")
        units.control("stop", units.UPDATER)
        units.control("stop", "ivy-rollback.service")
        yield
    finally:
        _start_passes()


def _end_former_wish() -> None:
    """A newer wish of the admin's replaces the one on trial, which would otherwise be waited for, a day perhaps.

    The package manager and what operators ask for are left alone: those are waited for.
    """
    former = end_automation(_is_wish, _SECONDS_TO_END)
    if former is not None:
        print(f"Replacing what {former} has begun", flush=True)


def _is_wish(words: Sequence[str]) -> bool:
    """Whether a command is one of those here, as /usr/bin/ivy runs it: `python3 … -m ivy config apply -`."""
    command = words[words.index("ivy") + 1 :] if "ivy" in words else []
    return bool(command) and command[0] in _WISHES


def _start_passes() -> None:
    units.control("start", "ivy-updater.path")
    units.control("start", units.UPDATER, "--no-block")


class Progress(Logger):
    """A logger whose lines on the terminal are for reading: without date, origin and level, errors on stderr."""

    def _write_to_operator_here(self, level: str, subject: str, blocks: list[tuple[str, str]]) -> None:
        if level == "DEBUG":
            return
        is_error = level in ("ERROR", "EXCEPTION")
        below = "".join(f"\n{textwrap.indent(text.strip(), '    ')}" for _, text in blocks)
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone is no reason to stop halfway
            print(
                f"{'ivy: ' if is_error else ''}{subject}{below}", flush=True, file=sys.stderr if is_error else None
            )


class TalkingUpdater(Updater):
    """Tells the terminal what it does."""

    make_logger = Progress


def _say_what_goes_on(offer: Offer, limit: _Limit) -> int:
    trial = history.load().trial
    if trial is not None and trial.identifier == offer.identifier:
        said = "The trial goes on in the background; `ivy releases` tells what becomes of it."
    else:
        said = "Nothing was activated."
    if limit.is_over:
        print(f"ivy: not decided within {duration(limit.seconds)}. {said}", file=sys.stderr)
        return constants.EXIT_TRY_AGAIN
    print(f"\nInterrupted. {said}", file=sys.stderr)
    return INTERRUPTED


def require_admin(*, is_hold: bool = False) -> None:
    """End the command where nothing can be changed, or not by this user. What is held, only `ivy hold` changes."""
    if os.geteuid() != 0:
        refuse("not permitted, try sudo: only root may change what runs")
    if Releases().current() is None:
        refuse("there is no current release here; is ivy installed as a package?")
    if not is_hold and (why := hold.refusal()) is not None:
        refuse(why, 1)
