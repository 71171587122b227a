"""How long to wait before the next try to connect."""

import random

_FIRST = 1.0
_LONGEST = 900.0


class Backoff:
    """No wait at first, then waits that double up to 15 minutes; with jitter, as a fleet must not act as one."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """The connection held: the next wait is none again."""
        self._failures = 0

    def ease(self) -> None:
        """The connection was of some use before it broke: the next wait is the shortest one, but not none."""
        self._failures = min(self._failures, 1)

    def next_delay(self) -> float:
        """Seconds to wait before the next try."""
        failures, self._failures = self._failures, min(self._failures + 1, 20)
        if failures == 0:
            return 0.0
        return min(_LONGEST, _FIRST * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)
