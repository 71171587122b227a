"""Topics at which a broker takes nothing now: when to ask it again, and what to say of it. Pure bookkeeping.

A topic is closed when a publication there comes back for a reason that is in none of its messages. They stay in the
queue, and one of them at a time is sent to see whether that has changed.
"""

import dataclasses
import math
import random
from collections.abc import Callable

from ivy.backend import reasons
from ivy.backend.delays import USUAL, Delays


@dataclasses.dataclass
class _Gate:
    fate: reasons.Fate
    why: str
    since: float
    pause: float
    next_probe: float
    is_asked: bool = False


class Gates:
    """The topics that are closed. All times are monotonic."""

    def __init__(self, delays: Delays = USUAL, jitter: Callable[[float, float], float] = random.uniform) -> None:
        """All are open."""
        self._delays = delays
        self._jitter = jitter
        self._closed: dict[str, _Gate] = {}

    def __contains__(self, topic: object) -> bool:
        return topic in self._closed

    @property
    def troubles(self) -> list[str]:
        """What to say of each topic that is closed."""
        return [f"{topic}: {gate.why}" for topic, gate in self._closed.items()]

    @property
    def nobody_listens(self) -> bool:
        """Whether there is a topic at which nobody listens."""
        return any(gate.fate is reasons.Fate.NOBODY_LISTENS for gate in self._closed.values())

    def refused(self, topic: str, fate: reasons.Fate, why: str, now: float, *, is_probe: bool) -> bool:
        """A publication came back. Returns whether that is news."""
        gate = self._closed.get(topic)
        if gate is None:
            first = self._delays.to_probe
            self._closed[topic] = _Gate(fate, why, now, first, now + first)
            return True
        is_news = gate.fate is not fate
        gate.fate, gate.why = fate, why
        if is_probe:
            gate.is_asked = False
            gate.pause = min(self._delays.longest_to_probe, 2 * gate.pause)
            # Nodes of a fleet must not ask as one.
            gate.next_probe = now + max(self._delays.to_probe, self._jitter(0.75, 1.0) * gate.pause)
        return is_news

    def delivered(self, topic: str, now: float) -> float | None:
        """A publication was delivered. Returns for how many seconds the topic was closed; None if it was not."""
        gate = self._closed.pop(topic, None)
        return None if gate is None else now - gate.since

    def forget(self, topic: str) -> None:
        """Nothing waits for this topic any more."""
        self._closed.pop(topic, None)

    def connected(self) -> None:
        """There is a new connection, so what was asked is asked again, at once."""
        for gate in self._closed.values():
            gate.is_asked, gate.next_probe, gate.pause = False, 0.0, self._delays.to_probe

    def due(self, now: float) -> list[str]:
        """The topics that it is time to ask about."""
        return [topic for topic, gate in self._closed.items() if not gate.is_asked and now >= gate.next_probe]

    def asked(self, topic: str) -> None:
        """A message is on its way there."""
        if topic in self._closed:
            self._closed[topic].is_asked = True

    def seconds_until_due(self, now: float) -> float:
        """How long nobody need be asked; infinity while that is so for all."""
        times = [gate.next_probe for gate in self._closed.values() if not gate.is_asked]
        return max(0.0, min(times, default=math.inf) - now)
