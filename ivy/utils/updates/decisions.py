"""The one place that says what became of an offer: to the journal, to the operator, and to whoever asks later."""

import time
from typing import Literal

from ivy import constants, files
from ivy.types.config import ForeignConfig
from ivy.types.messages import ConfigMessageBody, LogMessageBody
from ivy.types.updates import Decision, History
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface
from ivy.utils.updates import history
from ivy.utils.updates.policy import Offer

_LONGEST_REASON = 4000


def record(offer: Offer, failure: str | None) -> None:
    """Decide about an offer, for ever. Doing it again changes nothing.

    Args:
        offer: The offer.
        failure: Why it is rejected; None accepts it.

    Raises:
        OSError: It could not be written.
    """
    with history.update() as past:
        if offer.source == "backend":
            past.decided_revision = max(past.decided_revision, offer.revision)
        elif offer.source == "admin" and failure is None:
            # A platform that begins to count anew would not be heard any more, if the admin could not.
            past.decided_revision = min(past.decided_revision, offer.revision)
        if past.find(offer.identifier) is None:
            reason = (failure or "")[:_LONGEST_REASON]
            past.add(
                Decision(
                    identifier=offer.identifier,
                    offer=offer.config,
                    accepted=failure is None,
                    reason=reason,
                    time=time.time(),
                )
            )


def report() -> None:
    """Queue a message for each decision that the operator does not know, once. Forget offers decided about.

    Raises:
        OSError, sqlite3.Error: Not all could be queued; the next call does the rest.
    """
    for decision in history.load().decisions:
        if not decision.reported:
            _queue(decision)
    with history.update() as past:
        past.decisions = [_as_reported(decision) for decision in past.decisions]
    _forget_offers(past)


def _queue(decision: Decision) -> None:
    revision = decision.offer.general.config_revision
    version = decision.offer.general.software_version
    status: Literal["accepted", "rejected"] = "accepted" if decision.accepted else "rejected"
    bodies: list[ConfigMessageBody | LogMessageBody] = [ConfigMessageBody(status=status, config=decision.offer)]
    if not decision.accepted:
        # Some platforms have no place for a reason but the logs.
        first, _, rest = decision.reason.partition("\n")
        subject = f"updater - ERROR - Config revision {revision} for version {version} was rejected: {first}"
        bodies.append(LogMessageBody(level="ERROR", subject=subject, body=rest))
    messaging_agent = MessagingAgent()
    try:
        messaging_agent.add_once(f"decision {decision.identifier}", bodies)
    finally:
        messaging_agent.teardown()


def _as_reported(decision: Decision) -> Decision:
    if decision.reported:
        return decision
    general = ForeignConfig(general=decision.offer.general)
    return decision.model_copy(update={"reported": True, "offer": general})


def _forget_offers(past: History) -> None:
    """The flag goes with the last one, while the state is locked: whoever stores another raises it later."""
    with StateInterface.update() as state:
        pending = [offer for offer in state.pending_configs if not past.is_decided(offer)]
        if len(pending) != len(state.pending_configs):
            state.pending_configs = pending
        if not pending:
            files.remove(constants.PENDING_CONFIG_FLAG)
