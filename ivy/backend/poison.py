"""Finds the messages that a broker does not take. Pure bookkeeping: sends and removes nothing.

A broker names them (by MQTT 5), or breaks the connection over them. Either is about all that was sent together, so
that is bisected: half of it is sent alone, and what comes of it tells of this half, or of the other. A message that
is left alone and refused is set aside, which can be undone: it is tried again alone once a day. So little evidence
is needed: that others get through. Where none does, it is the broker; and where no connection can be made after a
break, that was over no message.

Nothing else waits for this: of a connection that carries others, what is suspected gets a small part.
"""

import copy
import dataclasses
from collections.abc import Collection, Iterable

from ivy.backend.delays import USUAL, Delays

BROKE = "the broker breaks the connection over it"

_DELIVERIES_BETWEEN = 10  # publications from one test to the next, while there are others to send
_MOST_ACCUSED = 3
"""So many messages alone may be refused before anything gets through; of more, none is to blame."""


@dataclasses.dataclass
class _Findings:
    groups: list[tuple[int, ...]] = dataclasses.field(default_factory=list)
    """What was refused together: at least one message of each group is not taken."""
    accused: dict[int, str] = dataclasses.field(default_factory=dict)
    """Those that were refused alone, and why, until another gets through."""
    guilty: dict[int, str] = dataclasses.field(default_factory=dict)
    """Those that broke the connection alone, until the next one is made."""


class Suspects:
    """Remembers what was refused. All times are monotonic."""

    def __init__(self, most: int, delays: Delays = USUAL) -> None:
        """Nothing is suspected.

        Args:
            most: How many messages to suspect, at least as many as may be under way. Of more, the oldest become
                ordinary again: if one was to blame, it will be found among others.
            delays: How long suspects wait.
        """
        self._most = most
        self._delays = delays
        self._found = _Findings()
        self._before: _Findings | None = None  # as it was before the last break
        self._not_before = 0.0  # when a test may go over a connection that has carried nothing yet
        self._wait = 0.0  # for those that were refused where nothing got through
        self._next_retrial = 0.0  # when these may be sent again over this connection
        self._last_test: tuple[int, ...] = ()
        self._since_a_test = 0  # publications that the connection carried
        self._has_witness = False  # whether others got through since a message was found guilty
        self.has_delivered = False  # whether the connection carries messages at all
        self.is_broker = False
        """Whether so much was refused alone, and nothing taken, that it is not the messages."""

    @property
    def message_ids(self) -> set[int]:
        """All that is suspected: none of it goes among others."""
        found = self._found
        grouped = {identifier for group in found.groups for identifier in group}
        return grouped | found.accused.keys() | found.guilty.keys()

    def connected(self) -> dict[int, str]:
        """There is a new connection. Returns what is to be set aside, and why."""
        self._before = None
        self.has_delivered = False
        self._since_a_test = 0
        self._next_retrial = 0.0
        guilty, self._found.guilty = self._found.guilty, {}
        return guilty

    def add(self, identifier: int) -> None:
        """A message that was set aside is to be tried again: it goes alone, like any suspect."""
        if identifier not in self.message_ids:
            self._found.groups.append((identifier,))

    def delivered(self, message_ids: Collection[int]) -> dict[int, str]:
        """The broker took messages. Returns what is to be set aside, and why."""
        is_ordinary = self.message_ids.isdisjoint(message_ids)
        self._since_a_test = self._since_a_test + 1 if is_ordinary else 0
        if self.is_broker or not self._found.accused.keys().isdisjoint(message_ids):
            self._found.accused.clear()  # it takes now what it did not take before
        self.has_delivered, self.is_broker, self._wait, self._next_retrial = True, False, 0.0, 0.0
        self._leave_out(message_ids)
        accused, self._found.accused = self._found.accused, {}
        self._has_witness = not accused
        return accused

    def refused(self, message_ids: Collection[int], why: str, now: float) -> dict[int, str]:
        """The broker named a publication that it does not take. Returns what is to be set aside, and why."""
        # A set: several parts of one message may be in one publication.
        guilty = self._refused(tuple(sorted(set(message_ids))), why, is_named=True)
        if self._found.accused and now >= self._next_retrial:  # each answer costs the line a message
            self._next_retrial = now + self._longer_wait()
        return guilty

    def broken(self, in_flight: Collection[int], now: float) -> None:
        """The broker broke the connection."""
        self._before = copy.deepcopy(self._found)
        self._not_before = max(self._not_before, now + self._delays.for_a_witness)
        if not in_flight:
            return
        self._found.guilty |= self._refused(tuple(sorted(in_flight)), BROKE, is_named=False)
        if self._found.accused:
            self._not_before = now + self._longer_wait()

    def lost(self) -> None:
        """There is no connection, for a reason that is in no message; so the last break had none there either."""
        if self._before is not None:
            self._found, self._before = self._before, None

    def next_test(
        self, *, others_wait: bool, in_flight: Collection[int], now: float, most: int | None = None
    ) -> tuple[int, ...] | None:
        """What is to be sent alone now; empty if its turn has come, but something is still under way.

        Args:
            most: How many messages go together; None: as many as one likes.
            others_wait: Whether there are messages that are not suspected.
            in_flight: What is under way.
            now: What time it is.

        Returns: None if no turn has come.
        """
        if not self.message_ids.isdisjoint(in_flight):
            return ()
        if not self.has_delivered and now < self._not_before:
            return None
        if self._found.accused and not self._found.groups and not others_wait:  # perhaps it is taken now
            if now < self._next_retrial:
                return None
            self._found.groups = [(identifier,) for identifier in self._found.accused]
            self._found.accused.clear()
        if not self._found.groups or (others_wait and self._since_a_test < _DELIVERIES_BETWEEN):
            return None
        if in_flight:
            return ()
        self._last_test = self._next_half()[:most]
        return self._last_test

    def seconds_until_test(self, now: float) -> float:
        """How long a test must wait for others to get through first; 0 if it need not, or there is none."""
        if self._found.groups:
            return max(0.0, self._not_before - now)
        return max(0.0, self._not_before - now, self._next_retrial - now) if self._found.accused else 0.0

    def forget(self, message_ids: Iterable[int]) -> None:
        """These are in the queue no more."""
        self._leave_out(set(message_ids))

    def _refused(self, message_ids: tuple[int, ...], why: str, *, is_named: bool) -> dict[int, str]:
        was_test = message_ids == self._last_test
        self._leave_out(message_ids, and_their_groups=True)
        self._since_a_test = 0
        if len(message_ids) > 1 or not (was_test or is_named):
            self._found.groups.append(message_ids)
            self._forget_the_oldest()
            return {}
        if self._has_witness:
            self._has_witness = False  # the next one needs another: else all would go, once the broker takes none
            return {message_ids[0]: why}
        self._found.accused[message_ids[0]] = why
        if len(self._found.accused) > _MOST_ACCUSED:
            self._found.accused.clear()
            self.is_broker = True
        return {}

    def _longer_wait(self) -> float:
        self._wait = min(self._delays.longest_of_a_suspect, 2 * self._wait or self._delays.of_a_suspect)
        return self._wait

    def _next_half(self) -> tuple[int, ...]:
        """What is to be sent alone next: half of the smallest group, as it is nearest to its end."""
        group = min(self._found.groups, key=len, default=())
        return group[: max(1, len(group) // 2)]

    def _leave_out(self, message_ids: Collection[int], *, and_their_groups: bool = False) -> None:
        """These are known now; of what was in a group with them nothing is, if it is they that were refused."""
        groups = self._found.groups
        if and_their_groups:
            groups = [group for group in groups if set(group).isdisjoint(message_ids)]
        rest = (tuple(each for each in group if each not in message_ids) for group in groups)
        self._found.groups = [group for group in rest if group]
        for identifier in message_ids:
            self._found.accused.pop(identifier, None)

    def _forget_the_oldest(self) -> None:
        while len(self._found.groups) > 1 and sum(map(len, self._found.groups)) > self._most:
            del self._found.groups[0]
