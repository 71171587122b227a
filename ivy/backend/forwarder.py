"""Carries messages from the queue over the link, and what comes to the inbox. Knows neither MQTT nor platforms.

One loop owns all state: acknowledged messages are removed first, then the window is filled again with the newest.
"""

import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ivy import constants
from ivy.backend import offers, reasons
from ivy.backend.delays import USUAL, Backoff, Delays
from ivy.backend.dialect import Dialect, Publication
from ivy.backend.former_links import FormerLink, FormerLinks
from ivy.backend.inbox import Inbox
from ivy.backend.link_reporter import LinkReporter
from ivy.backend.losses import Losses
from ivy.backend.mqtt_link import Acknowledged, Connected, Disconnected, Event, MQTTLink, Received, TooLarge
from ivy.backend.removal import Removal
from ivy.backend.resending import Resending
from ivy.backend.sending import Sending
from ivy.types.config import BackendConfig, Config, ConfigError
from ivy.types.messages import LogMessageBody
from ivy.utils import notify
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import errors
from ivy.utils.storage.doorbell import Listener

if TYPE_CHECKING:  # a service's own memory has no use for it
    import multiprocessing.synchronize

_SECONDS_UNTIL_USEFUL = 600.0
_SECONDS_OF_PEACE = 60.0  # until a trouble of the queue is over: some comes and goes with each message


def run(
    dialect: Dialect,
    config: Config,
    logger: Logger,
    teardown_indicator: "multiprocessing.synchronize.Event",
    delays: Delays = USUAL,
) -> None:
    """Forward messages until told to stop; then send what is left, as long as the config allows and the link holds.

    Args:
        logger: For what the operator should know of; trouble with the link itself goes to the journal only.
        teardown_indicator: Set when it is time to stop. Looked at every 5 seconds, or when the doorbell rings.
        delays: How long to wait for what.

    Raises:
        ConfigError: The config wants no backend, or another one: two would take the queue's messages.
    """
    if config.backend is None or config.backend.provider != dialect.provider:
        wanted = config.backend.provider if config.backend else "null"
        raise ConfigError(
            f"backend: is {wanted}, but {dialect.provider} was started; run ivy restart after changing the config"
        )
    links = FormerLinks(config, delays)
    try:
        while not teardown_indicator.is_set():
            _run_over(links.now(), links, dialect, config, logger, teardown_indicator)
    finally:
        links.save()


def _run_over(
    former: FormerLink | None,
    links: FormerLinks,
    dialect: Dialect,
    config: Config,
    logger: Logger,
    teardown_indicator: "multiprocessing.synchronize.Event",
) -> None:
    """Forward messages over one connection: as long as it is the one to be tried, or until told to stop."""
    forwarder = _Forwarder(dialect, config, logger, former, links)
    try:
        while not teardown_indicator.is_set():
            forwarder.turn()
            if former is None and forwarder.is_useful():
                links.end()
            links.elapse(is_connected=former is None and forwarder.is_connected())
            if links.now() is not former:
                return
        logger.debug("Stopping: sending what is left in the queue")
        forwarder.stop_resending()
        deadline = time.monotonic() + (config.backend.max_drain_time if config.backend else 0)
        while forwarder.has_hope() and (rest := deadline - time.monotonic()) > 0:
            forwarder.turn(rest)
    finally:
        forwarder.close()


class _Forwarder:
    def __init__(
        self, dialect: Dialect, config: Config, logger: Logger, former: FormerLink | None, links: FormerLinks
    ) -> None:
        own = _backend(config).mqtt_connection
        self._own_address = f"{own.host}:{own.port}"
        self._former = former
        self._links = links
        self._delays = delays = links.delays
        self._was_told = False
        self._unchecked = ""  # what of the broker's certificates was not checked, as the operator knows
        self._connected_at = self._useful_at = math.inf
        is_other_platform = former is not None and former.dialect.provider != dialect.provider
        dialect = former.dialect if former else dialect
        backend = _backend(former.config if former else config)
        self._journal = logger.without_messages()  # for the link's trouble: the queue may not empty soon
        self._logger = logger
        self._dialect = dialect
        self._queue = MessagingAgent()
        self._resending = Resending(logger, delays.between_reports, is_wanted=former is None)
        self._removal = Removal(
            self._queue,
            self._resending,
            config,
            logger,
            delays,
            is_former=former is not None,
            window=backend.max_parallel_messages,
        )
        self._listener = Listener()
        self._link = MQTTLink(
            backend.mqtt_connection,
            dialect.subscriptions,
            Backoff(delays=delays),
            delays.to_connect,
            offers.LARGEST_PAYLOAD,
        )
        self._sending = Sending(
            dialect,
            backend,
            self._link,
            self._queue,
            self._resending,
            self._removal,
            self._journal,
            delays,
            is_other_platform=is_other_platform,
        )
        self._was_stuck = False
        self._inbox = Inbox(
            dialect, config, logger, self._queue, self._sending.pace, delays, lambda: self._link.largest_packet
        )
        self._losses = Losses(self._queue, dialect, self._journal, delays)
        self._tells = config.logging_verbosity.message_sending is not None and former is None
        self._last_sent: float | None = None
        self._next_report = 0.0
        self._trouble = ""
        self._next_try = 0.0
        self._queue_troubles: set[str] = set()  # each is told once, until all has been well for a while
        self._well_at = 0.0
        self._reporter = LinkReporter(self._own_address, self._journal, delays)
        self._tell_state(False, "not connected yet")

    def turn(self, longest: float = math.inf) -> None:
        """Wait for something to happen, for `longest` seconds at most, and deal with it."""
        for event in self._link.wait(self._listener, min(longest, self._patience())):
            self._handle(event)
        self._listener.clear()
        steps = (
            self._remove_acknowledged,
            self._removal.move_set_aside,
            self._retry,
            self._sending.ask_again,
            self._sending.fill_window,
            self._tell_troubles,
            self._inbox.try_again,
            self._answer_calls,
            self._report_losses,
            self._look_at_answers,
            self._report,
        )
        # All of them, each by itself: what cannot be removed must not keep others from being sent.
        if sum(self._endures(step) for step in steps) == len(steps) and time.monotonic() >= self._well_at:
            self._queue_troubles.clear()
        self._sending.break_off_if_stalled()
        notify.heartbeat()

    def _remove_acknowledged(self, *, at_once: bool = False) -> None:
        self._removal.remove(at_once=at_once or (self._sending.is_half_full and not self._removal.must_wait))

    def is_connected(self) -> bool:
        """Whether there is a connection, and the broker answers."""
        return self._link.is_connected and not self._is_stuck()

    def is_useful(self) -> bool:
        """Whether the connection has proved itself: something was delivered, or it holds and nothing waits."""
        return self.is_connected() and time.monotonic() >= min(
            self._useful_at, self._connected_at + _SECONDS_UNTIL_USEFUL
        )

    def has_hope(self) -> bool:
        """Whether there is something left to send, and a link to send it over."""
        try:
            return self._link.is_connected and self._sending.has_more()
        except sqlite3.Error as error:
            self._endure(error)
            return False

    def stop_resending(self) -> None:
        """What is sent again from the archive goes on after the next start: it may be years."""
        self._resending.stop()

    def close(self) -> None:
        """Close link and queue."""
        self._link.close()
        self._endures(self._inbox.flush)
        self._endures(lambda: self._remove_acknowledged(at_once=True))
        self._resending.close()
        self._tell_state(False, "the backend was stopped")
        self._listener.close()
        self._queue.teardown()

    def _patience(self) -> float:
        if self._sending.is_behind:
            return 0.0
        now = time.monotonic()
        seconds = max(0.0, min(self._next_report, self._removal.next) - now)
        seconds = min(seconds, self._sending.seconds_until_due(now), self._inbox.seconds_until_due())
        if self._link.is_connected:
            seconds = min(seconds, self._resending.seconds_until_due())
        return min(notify.SECONDS_BETWEEN_HEARTBEATS, seconds)

    def _handle(self, event: Event) -> None:
        match event:
            case Acknowledged(token, code, said):
                self._take_answer(token, code, said)
            case Received(topic, payload):
                self._take(topic, payload)
            case TooLarge(size):
                self._refuse(size)
            case Connected(unchecked):
                self._trouble = ""
                self._connected_at, self._useful_at = time.monotonic(), math.inf
                self._sending.connected()
                self._publish(self._dialect.greeting())
                self._journal.info(f"Connected to {self._link.address} by MQTT {self._link.protocol}")
                self._tell_state(True, warning=unchecked)
                self._tell_unchecked(unchecked)
                self._tell_why_here()
            case Disconnected(reason, delay, by_broker, code):
                self._sending.disconnected(by_broker=by_broker, is_too_fast=reasons.is_too_fast(code))
                self._losses.disconnected()
                self._next_try = time.monotonic() + delay
                if reason != self._trouble:  # the same one every quarter of an hour says nothing new
                    self._journal.warning(f"No connection: {reason}")
                self._trouble = reason
                if self._former is None:
                    self._links.trouble = reason
                self._tell_state(False, reason)

    def _take_answer(self, token: int, code: int, said: str) -> None:
        """The broker has said what became of a publication."""
        fate = reasons.fate(code)
        why = "" if fate is reasons.Fate.DELIVERED else reasons.of_publication(code, said)
        self._losses.answered(token, is_delivered=not why)
        is_of_messages = self._sending.answered(token, fate, why)
        if is_of_messages and not why:
            now = time.monotonic()
            self._useful_at = min(self._useful_at, now)
            self._last_sent = now
            self._reporter.acknowledged()
        elif why and not is_of_messages:  # a greeting or an answer
            self._journal.warning(f"{self._link.address} did not take an answer of this node: {why}")

    def _is_stuck(self) -> bool:
        return self._sending.seconds_unanswered() >= self._delays.until_stuck

    def _look_at_answers(self) -> None:
        """A broker that takes messages and acknowledges none is as good as none."""
        if not self._link.is_connected:
            return
        is_stuck = self._is_stuck()
        if not is_stuck:
            self._reporter.stuck(None)
        elif not self._was_stuck:
            self._reporter.stuck(time.clock_gettime(time.CLOCK_BOOTTIME) - self._sending.seconds_unanswered())
        self._was_stuck = is_stuck

    def _tell_troubles(self) -> None:
        if self._sending.has_news:
            self._next_report = 0.0
            nobody_listens = self._sending.gates.nobody_listens
            self._reporter.tell(self._sending.troubles, nobody_listens=nobody_listens)
            self._sending.has_news = False

    def _retry(self) -> None:
        if self._former is None:
            self._sending.retry()

    def _tell_why_here(self) -> None:
        """Tell the operator, over a former connection, that the one of the config is gone."""
        if self._former is None or self._was_told:
            return
        days = self._links.seconds_without / 86_400
        subject = (
            f"{self._dialect.provider} - ERROR - No connection to {self._own_address} for"
            f" {days:.0f} days: {self._link.address}, which was accepted before it, is tried for an"
            " hour a day; offer a config with a broker that is there"
        )
        try:
            self._queue.add_message(LogMessageBody(level="ERROR", subject=subject, body=self._links.trouble))
            self._was_told = True
        except sqlite3.Error as error:
            self._endure(error)

    def _tell_unchecked(self, warning: str | None) -> None:
        """Tell the operator, over the connection itself, once until one is checked again."""
        if warning and not self._unchecked:
            hint = "A wrong clock would lock the node out otherwise. See that the node reaches a time server."
            self._logger.warning(f"{self._link.address}: {warning}", hint)
        self._unchecked = warning or ""

    def _take(self, topic: str, payload: bytes) -> None:
        try:
            self._publish(self._inbox.take(topic, payload))
        except sqlite3.Error as error:
            self._endure(error)

    def _answer_calls(self) -> None:
        self._publish(self._inbox.answers())

    def _refuse(self, size: int) -> None:
        try:
            self._inbox.refuse_unread(size)
        except sqlite3.Error as error:
            self._endure(error)

    def _publish(self, publications: Sequence[Publication]) -> None:
        """Publish what delivers no messages."""
        for publication in publications:
            if publication.size > self._link.largest_packet:
                self._journal.warning(f"An answer is too large for {self._link.address}: {publication.size} bytes")
            elif self._link.is_connected:
                self._link.publish(publication.topic, publication.payload, is_delivery=False)

    def _endures(self, step: Callable[[], None]) -> bool:
        """Whether the step needed nothing that the disk does not give."""
        try:
            step()
        except sqlite3.Error as error:
            self._endure(error)
            return False
        return True

    def _endure(self, error: sqlite3.Error) -> None:
        """A full disk, say. What is acknowledged stays known here, and is removed when that is possible again."""
        if isinstance(error, errors.OtherDisk):  # what is under way has numbers that are others' now
            self._journal.warning(f"Starting again: {error}")
            raise SystemExit(constants.EXIT_TRY_AGAIN)
        text = f"the queue cannot be used: {error}"
        if text not in self._queue_troubles:
            self._journal.error(text)
        self._queue_troubles.add(text)
        self._well_at = time.monotonic() + _SECONDS_OF_PEACE
        self._sending.is_behind = False  # no use in trying again at once
        notify.status(text)
        self._next_report = time.monotonic() + self._delays.between_reports

    def _report_losses(self) -> None:
        if self._tells and self._link.is_connected:
            self._losses.report(lambda each: self._link.publish(each.topic, each.payload, is_delivery=False))

    def _report(self) -> None:
        """Renew the line in `systemctl status`: at once when the connection changes, else now and then."""
        now = time.monotonic()
        if now < self._next_report:
            return
        self._reporter.renew()
        queued = f"{max(0, self._queue.get_queue_length() - len(self._removal))} queued"
        if self._link.is_connected:
            sent = "nothing sent yet" if self._last_sent is None else f"last sent {now - self._last_sent:.0f} s ago"
            stuck = f"what was sent {self._sending.seconds_unanswered():.0f} s ago is not acknowledged"
            found = [*([stuck] if self._is_stuck() else []), *self._sending.troubles]
            troubles = "".join(f", but {trouble}" for trouble in found[:1])
            notify.status(f"connected to {self._link.address}{troubles}, {queued}, {sent}")
        elif self._trouble:
            wait = max(0.0, self._next_try - now)
            notify.status(f"not connected: {self._trouble}; next try in {wait:.0f} s, {queued}")
        else:
            notify.status(f"connecting to {self._link.address}, {queued}")
        self._next_report = now + self._delays.between_reports

    def _tell_state(self, connected: bool, reason: str | None = None, warning: str | None = None) -> None:
        self._next_report = 0.0
        if self._former is not None:  # whoever asks means the connection of the config
            here = (
                f"{self._link.address}, which was accepted before, is {'used' if connected else 'tried'} meanwhile"
            )
            connected, reason = False, f"{self._links.trouble or 'none for days'}; {here}"
        self._reporter.changed(connected, reason, warning, self._link.protocol if connected else None)


def _backend(config: Config) -> BackendConfig:
    if config.backend is None:
        raise ConfigError("backend: is null, but a backend was started")
    return config.backend
