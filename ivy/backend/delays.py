"""How long a backend waits for what. Knows no clock."""

import dataclasses
import random
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Delays:
    """All in seconds."""

    to_connect: float = 30.0
    to_try_again: float = 1.0
    """Before the second try to connect; then twice as long each time."""
    longest_unanswered: float = 60.0
    """A try costs little, and whoever waits for a network that is back loses live data."""
    longest_refused: float = 900.0
    """Each try is work for a broker that has said no."""
    until_stalled: float = 60.0
    between_reports: float = 5.0  # and between looks at the queue, were a ring of the doorbell ever lost
    between_renewals: float = 60.0
    """Of the link report, while nothing but the time of the last acknowledgment changes."""
    for_a_witness: float = 5.0  # who is no suspect; so long do suspects wait, as a live sample is never far
    of_a_suspect: float = 60.0
    """Before its second chance; then twice as long each time."""


USUAL = Delays()


class Backoff:
    """Waits that double from a second on; with jitter, as a fleet must not act as one."""

    def __init__(self, jitter: Callable[[float, float], float] = random.uniform, delays: Delays = USUAL) -> None:
        self._jitter = jitter
        self._delays = delays
        self._unanswered = self._refused = 0.0  # the last wait of each kind

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
            self._unanswered = self._refused = 0.0
            return max(0.0, self._jittered(self._delays.to_try_again) - lasted)
        # Each kind has a wait of its own: a broker that says no once, after an outage, is not left alone for long.
        if refused:
            self._refused = min(self._delays.longest_refused, 2 * self._refused or self._delays.to_try_again)
            return self._jittered(self._refused)
        self._unanswered = min(self._delays.longest_unanswered, 2 * self._unanswered or self._delays.to_try_again)
        return self._jittered(self._unanswered)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._jitter(0.5, 1.0)
