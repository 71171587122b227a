"""Takes config offers from a backend into the state, where the updater finds them. Judges their form only."""

import json
from collections.abc import Sequence

import pydantic

from ivy import constants
from ivy.backend import flags
from ivy.backend.dialect import OfferError
from ivy.types import secrets
from ivy.types.config import Config, ConfigError, ForeignConfig, as_text, describe
from ivy.types.messages import ConfigMessageBody
from ivy.types.state import BackendState
from ivy.types.updates import MOST_SUPERSEDED, Superseded
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import BACKEND_STATE
from ivy.utils.updates import history

LARGEST_PAYLOAD = 65_536
"""Bytes that an offer may have on its way here."""

_MOST_REFUSED = 16
_LARGEST_OFFER = 2 * LARGEST_PAYLOAD  # in the state, where numbers may be spelt longer


def store(
    offer: ForeignConfig,
    config: Config,
    logger: Logger,
    queue: MessagingAgent,
    superseded: Sequence[Superseded] = (),
) -> bool:
    """Let an offer be the one that waits in `State.pending_configs`, and answer "received".

    Not if just this offer is known, or does not replace the one that waits. What it replaces is answered by the
    updater, which may be deciding about it.

    Args:
        config: The current config.
        queue: For the answer. It must stay open: while the disk is full, it holds the answer in memory.
        superseded: What it has replaced before it came here.

    Returns: Whether it was stored. If not, just this offer is known.

    Raises:
        OfferError: The state would not carry it, or its revision is known while a better one waits.
        OSError: The state cannot be written (or is locked: `TimeoutError`); nothing was stored.
        sqlite3.Error: It was stored, but the answer could not be queued.
    """
    check_storable(offer)
    revision = offer.general.config_revision
    with BACKEND_STATE.update() as waiting:
        pending = waiting.pending_configs
        replaced = [other for other in pending if not history.peek().is_decided(other)]
        is_known = _is_known(offer, config, waiting)
        better = [other for other in replaced if not replaces(offer, other, config)]
        if pending and (is_known or better):
            _raise_flag()  # it may have been lost with /run
        if is_known:
            # Brokers send retained configs again at every connect.
            logger.debug(f"Ignored a config offer of revision {revision}: it is known")
            return False
        if better:
            raise behind(offer, better[-1], config)
        waiting.pending_configs = [offer]
        gone = (*waiting.superseded, *map(Superseded.of, replaced), *superseded)
        waiting.superseded = list(gone)[-MOST_SUPERSEDED:]
    _raise_flag()
    logger.info(f"Received a config offer of revision {revision} for version {offer.general.software_version}")
    queue.add_message(ConfigMessageBody(status="received", config=offer))
    return True


def is_known(offer: ForeignConfig, config: Config) -> bool:
    """Whether just this offer waits, is in use, was replaced or was decided about: then it was only sent again."""
    return _is_known(offer, config, BACKEND_STATE.peek())


def _is_known(offer: ForeignConfig, config: Config, waiting: BackendState) -> bool:
    return (
        offer in waiting.pending_configs
        or Superseded.of(offer) in waiting.superseded
        or history.peek().is_decided(offer)
        or _is_in_use(offer, config)
    )


def replaces(offer: ForeignConfig, other: ForeignConfig, config: Config) -> bool:
    """Whether an offer takes the place of another one, which came before it.

    What came last is what the operator wants now, whatever its number: else an enormous one, of which nothing may
    come, would keep all others out. But what will be rejected for its number keeps no other one out.
    """
    least = history.peek().revision_to_exceed(config.general.config_revision)
    return offer.general.config_revision > least or other.general.config_revision <= least


def behind(offer: ForeignConfig, other: ForeignConfig, config: Config) -> OfferError:
    """What to answer to an offer that does not replace another one, see `replaces`."""
    revision, known = (
        offer.general.config_revision,
        history.peek().revision_to_exceed(config.general.config_revision),
    )
    text = (
        f"general.config_revision: {revision} is not higher than {known}, which is known, and "
        f"{other.general.config_revision} waits; use {max(known, other.general.config_revision) + 1}"
    )
    return OfferError(text, revision, as_text(offer).encode())


def reject(revision: int, config: Config, logger: Logger, queue: MessagingAgent) -> None:
    """Answer "rejected" to an offer of which nothing but the revision is usable, unless that was accepted once.

    Raises:
        sqlite3.Error: The answer could not be queued.
    """
    known = history.peek().revision_to_exceed(config.general.config_revision)
    if revision <= known:
        return logger.debug(f"Did not answer an invalid config offer of revision {revision}: {known} is known")
    version = constants.VERSION.as_identifier()  # there has to be one, and this is who says no
    general = {"config_revision": revision, "software_version": version}
    queue.add_message(
        ConfigMessageBody(status="rejected", config=ForeignConfig.model_validate({"general": general}))
    )


def was_refused(digest: str) -> bool:
    """Whether an offer that cannot be read was answered, by this run or an earlier one."""
    return digest in BACKEND_STATE.peek().refused


def note_refused(digest: str) -> None:
    """Remember that: a platform sends a retained one again at each connect.

    Raises:
        OSError: The state cannot be written.
    """
    with BACKEND_STATE.update() as state:
        state.refused = [*state.refused, digest][-_MOST_REFUSED:]


def _is_in_use(offer: ForeignConfig, config: Config) -> bool:
    """Whether an offer says nothing else than the current config, however it came here: by the admin, say."""
    if offer.general.config_revision != config.general.config_revision:
        return False
    try:
        content, _ = secrets.fill(offer.model_dump(mode="json"), config.model_dump(mode="json"), Config)
        return Config.load_from_string(json.dumps(content)) == config
    except (ConfigError, secrets.UnknownSecretError):
        return False


def _raise_flag() -> None:
    flags.leave(constants.PENDING_CONFIG_FLAG)


def check_storable(offer: ForeignConfig) -> None:
    """An offer nested too deep to be read again would make the whole state unreadable.

    Raises:
        OfferError: It is one, or another that the state would not carry.
    """
    revision = offer.general.config_revision
    text = BackendState(pending_configs=[offer]).model_dump_json()
    content = text.encode()
    if len(text) > _LARGEST_OFFER:
        raise OfferError(f"it has {len(text)} bytes, more than {_LARGEST_OFFER}", revision, content)
    try:
        [stored] = BackendState.model_validate_json(text).pending_configs
    except pydantic.ValidationError as error:
        raise OfferError(describe(error), revision, content) from None
    if stored != offer:
        raise OfferError("it holds an infinite number, or NaN", revision, content)
