"""Takes config offers from a backend into the state, where the updater finds them. Decides nothing about them."""

import pydantic

from ivy.types.config import Config, ForeignConfig, describe
from ivy.types.messages import ConfigMessageBody
from ivy.types.state import State
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface

LARGEST_PAYLOAD = 65_536
"""Bytes that an offer may have on its way here."""

_MOST_PENDING = 16
_LARGEST_OFFER = 1_000_000  # bytes; with as many as may be pending, the state stays quick to load


def store(offer: ForeignConfig, config: Config, logger: Logger) -> None:
    """Append an offer to `State.pending_configs` and answer "received", unless its revision is not newer.

    Args:
        offer: A config that its sender wants this node to use.
        config: The current config, whose revision the offer must exceed.
        logger: Where to log.

    Raises:
        ValueError: The state would not carry it.
        OSError: The state cannot be written (or is locked: `TimeoutError`); nothing was stored.
        sqlite3.Error: It was stored, but the answer could not be queued.
    """
    _check_storable(offer)
    revision = offer.general.config_revision
    with StateInterface.update() as state:
        known = [config.general.config_revision, *(c.general.config_revision for c in state.pending_configs)]
        if revision <= max(known):
            # Brokers send retained configs again at every connect.
            return logger.debug(f"Ignored a config offer of revision {revision}: {max(known)} is known")
        # Of too many, the oldest go: what the operator wants now is the newest.
        state.pending_configs = [*state.pending_configs[1 - _MOST_PENDING :], offer]
    logger.info(f"Received a config offer of revision {revision} for version {offer.general.software_version}")
    messaging_agent = MessagingAgent()
    messaging_agent.add_message(ConfigMessageBody(status="received", config=offer))
    messaging_agent.teardown()


def _check_storable(offer: ForeignConfig) -> None:
    """An offer nested too deep to be read again would make the whole state unreadable."""
    text = State(pending_configs=[offer]).model_dump_json()
    if len(text) > _LARGEST_OFFER:
        raise ValueError(f"it has {len(text)} bytes, more than {_LARGEST_OFFER}")
    try:
        [stored] = State.model_validate_json(text).pending_configs
    except pydantic.ValidationError as error:
        raise ValueError(describe(error)) from None
    if stored != offer:
        raise ValueError("it holds a number that is infinite or none")
