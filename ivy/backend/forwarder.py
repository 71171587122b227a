"""Carries messages from the queue over the link. Knows neither MQTT nor platforms.

One loop owns all state: acknowledged messages are removed first, then the window is filled again with the newest.
"""

import math
import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ivy.backend.delays import USUAL, Backoff, Delays
from ivy.backend.dialect import Dialect, Encoded, Publication
from ivy.backend.flow_control import Pace, Window
from ivy.backend.inbox import Inbox
from ivy.backend.link_reporter import LinkReporter
from ivy.backend.mqtt_link import Acknowledged, Connected, Disconnected, Event, MQTTLink, Received
from ivy.backend.poison import Suspects
from ivy.types.config import BackendConfig, Config, ConfigError
from ivy.types.messages import ConfigMessageBody, MessageQueueItem
from ivy.utils import notify
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage.doorbell import Listener

if TYPE_CHECKING:  # a service's own memory has no use for it
    import multiprocessing.synchronize


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
    forwarder = _Forwarder(dialect, config, config.backend, logger, delays)
    try:
        while not teardown_indicator.is_set():
            forwarder.turn()
        logger.debug("Stopping: sending what is left in the queue")
        deadline = time.monotonic() + config.backend.max_drain_time
        while forwarder.has_hope() and (rest := deadline - time.monotonic()) > 0:
            forwarder.turn(rest)
    finally:
        forwarder.close()


class _Forwarder:
    def __init__(
        self, dialect: Dialect, config: Config, backend: BackendConfig, logger: Logger, delays: Delays
    ) -> None:
        self._delays = delays
        self._journal = logger.without_messages()  # for the link's trouble: the queue may not empty soon
        self._logger = logger
        self._dialect = dialect
        self._window = Window(backend.max_parallel_messages)
        self._queue = MessagingAgent()
        self._listener = Listener()
        self._link = MQTTLink(
            backend.mqtt_connection, dialect.subscriptions, Backoff(delays=delays), delays.to_connect
        )
        self._in_flight: dict[int, tuple[int, ...]] = {}  # messages of a publication, by its token
        self._suspects = Suspects(most=2 * backend.max_parallel_messages, delays=delays)
        self._pace = Pace()
        self._inbox = Inbox(dialect, config, logger, self._queue, self._pace)
        self._pause_until = 0.0  # nothing may be sent before, monotonic
        self._acknowledged: set[int] = set()  # not removed from the queue yet
        self._last_progress = 0.0
        self._last_sent: float | None = None
        self._next_report = 0.0
        self._trouble = ""
        self._next_try = 0.0
        self._queue_trouble = ""
        self._reported: set[str] = set()  # why messages could not be sent
        self._is_behind = False  # whether there may be more to send than the last turn could
        self._reporter = LinkReporter(self._link.address, self._journal, delays)
        self._tell_state(False, "not connected yet")

    def turn(self, longest: float = math.inf) -> None:
        """Wait for something to happen, for `longest` seconds at most, and deal with it."""
        for event in self._link.wait(self._listener, min(longest, self._patience())):
            self._handle(event)
        self._listener.clear()
        try:
            if self._acknowledged:
                self._queue.remove_messages(self._acknowledged)
                self._acknowledged.clear()
            self._is_behind = self._fill_window()
            self._report()
        except sqlite3.Error as error:
            self._endure(error)
        else:
            self._queue_trouble = ""
        patience = self._delays.until_stalled
        if self._in_flight and time.monotonic() - self._last_progress > patience:
            self._link.break_off(f"{self._link.address} acknowledged nothing for {patience:.0f} s")
        notify.heartbeat()

    def has_hope(self) -> bool:
        """Whether there is something left to send, and a link to send it over."""
        try:
            waiting = self._suspects.waiting(time.monotonic())
            return self._link.is_connected and (
                bool(self._in_flight) or bool(self._queue.get_n_latest_messages(1, waiting))
            )
        except sqlite3.Error as error:
            self._endure(error)
            return False

    def close(self) -> None:
        """Close link and queue."""
        self._link.close()
        self._tell_state(False, "the backend was stopped")
        self._listener.close()
        self._queue.teardown()

    def _patience(self) -> float:
        if self._is_behind:
            return 0.0
        now = time.monotonic()
        times = [self._next_report, self._pause_until] if self._pause_until > now else [self._next_report]
        return min(notify.SECONDS_BETWEEN_HEARTBEATS, max(0.0, min(times) - now))

    def _handle(self, event: Event) -> None:
        match event:
            case Acknowledged(token):
                self._take_acknowledgment(self._in_flight.pop(token, ()))
            case Received(topic, payload):
                self._take(topic, payload)
            case Connected():
                self._trouble = ""
                self._suspects.connected()
                self._publish(self._dialect.greeting(), is_delivery=False)
                self._journal.info(f"Connected to {self._link.address}")
                self._tell_state(True)
            case Disconnected(reason, delay, by_broker):
                if by_broker:
                    under_way = self._under_way()
                    if under_way and not self._suspects.has_delivered:
                        self._window.shrink()
                    self._suspects.broken(under_way, time.monotonic())
                else:
                    self._suspects.lost()
                self._in_flight.clear()
                self._next_try = time.monotonic() + delay
                if reason != self._trouble:  # the same one every quarter of an hour says nothing new
                    self._journal.warning(f"No connection: {reason}")
                self._trouble = reason
                self._tell_state(False, reason)

    def _take_acknowledgment(self, message_ids: tuple[int, ...]) -> None:
        if not message_ids:  # of a greeting or an answer
            return
        under_way = self._under_way()  # a message may be in several publications
        self._acknowledged.update(identifier for identifier in message_ids if identifier not in under_way)
        if (culprit := self._suspects.delivered(message_ids)) is not None:
            self._acknowledged.add(culprit)  # in the only way that it will ever be
            self._logger.error("A message was removed: the broker breaks the connection over it")
        self._last_progress = self._last_sent = time.monotonic()
        self._window.grow()
        self._reporter.acknowledged()

    def _under_way(self) -> set[int]:
        return {identifier for batch in self._in_flight.values() for identifier in batch}

    def _take(self, topic: str, payload: bytes) -> None:
        try:
            self._publish(self._inbox.take(topic, payload), is_delivery=False)
        except sqlite3.Error as error:
            self._endure(error)

    def _publish(self, publications: Sequence[Publication], *, is_delivery: bool) -> None:
        for publication in publications:
            if self._link.is_connected:
                token = self._link.publish(publication.topic, publication.payload, is_delivery=is_delivery)
                self._in_flight.update({token: publication.message_ids} if publication.message_ids else {})

    def _fill_window(self) -> bool:
        """Send the newest messages that fit. Returns whether there is room left that others may fill."""
        under_way = self._under_way()
        room = self._window.size - len(under_way)
        if not self._link.is_connected or room <= 0 or time.monotonic() < self._pause_until:
            return False
        items = self._candidates(room, under_way)
        chosen = self._suspects.choose(items, under_way, time.monotonic())
        encoded = self._encode_affordable(chosen[-room:])
        if encoded.publications and not self._in_flight:
            self._last_progress = time.monotonic()
        self._pace.take(encoded.publications)
        self._publish(encoded.publications, is_delivery=True)
        self._remove_unsendable(encoded.unsendable, items)
        return bool(encoded.unsendable)

    def _candidates(self, room: int, under_way: set[int]) -> list[MessageQueueItem]:
        """The newest messages: as many as there is room for, even if all suspects are among them."""
        wanted = room + len(self._suspects)
        items = self._queue.get_n_latest_messages(wanted, under_way)
        if len(items) < wanted:
            self._suspects.forget_all_but(under_way.union(item.identifier for item in items))
        return items

    def _encode_affordable(self, items: Sequence[MessageQueueItem]) -> Encoded:
        """As many of the newest messages as the platform takes now; if it takes none, there is a pause."""
        while True:
            encoded = self._dialect.encode(items)
            wait = self._pace.seconds_until(encoded.publications)
            fits = self._pace.are_small_enough(encoded.publications) and self._pace.may_be_in_flight(
                len(self._in_flight) + len(encoded.publications)
            )
            fits = fits or (len(items) == 1 and not self._in_flight)  # it will never take up less
            if not encoded.publications or (wait == 0 and fits):
                return encoded
            if len(items) == 1:
                self._pause_until = time.monotonic() + wait
                return Encoded([], {})
            items = items[-(len(items) // 2) :]

    def _remove_unsendable(self, reasons: dict[int, str], items: Sequence[MessageQueueItem]) -> None:
        if not reasons:
            return
        details = "\n".join(sorted(set(reasons.values())))
        self._journal.debug(f"{len(reasons)} messages stay in the archive only", details)
        # A config status that a platform has no word for is no loss, so nobody needs to know.
        bodies = {item.identifier: item.message_body for item in items}
        losses = {reason for key, reason in reasons.items() if not isinstance(bodies[key], ConfigMessageBody)}
        for reason in sorted(losses - self._reported):
            self._logger.warning(
                f"A message stays in the archive only: {reason}", "Others like it are not reported."
            )
        self._reported |= losses
        self._queue.remove_messages(set(reasons))

    def _endure(self, error: sqlite3.Error) -> None:
        """A full disk, say. What is acknowledged stays known here, and is removed when that is possible again."""
        text = f"the queue cannot be used: {error}"
        if text != self._queue_trouble:
            self._journal.error(text)
        self._queue_trouble = text
        self._is_behind = False  # no use in trying again at once
        notify.status(text)
        self._next_report = time.monotonic() + self._delays.between_reports

    def _report(self) -> None:
        """Renew the line in `systemctl status`: at once when the connection changes, else now and then."""
        now = time.monotonic()
        if now < self._next_report:
            return
        self._inbox.try_again()
        self._reporter.renew()
        queued = f"{self._queue.get_queue_length()} queued"
        if self._link.is_connected:
            sent = "nothing sent yet" if self._last_sent is None else f"last sent {now - self._last_sent:.0f} s ago"
            notify.status(f"connected to {self._link.address}, {queued}, {sent}")
        elif self._trouble:
            wait = max(0.0, self._next_try - now)
            notify.status(f"not connected: {self._trouble}; next try in {wait:.0f} s, {queued}")
        else:
            notify.status(f"connecting to {self._link.address}, {queued}")
        self._next_report = now + self._delays.between_reports

    def _tell_state(self, connected: bool, reason: str | None = None) -> None:
        self._next_report = 0.0
        self._reporter.changed(connected, reason)
