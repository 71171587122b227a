"""`ivy config apply`, `config edit`, `update`, `rollback`: offers of the admin's, on the road of all."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pydantic

from ivy import update_pass
from ivy.cli.main import refuse
from ivy.types.config import ConfigError, ForeignConfig
from ivy.types.updates import Offer, Source
from ivy.utils.host import units
from ivy.utils.logger import Logger
from ivy.utils.updater import Updater
from ivy.utils.updates import history, sandbox
from ivy.utils.updates.releases import Releases
from ivy.version import Version

_INTERRUPTED = 130
_UPDATER = "ivy-updater"


def apply(arguments: argparse.Namespace) -> int:
    """Use the config of a file."""
    try:
        text = sys.stdin.read() if arguments.file == "-" else Path(arguments.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{arguments.file} cannot be read: {error}")
    require_admin()
    return apply_text(text)


def edit(_arguments: argparse.Namespace) -> int:
    """Let the admin change the config, and use it."""
    require_admin()
    before = Releases().active_text()
    descriptor, name = tempfile.mkstemp(prefix="ivy-config-", suffix=".json")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(before)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "sensible-editor"
    if os.spawnlp(os.P_WAIT, editor, editor, name) != 0:
        refuse(f"{editor} failed; the environment variable EDITOR names another editor. Nothing was changed")
    after = Path(name).read_text(encoding="utf-8", errors="replace")
    if after == before:
        print("Nothing was changed.")
        os.unlink(name)
        return 0
    status = apply_text(after)
    if status == 0:
        os.unlink(name)
    else:
        print(f"Your text is kept in {name}; correct it, then run: ivy config apply {name}", file=sys.stderr)
    return status


def update(arguments: argparse.Namespace) -> int:
    """Use another version, with the config as it is."""
    require_admin()
    try:
        version = Version(arguments.version.removeprefix("v"))
    except pydantic.ValidationError:
        refuse(f'a version must look like "1.2.3" or "1.2.3-rc.1", not {arguments.version!r}')
    try:
        content = ForeignConfig.load_from_string(Releases().active_text()).model_dump(mode="json")
    except ConfigError as error:
        refuse(f"the active config cannot be read: {error}")
    content["general"]["software_version"] = version.as_identifier()
    return _perform(ForeignConfig.model_validate(content))


def rollback(_arguments: argparse.Namespace) -> int:
    """Use what ran before the last change."""
    require_admin()
    last_good = history.load().last_good
    if last_good is None:
        refuse("there is nothing to go back to: no change was ever accepted")
    return _perform(last_good, "rollback")


def apply_text(text: str) -> int:
    """Take a config to its decision. Returns the exit status: 0 accepted, 1 rejected, 130 interrupted."""
    try:
        config = ForeignConfig.load_from_string(text)
    except ConfigError as error:
        print(f"ivy: rejected: {error}", file=sys.stderr)
        return 1
    return _perform(config)


def _perform(config: ForeignConfig, source: Source = "admin") -> int:
    """Take an offer to its decision. A pass of the updater that is under way has to wait until then."""
    offer = Offer(identifier=f"{source}-{time.time_ns()}", config=config, source=source)
    signal.signal(signal.SIGHUP, signal.default_int_handler)  # a terminal that is gone, e.g. with its network
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    units.control("stop", f"{_UPDATER}.path")
    units.control("stop", f"{_UPDATER}.service")
    units.control("stop", "ivy-rollback.service")
    try:
        with update_pass.automation_lock():
            sandbox.stop_all()  # what the pass had begun would be in the way
            # From here on a pass waits for the lock: whatever ends this command, that one goes on.
            _start_passes()
            _TalkingUpdater(update_pass.running_config()).trials.resume("the admin wants something else")
            failure = _TalkingUpdater(update_pass.running_config()).perform(offer)
            update_pass.announce()
    except KeyboardInterrupt:
        return _say_what_goes_on(offer)
    finally:
        _start_passes()
    return 1 if failure else 0


def _start_passes() -> None:
    units.control("start", f"{_UPDATER}.path")
    units.control("start", f"{_UPDATER}.service", "--no-block")


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


class _TalkingUpdater(Updater):
    make_logger = Progress


def _say_what_goes_on(offer: Offer) -> int:
    trial = history.load().trial
    if trial is not None and trial.identifier == offer.identifier:
        said = "The trial goes on in the background; `ivy releases` tells what becomes of it."
    else:
        said = "Nothing was activated."
    print(f"\nInterrupted. {said}", file=sys.stderr)
    return _INTERRUPTED


def require_admin() -> None:
    """End the command where nothing can be changed, or not by this user."""
    if os.geteuid() != 0:
        refuse("only root may change what runs; try again with sudo")
    if Releases().current() is None:
        refuse("there is no current release here; is ivy installed as a package?")
