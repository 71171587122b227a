"""Does what needs a network, however long that is away. Knows nothing of what that is."""

from collections.abc import Callable

from ivy.utils import notify
from ivy.utils.logger import Logger
from ivy.utils.updates.errors import NetworkTrouble

_FIRST_WAIT, _LONGEST_WAIT = 5.0, 600.0


def fetch(what: str, work: Callable[[], None], give_up: Callable[[NetworkTrouble], None], logger: Logger) -> None:
    """Try until it is done, with heartbeats.

    Args:
        what: What is fetched, in words, for who reads that it cannot be.
        work: Does it. May be done any number of times.
        give_up: Called before each further try. Raises if it is better not to go on.
    """
    wait = _FIRST_WAIT
    while True:
        try:
            return work()
        except NetworkTrouble as error:
            trouble = error
        logger.warning(f"Cannot fetch {what}; trying again in {wait:.0f} s", details=str(trouble))
        logger = logger.without_messages()  # once is enough for the operator
        notify.status(f"waiting for {what}")
        notify.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
        give_up(trouble)
