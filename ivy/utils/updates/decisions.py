"""The one place that says what became of an offer: to the journal, to the operator, and to whoever asks later."""

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import pydantic

from ivy import constants, files
from ivy.types import secrets_file
from ivy.types.config import ForeignConfig, describe
from ivy.types.messages import ConfigMessageBody, DataMessageBody, LogMessageBody
from ivy.types.state import BackendState
from ivy.types.updates import MOST_SUPERSEDED, History, Offer
from ivy.utils.host import rights
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import BACKEND_STATE, BACKEND_STATE_FILE
from ivy.utils.updates import history, last_decision, package_states
from ivy.utils.updates.releases import BUNDLED

_LONGEST_REASON = 4000
_FLAG_OF_1_0 = os.path.join(constants.IVY_RUN_DIR, os.path.basename(constants.PENDING_CONFIG_FLAG))
"""What the units of a package of 1.0 look for."""

MOST_IN_BURST = 40
"""Decisions about the backend's offers within `SECONDS_OF_BURST` that need no pause between them."""

SECONDS_OF_BURST = 2400.0

SECONDS_BETWEEN_DECISIONS = 60.0
"""After as many."""


def undecided(active: int = -1) -> list[Offer]:
    """The backend's offers that are to be decided about, the newest last: that is what the operator wants now.

    The newest is the one that came last, and not the one with the highest number, which may be anybody's slip. Only
    one whose number would be rejected comes before all others. Of those that were replaced before, only number and
    version are known.

    An update package comes alone, when there is no config to decide about: it means its version with the config
    that is active then. In the other order a config that still names the version of before would take the package
    back. Those of both kinds are decided about one after the other.

    Args:
        active: The revision of the active config.

    Raises:
        OSError: State or history can be neither read nor moved aside; as `NoAnswer`, the state.
    """
    past = history.load()
    text = rights.ask(lambda: _waiting().model_dump_json(), constants.BACKEND_DIR)
    try:
        waiting = BackendState.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise rights.NoAnswer(f"the offers that wait cannot be understood: {describe(error)}") from None
    least = past.revision_to_exceed(active)
    pending = [Offer.of_backend(config) for config in waiting.pending_configs if not past.is_decided(config)]
    if not pending:
        packages = [Offer.of_package(package, active) for package in waiting.packages]
        return [offer for offer in packages if past.find(offer.identifier) is None][:1]
    replaced = [old.as_offer() for old in waiting.superseded[-MOST_SUPERSEDED:]]
    known = {offer.identifier for offer in (*pending, *past.decisions)}
    return [
        *(offer for offer in replaced if offer.identifier not in known),
        *sorted(pending, key=lambda offer: offer.revision > least),
    ]


def _waiting() -> BackendState:
    return BACKEND_STATE.load() if os.path.exists(BACKEND_STATE_FILE) else BackendState()


def _are_some_waiting() -> bool:
    waiting = _waiting()
    return bool(waiting.pending_configs or waiting.packages)


def seconds_to_pause() -> float:
    """How long to wait before the next of the backend's offers is decided about: whoever sends many may not stop.

    A pause is made only after many decisions: what a person offers in an hour is decided about at once.

    Raises:
        OSError: The history can be neither read nor moved aside.
    """
    now = time.time()
    made = [offer.time for offer in history.load().decisions if offer.source == "backend"]
    lately = [at for at in made if now - SECONDS_OF_BURST < at <= now]  # a clock that was set back holds up nobody
    return 0.0 if len(lately) < MOST_IN_BURST else max(0.0, lately[-1] + SECONDS_BETWEEN_DECISIONS - now)


def supersede(offers: Sequence[Offer], newest: Offer) -> None:
    """Reject offers for a newer one, by one write: there may be many.

    Raises:
        OSError: It could not be written.
    """
    if not offers:
        return
    with history.update() as past:
        for offer in offers:
            _add(past, offer, f"superseded by revision {newest.revision}")
    last_decision.note(past)


def record(
    offer: Offer,
    failure: str | None,
    before: ForeignConfig | None = None,
    *,
    remark: str = "",
    is_old: bool = False,
) -> None:
    """Decide about an offer, for ever. Doing it again changes nothing.

    Args:
        failure: Why it is rejected; None accepts it.
        before: The config that it replaced, for the admin to go back to.
        remark: What is not well although it was accepted.
        is_old: Whether it is rejected for its revision, see `History.revision_to_exceed`.

    Raises:
        OSError: It could not be written.
    """
    with history.update() as past:
        if past.find(offer.identifier) is None:
            _count(past, offer, failure is None, is_old)
            _add(past, offer, failure, remark)
            if failure is None and before is not None:
                is_undone = offer.source == "rollback"
                past.keep_connection(before, offer.config, time.time(), is_undone=is_undone)
            past.last_good = before if failure is None and before else past.last_good
    last_decision.note(past)


def _add(past: History, offer: Offer, failure: str | None, remark: str = "") -> None:
    if past.find(offer.identifier) is None:
        decision = {"accepted": failure is None, "reason": (failure or remark)[:_LONGEST_REASON]}
        past.add(offer.model_copy(update={**decision, "time": time.time()}))


def _count(past: History, offer: Offer, is_accepted: bool, is_old: bool) -> None:
    """Let a revision count. Only accepted ones do: one large number must not make the node deaf."""
    if offer.package is not None or offer.is_installed:  # it has none of its own
        return
    if is_accepted and offer.source == "backend":
        past.accepted_revision, past.old_revision = offer.revision, None
    elif is_accepted and offer.source == "admin":
        # A platform that begins to count again is heard at once, if the admin says so.
        past.accepted_revision, past.old_revision = min(past.accepted_revision, offer.revision), None
    elif is_old:
        past.old_revision = offer.revision


def report(logger: Logger) -> bool:
    """Queue and log a message for each decision that the operator does not know, once. Forget offers decided about.

    Args:
        logger: What to tell of them to, too.

    Returns: Whether that is done. Queue and state are the services': where they cannot be used now, whatever was
        decided holds, and the next call does the rest.

    Raises:
        OSError: The history can be neither read nor written.
    """
    new = [offer for offer in history.load().decisions if not offer.reported]
    told = [offer.identifier for offer in new if _try(lambda offer=offer: _queue(offer), logger)]  # type: ignore[misc]
    with history.update() as past:
        past.decisions = [_as_reported(offer) if offer.identifier in told else offer for offer in past.decisions]
    with contextlib.suppress(OSError):
        rights.ask(partial(files.remove, _FLAG_OF_1_0), constants.IVY_RUN_DIR)
    are_forgotten = _try(lambda: _forget_offers(past), logger, constants.BACKEND_DIR)
    with contextlib.suppress(OSError):
        # Of an offer that was stored meanwhile the flag may be gone: no lock is held across the two directories.
        has_units_of_1_0 = are_forgotten and not secrets_file.is_known_to(BUNDLED)
        if has_units_of_1_0 and rights.ask(_are_some_waiting, constants.BACKEND_DIR):
            rights.ask(lambda: os.close(files.open_shared(_FLAG_OF_1_0)), constants.IVY_RUN_DIR)
    for offer in new:
        _log(offer, logger)
    return are_forgotten and len(told) == len(new)


def _try(work: Callable[[], None], logger: Logger, directory: str = constants.IVY_DATA_DIR) -> bool:
    try:
        rights.ask(work, directory)
    except (OSError, sqlite3.Error) as error:
        logger.without_messages().warning(f"Not all about the decisions could be told now: {error}")
        return False
    return True


def _queue(offer: Offer) -> None:
    status: Literal["accepted", "rejected"] = "accepted" if offer.accepted else "rejected"
    bodies: list[ConfigMessageBody | DataMessageBody | LogMessageBody] = []
    if offer.package is None and offer.is_installed and not offer.accepted:
        pass  # its config is the one that runs on
    elif offer.package is None:
        bodies.append(ConfigMessageBody(status=status, config=offer.config))
    elif offer.accepted:
        bodies.append(package_states.updated(offer.package.kind, offer.version))
    else:
        bodies.append(package_states.failed(offer.package.kind, offer.reason))
    if offer.reason or not offer.accepted:
        # Some platforms have no place for a reason but the logs.
        first, _, rest = offer.reason.partition("\n")
        what = f"{offer.what[0].upper()}{offer.what[1:]} was {status}"
        level: Literal["WARNING", "ERROR"] = "WARNING" if offer.accepted else "ERROR"
        bodies.append(LogMessageBody(level=level, subject=f"updater - {level} - {what}: {first}", body=rest))
    messaging_agent = MessagingAgent()
    try:
        messaging_agent.add_once(f"decision {offer.identifier}", bodies)
    finally:
        messaging_agent.teardown()


def _log(offer: Offer, logger: Logger) -> None:
    if offer.accepted:
        logger.info(f"Accepted {offer.what}")
        if offer.reason:
            logger.without_messages().warning(offer.reason)
    else:
        logger.without_messages().error(f"Rejected {offer.what}", details=offer.reason)


def _as_reported(offer: Offer) -> Offer:
    if offer.reported:
        return offer
    return offer.without_content().model_copy(update={"reported": True})


def _forget_offers(past: History) -> None:
    """The flag goes with the last one, while they are locked: whoever stores another raises it later."""
    with BACKEND_STATE.update() as waiting:
        pending = [offer for offer in waiting.pending_configs if not past.is_decided(offer)]
        if len(pending) != len(waiting.pending_configs):
            waiting.pending_configs = pending
        unanswered = [old for old in waiting.superseded if past.find(old.as_offer().identifier) is None]
        if len(unanswered) != len(waiting.superseded):
            waiting.superseded = unanswered
        packages = [package for package in waiting.packages if past.find(package.identifier) is None]
        if len(packages) != len(waiting.packages):
            waiting.packages = packages
        if not pending and not packages:
            _lower_flags()


def _lower_flags() -> None:
    try:
        files.remove(constants.PENDING_CONFIG_FLAG)
    except OSError as error:
        if error.errno != errno.EROFS:  # as in the updater's unit of 1.0, which does not look there
            raise
