"""Does what needs a network and room, however long these are away. Knows nothing of what that is."""

from collections.abc import Callable

from ivy.utils import notify
from ivy.utils.logger import Logger
from ivy.utils.updates.errors import InstallTrouble, NetworkTrouble, NodeTrouble, Trouble

_SAID = {
    NetworkTrouble: "Cannot fetch {}",
    InstallTrouble: "Cannot install what {} needs",
    NodeTrouble: "This node lacks what it needs for {}",
}
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 600.0
_BETWEEN_LOOKS = 30.0  # at whether to go on: what the operator corrects need not wait for the next try


def fetch(what: str, work: Callable[[], None], give_up: Callable[[Trouble], None], logger: Logger) -> None:
    """Try until it is done, with heartbeats.

    Args:
        what: What is fetched, in words, for who reads that it cannot be.
        work: Does it. May be done any number of times.
        give_up: Called twice a minute, and before each further try. Raises if it is better not to go on.
    """
    wait, told = _FIRST_WAIT, set[type[Trouble]]()
    while True:
        try:
            return work()
        except Trouble as error:
            trouble = error
        # Once is enough for the operator.
        teller = logger.without_messages() if type(trouble) in told else logger
        said = _SAID[type(trouble)].format(what)
        teller.warning(f"{said}; trying again in {wait:.0f} s", details=str(trouble))
        told.add(type(trouble))
        notify.status(f"waiting for {what}")
        rest = wait
        while rest > 0:
            notify.sleep(min(rest, _BETWEEN_LOOKS))
            rest -= _BETWEEN_LOOKS
            give_up(trouble)
        wait = min(2 * wait, _LONGEST_WAIT)
