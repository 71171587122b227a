"""The one place that says what became of an offer: to the journal, to the operator, and to whoever asks later."""

import time
from typing import Literal

from ivy import constants, files
from ivy.types.config import ForeignConfig
from ivy.types.messages import ConfigMessageBody, LogMessageBody
from ivy.types.updates import History, Offer
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface
from ivy.utils.updates import history

_LONGEST_REASON = 4000


def undecided() -> list[Offer]:
    """The backend's offers that are to be decided about, the newest last: that is what the operator wants now.

    Raises:
        OSError: State or history can be neither read nor moved aside.
    """
    past = history.load()
    pending = [config for config in StateInterface.load().pending_configs if not past.is_decided(config)]
    return sorted(map(Offer.of_backend, pending), key=lambda offer: offer.revision)


def record(offer: Offer, failure: str | None, before: ForeignConfig | None = None) -> None:
    """Decide about an offer, for ever. Doing it again changes nothing.

    Args:
        failure: Why it is rejected; None accepts it.
        before: The config that it replaced, for the admin to go back to.

    Raises:
        OSError: It could not be written.
    """
    with history.update() as past:
        if offer.source == "backend":
            past.decided_revision = max(past.decided_revision, offer.revision)
        elif offer.source == "admin" and failure is None:
            # A platform that begins to count again would not be heard any more, if the admin could not.
            past.decided_revision = min(past.decided_revision, offer.revision)
        if past.find(offer.identifier) is None:
            decision = {"accepted": failure is None, "reason": (failure or "")[:_LONGEST_REASON]}
            past.add(offer.model_copy(update={**decision, "time": time.time()}))
            past.last_good = before if failure is None and before else past.last_good


def report(logger: Logger) -> None:
    """Queue and log a message for each decision that the operator does not know, once. Forget offers decided about.

    Raises:
        OSError, sqlite3.Error: Not all could be queued; the next call does the rest.
    """
    new = [offer for offer in history.load().decisions if not offer.reported]
    for offer in new:
        _queue(offer)
    with history.update() as past:
        past.decisions = [_as_reported(offer) for offer in past.decisions]
    _forget_offers(past)
    for offer in new:
        _log(offer, logger)


def _queue(offer: Offer) -> None:
    status: Literal["accepted", "rejected"] = "accepted" if offer.accepted else "rejected"
    bodies: list[ConfigMessageBody | LogMessageBody] = [ConfigMessageBody(status=status, config=offer.config)]
    if not offer.accepted:
        # Some platforms have no place for a reason but the logs.
        first, _, rest = offer.reason.partition("\n")
        what = f"Config revision {offer.revision} for version {offer.version}"
        subject = f"updater - ERROR - {what} was rejected: {first}"
        bodies.append(LogMessageBody(level="ERROR", subject=subject, body=rest))
    messaging_agent = MessagingAgent()
    try:
        messaging_agent.add_once(f"decision {offer.identifier}", bodies)
    finally:
        messaging_agent.teardown()


def _log(offer: Offer, logger: Logger) -> None:
    what = f"config revision {offer.revision} for version {offer.version}"
    if offer.accepted:
        logger.info(f"Accepted {what}")
    else:
        logger.without_messages().error(f"Rejected {what}", details=offer.reason)


def _as_reported(offer: Offer) -> Offer:
    if offer.reported:
        return offer
    general = ForeignConfig(general=offer.config.general)
    return offer.model_copy(update={"reported": True, "config": general, "digest": "", "failure": None})


def _forget_offers(past: History) -> None:
    """The flag goes with the last one, while the state is locked: whoever stores another raises it later."""
    with StateInterface.update() as state:
        pending = [offer for offer in state.pending_configs if not past.is_decided(offer)]
        if len(pending) != len(state.pending_configs):
            state.pending_configs = pending
        if not pending:
            files.remove(constants.PENDING_CONFIG_FLAG)
