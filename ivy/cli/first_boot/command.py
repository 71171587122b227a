"""`ivy take-in`: what somebody wrote onto a card at a desk becomes the node's, file by file.

Each step may be done twice: what a file becomes is durable before the file is removed, so that a power cut leaves
either. A file that is wrong is left where it is, and said in a report beside it; it keeps nothing else from being
taken in.
"""

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from ivy import constants, files
from ivy.cli import update
from ivy.cli.first_boot import host_name, parts, texts, wishes
from ivy.cli.first_boot.report import Report
from ivy.cli.first_boot.texts import Mistake
from ivy.cli.main import CARD, refuse
from ivy.types.config import ForeignConfig, as_text
from ivy.utils.functions import with_automation_lock
from ivy.utils.host import commands, hold, units
from ivy.utils.updates import history
from ivy.utils.updates.releases import Releases, digest

_SECONDS = 30.0
_LAST_WORDS = 400
_NOTE = "card-noted"  # beside the releases: of which `ivy.json` is known what became of it, and that
_REGISTRATION = units.name_of("provision")
_AGAIN = "it is tried again in half a minute, then less and less often, and at each boot"


def run(arguments: argparse.Namespace) -> int:
    """Take in what there is.

    Returns: The exit status: 0 all of it; 78 something is wrong, see the report; 75 the config was not kept, or
        somebody holds the node: try again; 130 interrupted.
    """
    update.require_admin(is_hold=True)
    card = Path(arguments.directory)
    if not card.is_dir() and arguments.directory != CARD:  # not each machine has that one
        refuse(f"{card} is not a directory")
    report = Report(card)
    wished = take_files(card, report)
    if wished is not None and not arguments.files_only:
        return take_config(card, wished, report)
    if wished is not None:
        report.say(f"{wishes.FILE} is looked at when the services run.")
    if not report.is_empty and card.is_dir():
        report.write()
    return 0 if report.is_well else constants.EXIT_CONFIG_ERROR


def take_files(card: Path, report: Report, root: Path = Path("/")) -> wishes.Wishes | None:
    """Take in all but `ivy.json`; of that, the name of the host.

    Args:
        card: The directory with the files.
        report: Is told of each.
        root: Below which the node's files are.

    Returns: What `ivy.json` says; None where there is none, or it cannot be understood.
    """
    for pattern in (wishes.FILE, *parts.PATTERNS):
        _attempt(pattern, report, partial(texts.wipe_rest, card, pattern))
    for name, mistake in parts.misnamed(card):
        report.refuse(name, mistake)
    for path in parts.found(card):
        _attempt(path.name, report, partial(_take, path, report, root))
    found: list[wishes.Wishes] = []
    file = card / wishes.FILE
    if os.path.lexists(file):
        _attempt(file.name, report, lambda: found.append(wishes.parse(texts.text_of(texts.read(file)))))
    wished = found[0].host_name if found else None
    _attempt("hostname", report, partial(_name_host, wished, report, root))
    return found[0] if found else None


def take_config(card: Path, wished: wishes.Wishes, report: Report, root: Path = Path("/")) -> int:
    """Take in `ivy.json`: use its config as `ivy config apply` does, and leave word by what the node registers.

    Args: As for `take_files`.

    Returns: The exit status, as `run`. The report is written.
    """
    try:
        status = _use(card, wished, report, root)
    except (OSError, commands.CommandError) as error:
        report.refuse(wishes.FILE, _not_taken(error))
        status = constants.EXIT_TRY_AGAIN
    report.write()
    if status == 0 and wished.registration is not None:  # not before: what becomes of that is written there, too
        units.control("restart", _REGISTRATION, "--no-block")
    return status or (0 if report.is_well else constants.EXIT_CONFIG_ERROR)


def _use(card: Path, wished: wishes.Wishes, report: Report, root: Path) -> int:
    if (held := hold.refusal()) is not None:
        return _wait(held, report)
    releases = Releases()
    if _noted(releases) == _what(wished, "taken"):  # what was changed since must not be undone at each boot
        return _end(card, wished, report, releases)
    is_on_trial = releases.previous() is not None  # asked first: by the next line it may have been undone
    try:
        config = wishes.config(wished, releases, _own_name(releases, root))
    except Mistake as mistake:
        report.refuse(wishes.FILE, mistake)
        return constants.EXIT_CONFIG_ERROR
    if config is None and is_on_trial:  # as after a power cut: what is undone must still be here
        return _wait("its config is on trial", report)
    if config is not None and (status := _try(config, wished, releases, report)) != 0:
        return status
    if wished.registration is not None:
        wanted = {"identifier": host_name.name(root), **wished.registration}
        files.write_atomically(Path(constants.PROVISION_FILE), json.dumps(wanted), mode=0o600, follow=False)
    _end(card, wished, report, releases)
    if wished.registration is not None:
        report.say(f"This node registers at {wished.registration['host']} as {wanted['identifier']}.")
    return 0


def _end(card: Path, wished: wishes.Wishes, report: Report, releases: Releases) -> int:
    is_gone = _remove(card / wishes.FILE, report)
    _note(releases, None if is_gone else _what(wished, "taken"))
    report.take(wishes.FILE, "the config of this node" if wished.sections else "what this node is to be")
    report.say("")
    return 0


def report_registration(arguments: argparse.Namespace) -> int:
    """Say what became of a try to register, at the end of its service, where a card has a report."""
    report = Report(Path(arguments.directory))
    ended = os.environ.get("EXIT_STATUS", "")
    if not report.is_there() or ended == str(update.INTERRUPTED):
        return 0
    report.keep_mistakes(but="provision")
    if not os.path.lexists(constants.PROVISION_FILE):
        report.take("provision", "this node is registered, and delivers")
    elif ended == str(constants.EXIT_TRY_AGAIN):
        report.say(f"This node is not registered yet: {_last_words()}\n{_AGAIN[0].upper()}{_AGAIN[1:]}.")
    else:
        remedy = f"write {wishes.FILE} again, with what is right; what it says now is tried again at the next boot"
        report.refuse("provision", Mistake(_last_words(), remedy))
    report.write()
    return 0


def _last_words() -> str:
    """The end of what the service of this process has printed."""
    invocation = os.environ.get("INVOCATION_ID", "")
    try:
        commands.run(["journalctl", "--sync"], timeout=_SECONDS)
        wanted = ["--output=cat", "--quiet", "--lines=3", f"_SYSTEMD_INVOCATION_ID={invocation}"]
        words = commands.run(["journalctl", *wanted], timeout=_SECONDS)
    except commands.CommandError as error:
        words = str(error)
    return words.strip()[-_LAST_WORDS:] or "nobody knows why"


def _attempt(name: str, report: Report, work: Callable[[], object]) -> None:
    try:
        work()
    except Mistake as mistake:
        report.refuse(name, mistake)
    except (OSError, commands.CommandError) as error:
        report.refuse(name, _not_taken(error))


def _not_taken(error: Exception) -> Mistake:
    return Mistake(f"could not be taken in: {error}", "nothing, perhaps: it is tried again")


def _take(path: Path, report: Report, root: Path) -> None:
    taken = parts.read(path, root)
    parts.put(taken)
    _remove(path, report)
    report.take(path.name, taken.use)


def _remove(path: Path, report: Report) -> bool:
    try:
        texts.wipe(path)
    except OSError as error:
        again = "" if path.name == wishes.FILE else ", and is taken in again at each boot"
        what = f"was taken in, and cannot be removed here: {error}"
        report.refuse(path.name, Mistake(what, f"remove it: it may hold a secret{again}"))
        return False
    return True


def _name_host(wanted: str | None, report: Report, root: Path) -> None:
    if (new := host_name.choose(wanted, root)) is not None:
        report.take("hostname", new)


def _own_name(releases: Releases, root: Path) -> str | None:
    """What a node is to be called whose config only says what it was called before it had a name."""
    known = releases.active_config().system_identifier
    return host_name.name(root) or None if known in (None, *host_name.BY_DEFAULT) else None


def _wait(why: str, report: Report) -> int:
    report.say(f"{wishes.FILE} waits: {why}.")
    return constants.EXIT_TRY_AGAIN


def _try(config: ForeignConfig, wished: wishes.Wishes, releases: Releases, report: Report) -> int:
    """A file that was tried before in vain must not end each time what an operator has begun meanwhile."""
    undone = _what(wished, "undone")
    if _noted(releases) == undone and (others := _others(releases)) is not None:
        return _wait(others, report)
    status = _apply(config, report)
    if status in (0, constants.EXIT_TRY_AGAIN):
        _note(releases, undone if status else None)
    return status


def _what(wished: wishes.Wishes, fate: str) -> str:
    """What is noted of a file."""
    return f"{fate} {digest(json.dumps([wished.sections, wished.registration], sort_keys=True))}"


def _noted(releases: Releases) -> str | None:
    with contextlib.suppress(OSError):
        return files.read(str(releases.root / _NOTE)).decode(errors="replace")
    return None


def _note(releases: Releases, what: str | None) -> None:
    path = releases.root / _NOTE
    with contextlib.suppress(OSError):  # then it is taken in as if for the first time
        if what is None:
            files.remove(str(path))
        else:
            files.write_atomically(path, what, mode=0o600)


def _others(releases: Releases) -> str | None:
    """Who is changing this node; None if nobody is."""
    if releases.previous() is not None:
        return "another change is on trial"
    try:
        with with_automation_lock():
            return None
    except TimeoutError as error:
        return str(error)


def _apply(config: ForeignConfig, report: Report) -> int:
    with _overheard(report):
        try:
            status = update.apply_text(as_text(config))
        except SystemExit as ended:  # somebody begins to hold the node
            status = ended.code if isinstance(ended.code, int) else 1
    if status == 0 or status == update.INTERRUPTED:
        return status
    decisions = history.load().decisions
    why = (decisions[-1].reason if decisions else None) or "see ivy releases"
    report.say(f"{wishes.FILE} was tried, and what ran before runs again: {why}\nIt is left here; {_AGAIN}.")
    return constants.EXIT_TRY_AGAIN


@contextlib.contextmanager
def _overheard(report: Report) -> Generator[None, None, None]:
    """What is printed stands in the report, too, across the body of a `with`: it may wait for a link for long."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Overheard(before[0], report), _Overheard(before[1], report)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Overheard(io.TextIOBase):
    def __init__(self, stream: TextIO, report: Report) -> None:
        self.stream, self._report = stream, report

    def write(self, text: str) -> int:
        if text.strip():
            self._report.say(f"{wishes.FILE} is being tried: {text.strip()}")
            self._report.write()
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
