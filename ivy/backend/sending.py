"""Chooses messages of the queue, publishes them, and learns from what becomes of them. Knows no platform.

What is under way and what is known of broker and line is here; what leaves the queue is in `removal`.
"""

import math
import time
from collections.abc import Sequence

from ivy.backend import reasons
from ivy.backend.backlog import Backlog
from ivy.backend.delays import Delays
from ivy.backend.dialect import Dialect, Encoded, Publication
from ivy.backend.flow_control import Brake, Pace, Window
from ivy.backend.gates import Gates
from ivy.backend.in_flight import Answers, InFlight, Sent
from ivy.backend.line import MOST_BYTES, Line
from ivy.backend.mqtt_link import MQTTLink
from ivy.backend.poison import Suspects
from ivy.backend.removal import MOST_KEPT, Removal
from ivy.backend.resending import Resending
from ivy.types.config import BackendConfig
from ivy.types.messages import ConfigMessageBody, MessageQueueItem
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage.contents import FIRST_FOREIGN

_VARIANTS = ("data", "log", "config")
_LEAST_PROGRESS = 100
"""Bytes: more than the packets by which a link is kept alive, in a minute."""
_PUBLICATIONS = 4
"""So many make up a window of thousands; fewer that may be under way are too few to part any."""
_LEAST_AT_ONCE = 250
"""Messages. Each look at the queue costs as much as two dozen of them."""
_TIMES_OF_A_LOST_ANSWER = 5
"""So often the time until a connection is stalled, and that for its bytes: no acknowledgment takes longer."""
_SLOWEST = 100.0
"""Bytes per second."""


class Sending:
    """Messages from the queue to the link, and their acknowledgments."""

    def __init__(
        self,
        dialect: Dialect,
        backend: BackendConfig,
        link: MQTTLink,
        queue: MessagingAgent,
        resending: Resending,
        removal: Removal,
        journal: Logger,
        delays: Delays,
        *,
        is_other_platform: bool,
    ) -> None:
        """Nothing is under way.

        Args:
            dialect: How to speak to the platform.
            backend: Bounds for what is sent.
            link: Where to send it.
            queue: Where it is.
            resending: What of the archive is sent after all that is queued.
            removal: What leaves the queue.
            journal: For trouble with the broker.
            delays: How long to wait for what.
            is_other_platform: Whether the config's platform may take what this one has no form for.
        """
        self._dialect = dialect
        self._link = link
        self._queue = queue
        self._resending = resending
        self._removal = removal
        self._journal = journal
        self._delays = delays
        self._is_other_platform = is_other_platform
        self._window = Window(backend.max_parallel_messages)
        self._line = Line()
        self._in_flight = InFlight()
        self._answers = Answers()
        self._last_progress = 0.0
        self._carried = 0  # bytes over this connection, when there was some progress last
        self._topics: dict[str, set[str]] = {variant: set() for variant in _VARIANTS}  # where messages went so far
        self._brake = Brake(delays)
        self._pause_until = 0.0  # nothing may be sent before, monotonic
        self._suspects = Suspects(most=2 * backend.max_parallel_messages, delays=delays)
        self._next_retry = time.monotonic() + delays.between_looks_at_retries
        self._backlog = Backlog(backend.max_messages_per_second or dialect.most_per_second)
        self._next_of_backlog = math.inf
        self._refused_since: float | None = None  # and nothing was delivered since, monotonic
        self._trouble = ""  # what is said of that, if it lasts
        self.gates = Gates(delays)
        """The topics that are closed."""
        self.pace = Pace()
        """What the platform allows."""
        self.is_behind = False
        """Whether there may be more to send than the last turn could."""
        self.has_news = False
        """Whether the troubles changed, until somebody says that it was told."""

    @property
    def troubles(self) -> list[str]:
        """What the broker does not take, and why."""
        return list(dict.fromkeys([*self.gates.troubles, *filter(None, [self._trouble])]))

    @property
    def is_half_full(self) -> bool:
        """Whether half a window would come twice if this were killed."""
        return self._sent() > self._window.size // 2

    def has_more(self) -> bool:
        """Whether anything is under way, or waits and may be sent.

        Raises:
            sqlite3.Error: The queue cannot be read.
        """
        found = self._queue.get_latest_messages_within(math.inf, 1, self._not_wanted(), self._held_back())
        return bool(self._in_flight) or bool(found)

    def seconds_until_due(self, now: float) -> float:
        """How long nothing need be done here, unless something happens."""
        seconds = max(0.0, self._next_of_backlog - now)
        if self._pause_until > now:
            seconds = min(seconds, self._pause_until - now)
        if self._link.is_connected:
            seconds = min(seconds, self.gates.seconds_until_due(now))
            seconds = min(seconds, self._suspects.seconds_until_test(now) or math.inf)
        return seconds

    def seconds_unanswered(self) -> float:
        """How long the oldest message that is under way has waited, over how many connections ever."""
        now, oldest = time.monotonic(), self._in_flight.oldest
        return max(self._answers.seconds(now), 0.0 if oldest is None else now - oldest.at)

    def connected(self) -> None:
        """There is a new connection."""
        self._removal.set_aside(self._suspects.connected())
        self._backlog.connected()
        self.gates.connected()

    def disconnected(self, *, by_broker: bool, is_too_fast: bool) -> None:
        """There is none, or none could be made.

        Args:
            by_broker: Whether the broker broke it, perhaps over a message.
            is_too_fast: Whether the broker said that it was too much.
        """
        under_way, now = self._in_flight.message_ids, time.monotonic()
        if is_too_fast:
            self._slow_down(len(under_way))
        if by_broker:
            if under_way and not self._suspects.has_delivered:
                self._window.shrink(len(under_way))
            self._line.not_taken(self._in_flight.publications)
            self._suspects.broken(under_way, now)
        else:
            self._suspects.lost()
        self._in_flight.clear()
        self._line.connected()
        self._carried = 0
        self._answers.lost(now)
        self._removal.disconnected()

    def answered(self, token: int, fate: reasons.Fate, why: str) -> bool:
        """The broker has said what became of a publication, and why. Returns whether it was one with messages."""
        now = time.monotonic()
        sent = self._in_flight.pop(token, now)
        if sent is None:
            return False
        self._last_progress = now
        self._answers.answered(is_waiting=bool(self._in_flight), now=now)
        if fate is reasons.Fate.DELIVERED:
            self._take_delivery(sent)
        else:
            self._take_refusal(sent.publication, fate, why, is_probe=sent.is_probe)
        return True

    def break_off_if_stalled(self) -> None:
        """A line on which bytes move is only slow, unless the oldest publication should long have come through."""
        if (oldest := self._in_flight.oldest) is None:
            return
        patience, now, carried = self._delays.until_stalled, time.monotonic(), self._link.bytes_carried
        if carried >= self._carried + _LEAST_PROGRESS:
            self._carried, self._last_progress = carried, now
        waits = now - oldest.at
        if now - max(oldest.at, self._last_progress) > patience:
            self._link.break_off(f"{self._link.address} acknowledged nothing for {patience:.0f} s")
        elif waits > _TIMES_OF_A_LOST_ANSWER * patience + oldest.under_way / _SLOWEST:
            self._link.break_off(f"{self._link.address} did not acknowledge what was sent {waits:.0f} s ago")

    def retry(self) -> None:
        """Let a message that was set aside have its next chance, when it is time to.

        Raises:
            sqlite3.Error: The queue cannot be read.
        """
        now = time.monotonic()
        if now < self._next_retry or not self._link.is_connected:
            return
        self._next_retry = now + min(self._delays.between_looks_at_retries, self._delays.between_retries)
        if (due := self._removal.next_retry()) is not None:
            self._suspects.add(due)

    def ask_again(self) -> None:
        """Send one message to each topic that is closed, when it is time to.

        Raises:
            sqlite3.Error: The queue cannot be read.
        """
        now = time.monotonic()
        for topic in self.gates.due(now):
            if not self._link.is_connected or self._link.room <= 0 or now < self._pause_until:
                return
            others = [variant for variant in _VARIANTS if topic not in self._topics[variant]]
            excluded = self._not_wanted()
            items = self._newest_that_fits(excluded, others) or self._resending.next(1, math.inf, excluded, others)
            encoded = self._dialect.encode(items)
            waiting = [publication for publication in encoded.publications if publication.topic == topic]
            if publications := self._without_too_large(waiting, is_probe=True):
                self.pace.take(publications)
                self._publish(publications, is_probe=True)
                self.gates.asked(topic)
            elif not waiting:  # nothing waits for it
                self.gates.forget(topic)
                self.has_news = True
            self._remove_unsendable(encoded.unsendable, items)

    def _newest_that_fits(self, excluded: set[int], held_back: list[str]) -> list[MessageQueueItem]:
        """One that is not larger than the broker takes: others must not wait behind those that are."""
        items: list[MessageQueueItem] = []
        for n in (1, _LEAST_AT_ONCE):
            items = self._queue.get_latest_messages_within(MOST_BYTES, n, excluded, held_back)
            for item in reversed(items):
                publications = self._dialect.encode([item]).publications
                if all(publication.size <= self._link.largest_packet for publication in publications):
                    return [item]
        return items[-1:]

    def fill_window(self) -> None:
        """Send the newest messages that fit. Is behind, if there is room left that others may fill.

        Raises:
            sqlite3.Error: The queue cannot be read.
        """
        self.is_behind, self._next_of_backlog = False, math.inf
        room = self._window.size - (len(self._in_flight.message_ids) if self._removal.must_wait else self._sent())
        if room <= 0 or not self._has_room():
            return
        bytes_left = self._line.most_bytes - self._in_flight.size
        most = min(room, self._most_at_once())
        looked_for, excluded, held_back = self._backlog.room(most), self._not_wanted(), self._held_back()
        items = self._queue.get_latest_messages_within(bytes_left, looked_for, excluded, held_back)
        if not items:
            items = self._resending.next(looked_for, bytes_left, excluded, held_back)
        if self._removal.must_wait and self._sent() >= MOST_KEPT:
            items = [item for item in items if item.identifier < 0]  # what waits in memory can always be removed
        test = self._next_test(most=min(most, self._line.messages_at_once), others_wait=bool(items))
        if test is not None:
            self._send(test)  # alone: of what goes with it, it could not be told which one was to blame
            return
        chosen = self._backlog.choose(items)[-most:]
        if self._send_all(chosen):
            self.is_behind = self.is_behind or self._backlog.is_behind or most <= len(chosen) < room
        self._next_of_backlog = time.monotonic() + self._backlog.seconds_until_more()

    def _most_at_once(self) -> int:
        """How many messages are made ready at once: what is sampled meanwhile waits for that, and goes next.

        All that there is room for where single publications count: there, each is to be as large as it may be.
        """
        if self._link.room < _PUBLICATIONS or self.pace.is_sparing(len(self._in_flight) + _PUBLICATIONS):
            return self._window.size
        return max(_LEAST_AT_ONCE, self._window.size // _PUBLICATIONS)

    def _take_delivery(self, sent: Sent) -> None:
        now, message_ids = time.monotonic(), sent.publication.message_ids
        self._removal.delivered(message_ids, self._in_flight.message_ids)
        self._removal.set_aside(self._suspects.delivered(message_ids))
        self._window.grow()
        self._line.taken(sent, self._in_flight.acknowledged, now)
        self._brake.release()
        if (seconds := self.gates.delivered(sent.publication.topic, now)) is not None:
            self._journal.info(f"{sent.publication.topic}: messages are taken again, after {seconds:.0f} s")
            self.has_news = True
        self._refused_since = None
        if self._trouble:
            self._journal.info("Messages are taken again")
            self._trouble, self.has_news = "", True

    def _take_refusal(self, publication: Publication, fate: reasons.Fate, why: str, *, is_probe: bool) -> None:
        """It stays in the queue."""
        topic, message_ids = publication.topic, publication.message_ids
        self._removal.refused(message_ids, self._in_flight.message_ids)
        if fate is reasons.Fate.TOO_FAST:
            self._slow_down(len(self._in_flight.message_ids | set(message_ids)))
            self._tell_if_it_lasts(f"{topic}: {why}")
            return
        if fate is reasons.Fate.REFUSED:
            self._line.not_taken([publication])
        if fate is reasons.Fate.REFUSED and not is_probe:
            self._removal.set_aside(self._suspects.refused(message_ids, why, time.monotonic()))
            if not self._suspects.is_broker:
                self._tell_if_it_lasts(f"{topic}: {why}")
                return
        if self.gates.refused(topic, fate, why, time.monotonic(), is_probe=is_probe):
            self._journal.warning(f"Messages wait: {topic}: {why}")
            self.has_news = True

    def _tell_if_it_lasts(self, trouble: str) -> None:
        """Tell of refusals that close no topic, where nothing is delivered: else all would seem to be well."""
        now = time.monotonic()
        self._refused_since = now if self._refused_since is None else self._refused_since
        if trouble != self._trouble and now - self._refused_since >= self._delays.until_stuck:
            self._journal.warning(f"Messages wait: {trouble}")
            self._trouble, self.has_news = trouble, True

    def _slow_down(self, under_way: int) -> None:
        now = time.monotonic()
        if now >= self._pause_until:  # what comes back together counts once
            self._window.shrink(under_way)
        self._pause_until = max(self._pause_until, self._brake.pull(now))

    def _sent(self) -> int:
        """How many messages would come twice if this were killed: a window at most, while they can be removed."""
        return len(self._in_flight.message_ids) + len(self._removal)

    def _held_back(self) -> list[str]:
        """The variants whose topics are closed: they must not keep others from being sent."""
        return [variant for variant in _VARIANTS if any(topic in self.gates for topic in self._topics[variant])]

    def _not_wanted(self) -> set[int]:
        return self._in_flight.message_ids | self._suspects.message_ids | self._removal.not_to_send

    def _has_room(self) -> bool:
        """Whether the link takes more now, one message at least."""
        is_open = self._link.is_connected and time.monotonic() >= self._pause_until
        return is_open and self._link.room > 0 and self._in_flight.size < self._line.most_bytes

    def _next_test(self, *, most: int, others_wait: bool) -> list[MessageQueueItem] | None:
        """What is suspected and to be sent alone now; none of it while something is under way. None: no turn."""
        now, under_way = time.monotonic(), self._in_flight.message_ids
        test = self._suspects.next_test(most=most, others_wait=others_wait, in_flight=under_way, now=now)
        if not test:
            return None if test is None else []
        items = self._queue.get_messages(test) + self._resending.chosen(test)
        self._suspects.forget(set(test) - {item.identifier for item in items})
        held_back = self._held_back()
        return None if any(item.message_body.variant in held_back for item in items) else items

    def _send_all(self, items: Sequence[MessageQueueItem]) -> bool:
        """Send these, the newest first, in as large parts as the line carries soon, while there is room.

        Returns: Whether there was room for all of them.
        """
        rest = list(items)
        while rest and self._has_room():
            sent, done = self._send(rest[-self._line.messages_at_once :])
            self._backlog.take(sent)
            if not done:
                break
            rest = [item for item in rest if item.identifier not in done]
        return not rest

    def _send(self, items: Sequence[MessageQueueItem]) -> tuple[set[int], set[int]]:
        """Send as many of the newest as the platform takes at once.

        Returns: The messages that were sent, and all that were dealt with.
        """
        encoded = self._encode_affordable(items)
        is_open = self._without_too_large(self._without_closed(encoded, items))
        self.pace.take(is_open)
        self._publish(is_open)
        self._remove_unsendable(encoded.unsendable, items)
        if encoded.unsendable or len(is_open) < len(encoded.publications):
            self.is_behind = True
        return _messages_of(is_open), _messages_of(encoded.publications) | encoded.unsendable.keys()

    def _publish(self, publications: Sequence[Publication], *, is_probe: bool = False) -> None:
        for publication in publications:
            if self._link.is_connected:
                token, now = self._link.publish(publication.topic, publication.payload), time.monotonic()
                self._in_flight.add(token, publication, now, is_probe=is_probe)
                self._answers.sent(now)

    def _encode_affordable(self, items: Sequence[MessageQueueItem]) -> Encoded:
        """As many of the newest messages as the platform takes now; if it takes none, there is a pause."""
        while True:
            encoded = self._dialect.encode(items)
            wait = self.pace.seconds_until(encoded.publications)
            fits = self._is_allowed(encoded.publications) and self._is_soon_carried(encoded.publications)
            if len(items) == 1:  # it will never take up less
                fits = not self._in_flight or self._is_allowed(encoded.publications)
            if not encoded.publications or (wait == 0 and fits):
                return encoded
            if len(items) == 1:
                self._pause_until = time.monotonic() + wait
                return Encoded([], {})
            items = items[-(len(items) // 2) :]

    def _is_soon_carried(self, publications: Sequence[Publication]) -> bool:
        return sum(publication.size for publication in publications) <= self._line.most_bytes

    def _is_allowed(self, publications: Sequence[Publication]) -> bool:
        largest, count = max((publication.size for publication in publications), default=0), len(publications)
        return (
            self.pace.are_small_enough(publications)
            and self.pace.may_be_in_flight(len(self._in_flight) + count)
            and count <= self._link.room
            and largest <= self._link.largest_packet
        )

    def _without_closed(self, encoded: Encoded, items: Sequence[MessageQueueItem]) -> list[Publication]:
        """Without what goes to topics that are closed; and remember which variant goes where."""
        variants = {item.identifier: item.message_body.variant for item in items}
        for publication in encoded.publications:
            for identifier in publication.message_ids:
                self._topics[variants[identifier]].add(publication.topic)
        return [each for each in encoded.publications if each.topic not in self.gates]

    def _without_too_large(
        self, publications: Sequence[Publication], *, is_probe: bool = False
    ) -> Sequence[Publication]:
        """None, if a message is larger than the broker has said that it takes: it would break the connection.

        That is as good as a refusal. Where nothing is small enough, it is the broker, so the messages wait.
        """
        most = self._link.largest_packet
        large = next((each for each in publications if each.size > most), None)
        if large is None:  # what is large is alone, see `_encode_affordable`
            return publications
        why = f"the broker takes no more than {most} bytes at once"
        message_id = large.message_ids[0]
        if message_id >= FIRST_FOREIGN:  # the archive has it, and what follows there may be smaller
            self._suspects.forget([message_id])
            self._removal.set_aside({message_id: why})
        else:
            self._take_refusal(large, reasons.Fate.REFUSED, why, is_probe=is_probe)
        return []

    def _remove_unsendable(self, reasons: dict[int, str], items: Sequence[MessageQueueItem]) -> None:
        if not reasons:
            return
        details = "\n".join(sorted(set(reasons.values())))
        self._journal.debug(f"{len(reasons)} messages stay in the archive only", details)
        # A config status that a platform has no word for is no loss, so nobody needs to know.
        bodies = {item.identifier: item.message_body for item in items}
        losses = {reason for key, reason in reasons.items() if not isinstance(bodies[key], ConfigMessageBody)}
        for reason in sorted(losses):
            self._removal.tell_once(f"A message stays in the archive only: {reason}")
        self._removal.give_up(set(reasons), elsewhere=self._is_other_platform)


def _messages_of(publications: Sequence[Publication]) -> set[int]:
    return {identifier for publication in publications for identifier in publication.message_ids}
