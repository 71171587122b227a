"""Takes config offers from a backend into the state, where the updater finds them. Judges their form only."""

from pathlib import Path

import pydantic

from ivy import constants, files
from ivy.backend.dialect import OfferError
from ivy.types.config import Config, ForeignConfig, describe
from ivy.types.messages import ConfigMessageBody
from ivy.types.state import State
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface
from ivy.utils.updates import history

LARGEST_PAYLOAD = 65_536
"""Bytes that an offer may have on its way here."""

_MOST_PENDING = 16
_LARGEST_OFFER = 2 * LARGEST_PAYLOAD  # in the state, where numbers may be spelt longer


def store(offer: ForeignConfig, config: Config, logger: Logger, queue: MessagingAgent) -> None:
    """Append an offer to `State.pending_configs` and answer "received", unless its revision is not newer.

    Args:
        config: The current config, whose revision the offer must exceed.
        queue: For the answer. It must stay open: while the disk is full, it holds the answer in memory.

    Raises:
        OfferError: The state would not carry it.
        OSError: The state cannot be written (or is locked: `TimeoutError`); nothing was stored.
        sqlite3.Error: It was stored, but the answer could not be queued.
    """
    _check_storable(offer)
    revision = offer.general.config_revision
    with StateInterface.update() as state:
        pending = [other.general.config_revision for other in state.pending_configs]
        past = history.peek()
        known = [config.general.config_revision, past.decided_revision, *pending]
        if revision <= max(known) or past.is_decided(offer):
            # Brokers send retained configs again at every connect.
            logger.debug(f"Ignored a config offer of revision {revision}: it is known, or {max(known)} is")
            return _raise_flag() if pending else None  # it may have been lost with /run
        # Of too many, the oldest go: what the operator wants now is the newest.
        state.pending_configs = [*state.pending_configs[1 - _MOST_PENDING :], offer]
    _raise_flag()
    logger.info(f"Received a config offer of revision {revision} for version {offer.general.software_version}")
    queue.add_message(ConfigMessageBody(status="received", config=offer))


def reject(revision: int, config: Config, logger: Logger, queue: MessagingAgent) -> None:
    """Answer "rejected" to an offer of which nothing but the revision is usable, unless that is not newer.

    Raises:
        sqlite3.Error: The answer could not be queued.
    """
    known = max(config.general.config_revision, history.peek().decided_revision)
    if revision <= known:
        return logger.debug(f"Did not answer an invalid config offer of revision {revision}: {known} is known")
    version = constants.VERSION.as_identifier()  # there has to be one, and this is who says no
    general = {"config_revision": revision, "software_version": version}
    queue.add_message(
        ConfigMessageBody(status="rejected", config=ForeignConfig.model_validate({"general": general}))
    )


def _raise_flag() -> None:
    files.make_directory(constants.IVY_RUN_DIR)
    Path(constants.PENDING_CONFIG_FLAG).touch()


def _check_storable(offer: ForeignConfig) -> None:
    """An offer nested too deep to be read again would make the whole state unreadable."""
    revision = offer.general.config_revision
    text = State(pending_configs=[offer]).model_dump_json()
    if len(text) > _LARGEST_OFFER:
        raise OfferError(f"it has {len(text)} bytes, more than {_LARGEST_OFFER}", revision)
    try:
        [stored] = State.model_validate_json(text).pending_configs
    except pydantic.ValidationError as error:
        raise OfferError(describe(error), revision) from None
    if stored != offer:
        raise OfferError("it holds a number that is infinite or none", revision)
