"""How long to wait before the next try to connect. Knows no clock."""

import random
from collections.abc import Callable

_FIRST = 1.0
_LONGEST_UNANSWERED = 60.0  # a try costs little, and whoever waits for a network that has come back loses live data
_LONGEST_REFUSED = 900.0  # each try is work for a broker that has said no


class Backoff:
    """Waits that double from a second on; with jitter, as a fleet must not act as one."""

    def __init__(self, jitter: Callable[[float, float], float] = random.uniform) -> None:
        """Begin with the shortest wait.

        Args:
            jitter: Chooses between two numbers.
        """
        self._jitter = jitter
        self._unanswered = 0
        self._refused = 0

    def next_delay(self, *, useful: bool, refused: bool, lasted: float) -> float:
        """Seconds to wait before the next try.

        None after a connection that was of use, but tries begin a second apart: there are brokers that break each
        connection after the first message.

        Args:
            useful: Whether the last connection was of use.
            refused: Whether the broker has said no, rather than nothing.
            lasted: Seconds since the last try began.
        """
        if useful:
            self._unanswered = self._refused = 0
            return max(0.0, self._jittered(_FIRST) - lasted)
        # Each kind has a count of its own: a broker that says no once, after an outage, is not left alone for long.
        if refused:
            self._refused = min(self._refused + 1, 20)
            return self._jittered(min(_LONGEST_REFUSED, _FIRST * 2.0 ** (self._refused - 1)))
        self._unanswered = min(self._unanswered + 1, 20)
        return self._jittered(min(_LONGEST_UNANSWERED, _FIRST * 2.0 ** (self._unanswered - 1)))

    def _jittered(self, seconds: float) -> float:
        return seconds * self._jitter(0.5, 1.0)
