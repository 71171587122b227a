"""What comes from the platform: config offers, remote calls, limits. Sends nothing; the forwarder does."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ivy import constants, files
from ivy.backend import offers
from ivy.backend.dialect import Dialect, Limits, OfferError, Publication, Request
from ivy.backend.flow_control import Bucket, Pace
from ivy.types.config import Config, ForeignConfig
from ivy.utils.functions import procedure_names
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent

# So many in so many seconds: each is a message, and whoever sends them may not stop.
_REPORTS_OF_BAD_OFFERS = (16, 600.0)
_SECONDS_FOR_SYSTEMD = 2.0  # twice: platforms wait 5 or 10 s for an answer


class Inbox:
    """Deals with each publication as it arrives. Of offers that the disk does not take, it keeps the newest."""

    def __init__(self, dialect: Dialect, config: Config, logger: Logger, queue: MessagingAgent, pace: Pace) -> None:
        self._dialect = dialect
        self._config = config
        self._logger = logger
        self._queue = queue
        self._pace = pace
        self._unstored: ForeignConfig | None = None
        self._bad_offer = b""
        self._bad_offers = Bucket(*_REPORTS_OF_BAD_OFFERS)

    def take(self, topic: str, payload: bytes) -> list[Publication]:
        """Deal with a publication. What is no good is reported, and ignored.

        Returns: What is to be published in answer.

        Raises:
            sqlite3.Error: The queue cannot be used. An offer is stored all the same; only the answer is missing.
        """
        try:
            if len(payload) > offers.LARGEST_PAYLOAD:
                raise OfferError(f"it has {len(payload)} bytes, more than {offers.LARGEST_PAYLOAD}")
            match self._dialect.decode(topic, payload):
                case ForeignConfig() as offer:
                    self._store(offer)
                case Request() as request:
                    return [answer(request, self._status)]
                case Limits() as limits:
                    self._pace.limit(limits)
        except OfferError as error:
            self._refuse(payload, error)
        return []

    def try_again(self) -> None:
        """Store the offer that could not be stored, if there is one. Raises as `take`."""
        if self._unstored is not None:
            self._store(self._unstored)

    def _store(self, offer: ForeignConfig) -> None:
        """Store an offer; or the one that could not be stored yet, if that is newer: it replaces all older ones."""
        unstored = self._unstored
        if unstored is not None and unstored.general.config_revision > offer.general.config_revision:
            offer = unstored
        try:
            offers.store(offer, self._config, self._logger, self._queue)
        except OSError as error:  # another service holds the state, or the disk is full: the sending goes on
            if unstored is None:
                text = f"A config offer could not be stored, and will be tried again: {error}"
                self._logger.without_messages().error(text)
            self._unstored = offer
        else:
            self._unstored = None

    def _refuse(self, payload: bytes, error: OfferError) -> None:
        if payload == self._bad_offer:  # a retained one comes again at every connect
            return
        self._bad_offer = payload
        if self._bad_offers.seconds_until(1) > 0:
            return self._logger.without_messages().debug(f"One of many bad config offers: {error}")
        self._bad_offers.take(1)
        self._logger.error(f"A config offer was ignored: {error}")
        if error.revision is not None:
            offers.reject(error.revision, self._config, self._logger, self._queue)

    def _status(self) -> dict[str, Any]:
        """What an operator may ask for at any time: all that `ivy status` tells, and keys of before."""
        from ivy import overview  # not at the top: it loads what a backend does without until somebody asks

        found = overview.look(self._config, self._queue, _SECONDS_FOR_SYSTEMD)
        return found.as_json() | {
            "ivy_version": constants.VERSION.as_identifier(),
            "queued": found.queue.length if found.queue else None,
            "oldest_timestamp": found.queue.oldest_timestamp if found.queue else None,
            "uptime_seconds": round(time.clock_gettime(time.CLOCK_BOOTTIME)),
            "procedures": procedure_names(),
        }


def answer(request: Request, status: Callable[[], dict[str, Any]]) -> Publication:
    """Do what an operator's call asks for, if it is one of those below; nothing else is ever executed."""
    match request.method:
        case "ping":
            result: dict[str, Any] = {"success": True, "result": "pong"}
        case "status":
            result = {"success": True, "result": status()}
        case "restart":
            result = _restart(request.params)
        case _:
            result = _error('there is no such method; there are "ping", "status" and "restart"')
    return Publication(request.answer_topic, json.dumps(result, separators=(",", ":")).encode())


def _restart(params: Any) -> dict[str, Any]:
    """Leave word for `ivy-restart.service`, which may do what this service may not, and checks the name again."""
    name = params.get("name") if isinstance(params, dict) else params
    known = procedure_names()
    if name not in known:
        return _error(f'"params" must be the name of a procedure, or {{"name": it}}: {", ".join(known)}')
    try:
        files.make_directory(constants.IVY_RUN_DIR)
        Path(f"{constants.RESTART_FLAG}{name}").touch()
    except OSError as error:
        return _error(f"no word could be left for systemd: {error.strerror}")
    return {"success": True, "result": f"{name} is being restarted"}


def _error(text: str) -> dict[str, Any]:
    return {"success": False, "error": text}
