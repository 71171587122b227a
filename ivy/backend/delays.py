"""How long a backend waits for what."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Delays:
    """All in seconds."""

    to_connect: float = 30.0
    to_try_again: float = 1.0
    """Before the second try to connect; then twice as long each time."""
    longest_unanswered: float = (
        60.0  # a try costs little, and whoever waits for a network that is back loses live data
    )
    longest_refused: float = 900.0  # each try is work for a broker that has said no
    until_stalled: float = 60.0
    between_reports: float = 5.0  # and between looks at the queue, were a ring of the doorbell ever lost
    between_renewals: float = 60.0
    """Of the link report, while nothing but the time of the last acknowledgment changes."""
    for_a_witness: float = 5.0  # who is no suspect; so long do suspects wait, as a live sample is never far
    of_a_suspect: float = 60.0
    """Before its second chance; then twice as long each time."""


USUAL = Delays()
