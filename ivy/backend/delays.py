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
    until_stuck: float = 60.0
    """Without any acknowledgment, over how many connections ever; then it is told."""
    between_reports: float = 5.0  # and between looks at the queue, were a ring of the doorbell ever lost
    between_renewals: float = 60.0
    """Of the link report, while nothing but the time of the last acknowledgment changes."""
    until_removed: float = 1.0
    """After an acknowledgment: what is removed together costs the card as much as each for itself."""
    until_removal_is_tried_again: float = 5.0
    between_losses: float = 3600.0
    """Between two reports of messages that were dropped."""
    to_probe: float = 1.0
    """Before a topic is tried again at which nobody listens, or that is forbidden; then twice as long each time."""
    longest_to_probe: float = 60.0
    to_slow_down: float = 1.0
    """Nothing is sent for so long when the platform says that it is too much; then twice as long each time."""
    longest_to_slow_down: float = 60.0
    for_a_witness: float = 5.0
    """After a break suspects wait so long for others to go first: a live sample is never far."""
    of_a_suspect: float = 60.0
    """Where nothing but suspects was sent, and nothing taken; then twice as long each time."""
    longest_of_a_suspect: float = 3600.0
    between_retries: float = 86_400.0
    """Of a message that was set aside."""
    between_looks_at_retries: float = 60.0
    until_former: float = 7 * 86_400.0
    """Without the connection of the config, before one is tried that was accepted before it."""
    between_offers: float = 5.0
    """Before a second one is stored, and so on; see also `after_many_offers`."""
    after_many_offers: float = 300.0
    """As `between_offers`, once some dozens came within less than that each."""
    to_answer: float = 3.5
    """A remote call that root does: platforms wait 5 or 10 s."""
    between_calls: float = 1.0
    """Before root is asked for the same again, whatever came of it."""
    between_looks: float = 0.2
    """For root's answer, while somebody waits for it."""
    between_late_looks: float = 2.0
    between_formers: float = 86_400.0
    of_a_former: float = 3600.0


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
