"""What comes from the platform: config offers, remote calls, limits. Sends nothing; the forwarder does."""

import collections
import hashlib
import math
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from ivy import constants
from ivy.backend import offers
from ivy.backend.delays import USUAL, Delays
from ivy.backend.dialect import Dialect, Limits, OfferError, Publication, Request
from ivy.backend.flow_control import Bucket, Pace
from ivy.backend.rpc import SECONDS_FOR_SYSTEMD, Calls
from ivy.backend.update_packages import UpdatePackages
from ivy.types.config import Config, ForeignConfig
from ivy.types.updates import MOST_SUPERSEDED, Superseded
from ivy.utils.functions import procedure_names
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent

# So many in so many seconds: each is a message, and whoever sends them may not stop.
_REPORTS_OF_BAD_OFFERS = (16, 600.0)
_OFFERS_IN_BURST = 40
_MOST_REFUSED = 16  # that are known without a look into the state


class Inbox:
    """Deals with each publication as it arrives.

    The first offer is stored at once. Of those that follow, one for each pause, the newest: each is written to the
    disk, read by the updater and answered, and whoever sends them may not stop.
    """

    def __init__(
        self,
        dialect: Dialect,
        config: Config,
        logger: Logger,
        queue: MessagingAgent,
        pace: Pace,
        delays: Delays = USUAL,
        largest_packet: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """Nothing has come yet.

        Args:
            dialect: How the platform speaks.
            config: The one that is in use.
            logger: For what the operator should know of.
            queue: For what is told about offers and calls.
            pace: Is told the platform's limits.
            delays: How long to wait for what.
            largest_packet: How many bytes the broker takes now.
        """
        self._calls = Calls(
            self._status, queue, dialect.provider, lambda: min(largest_packet(), pace.largest), delays
        )
        self._dialect = dialect
        self._config = config
        self._logger = logger
        self._queue = queue
        self._pace = pace
        self._delays = delays
        self._unstored: ForeignConfig | None = None
        self._superseded: list[Superseded] = []  # what that one has replaced
        self._due = 0.0  # when the next one may be stored, monotonic
        self._packages = UpdatePackages(logger, queue, delays)
        self._has_failed = False
        self._offers = Bucket(_OFFERS_IN_BURST, _OFFERS_IN_BURST * delays.after_many_offers)
        self._refused: collections.deque[str] = collections.deque(maxlen=_MOST_REFUSED)
        self._bad_offers = Bucket(*_REPORTS_OF_BAD_OFFERS)

    def take(self, topic: str, payload: bytes) -> list[Publication]:
        """Deal with a publication. What is no good is reported, and ignored.

        Returns: What is to be published in answer.

        Raises:
            sqlite3.Error: The queue cannot be used. An offer is stored all the same; only the answer is missing.
        """
        if len(payload) > offers.LARGEST_PAYLOAD:
            self._refuse(payload, _too_large(len(payload)))
            return []
        self._packages.hear(self._dialect.packages(topic, payload))
        try:
            match self._dialect.decode(topic, payload):
                case ForeignConfig() as offer:
                    self._keep(offer)
                case Request() as request:
                    return self._calls.take(request)
                case Limits() as limits:
                    self._pace.limit(limits)
        except OfferError as error:
            self._refuse(error.content or payload, error)
        return []

    def refuse_unread(self, size: int) -> None:
        """Report an offer of which nothing but its size is known, as it is too large. Raises as `take`."""
        error = _too_large(size)
        self._refuse(str(error).encode(), error)

    def answers(self) -> list[Publication]:
        """What is to be published in answer to calls of before."""
        return self._calls.answers()

    def seconds_until_due(self) -> float:
        """How long there is nothing to do; infinity while nothing waits for that."""
        waiting = (self._seconds_until_offer_is_due(), self._packages.seconds_until_due())
        return min(*waiting, self._calls.seconds_until_due())

    def try_again(self) -> None:
        """Store the offers that wait for it, if it is time. Raises as `take`."""
        self._packages.try_again()
        if self._seconds_until_offer_is_due() == 0:
            self._store_offer()

    def flush(self) -> None:
        """Store the offers that wait for it: there may be no later. Raises as `take`."""
        self._packages.flush()
        self._store_offer()

    def _seconds_until_offer_is_due(self) -> float:
        return math.inf if self._unstored is None else max(0.0, self._due - time.monotonic())

    def _store_offer(self) -> None:
        if (offer := self._unstored) is None:
            return
        self._due = time.monotonic() + self._delays.between_reports
        try:
            is_new = offers.store(offer, self._config, self._logger, self._queue, self._superseded)
        except OSError as error:  # another service holds the state, or the disk is full: the sending goes on
            if not self._has_failed:
                text = f"A config offer could not be stored, and will be tried again: {error}"
                self._logger.without_messages().error(text)
            self._has_failed = True
        except OfferError as error:  # a better one waits for its decision
            self._pause(is_new=False)
            self._refuse(error.content, error)
        except sqlite3.Error:  # it was stored
            self._pause()
            raise
        else:
            self._pause(is_new=is_new)

    def _keep(self, offer: ForeignConfig) -> None:
        """Let an offer be the one to be stored, unless it does not replace the one that is; and do so, in time."""
        offers.check_storable(offer)
        waiting = self._unstored
        if offer == waiting or Superseded.of(offer) in self._superseded:
            return
        if time.monotonic() < self._due and offers.is_known(offer, self._config):
            return
        if waiting is not None:
            if not offers.replaces(offer, waiting, self._config):
                if not offers.is_known(offer, self._config):
                    raise offers.behind(offer, waiting, self._config)
                return
            self._superseded = [*self._superseded, Superseded.of(waiting)][-MOST_SUPERSEDED:]
        self._unstored = offer
        self.try_again()

    def _pause(self, *, is_new: bool = True) -> None:
        self._unstored, self._superseded, self._has_failed = None, [], False
        if not is_new:  # it was merely sent again
            self._due = 0.0
            return
        self._offers.take(1)
        self._due = time.monotonic() + max(self._delays.between_offers, self._offers.seconds_until(1))

    def _refuse(self, content: bytes, error: OfferError) -> None:
        """Answer an offer that cannot be read, once: a retained one comes again at every connect and start."""
        digest = hashlib.sha256(content).hexdigest()  # of what may be large
        if digest in self._refused:
            return
        journal = self._logger.without_messages()
        if self._bad_offers.seconds_until(1) > 0:
            return journal.debug(f"One of many bad config offers: {error}")
        if offers.was_refused(digest):
            return
        self._bad_offers.take(1)
        self._refused.append(digest)
        self._logger.error(f"A config offer was ignored: {error}")
        if error.revision is not None:
            offers.reject(error.revision, self._config, self._logger, self._queue)
        try:
            offers.note_refused(digest)
        except OSError as failure:
            journal.warning(f"That offer will be answered again after a restart: {failure}")

    def _status(self) -> dict[str, Any]:
        """What an operator may ask for at any time: all that `ivy status` tells, and keys of before."""
        from ivy import overview  # not at the top: it loads what a backend does without until somebody asks

        found = overview.look(self._config, self._queue, SECONDS_FOR_SYSTEMD)
        return found.as_json() | {
            "ivy_version": constants.VERSION.as_identifier(),
            "queued": found.queue.length if found.queue else None,
            "oldest_timestamp": found.queue.oldest_timestamp if found.queue else None,
            "uptime_seconds": round(time.clock_gettime(time.CLOCK_BOOTTIME)),
            "procedures": procedure_names(),
        }


def _too_large(size: int) -> OfferError:
    return OfferError(f"it has {size} bytes, more than {offers.LARGEST_PAYLOAD}")
