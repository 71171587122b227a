"""A procedure without a sensor: a random walk. The pattern for your own.

Remove it in your project: `packaging/new-procedure --remove dummy-procedure`.
"""

import random

from ivy.types.config import Config
from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.functions import get_time_to_next_datapoint
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface

_HIGHEST_LOAD = 75.0  # per cent of all cores


def run(config: Config, logger: Logger) -> None:
    """Walk one step at each sampling time and send the position.

    Pauses while the load that `system_checks` found is above 75 %.

    Args:
        config: `dummy_procedure.seconds_between_datapoints` is used.
    """
    interval = config.dummy_procedure.seconds_between_datapoints
    messaging_agent = MessagingAgent()
    position = 0.0
    paused = False
    logger.info("Starting the random walk")
    notify.status(f"sampling every {interval} s")
    while True:
        notify.sleep(get_time_to_next_datapoint(interval))
        load = _known_load(logger)
        if load is not None and load > _HIGHEST_LOAD:
            if not paused:
                logger.warning(f"Pausing: the load is {load:.0f} %, above {_HIGHEST_LOAD:.0f} %")
            notify.status(f"paused, the load of {load:.0f} % being above {_HIGHEST_LOAD:.0f} %")
            paused = True
            continue
        if paused:
            logger.info("Going on: the load is low again")
            paused = False
        position += random.uniform(-1, 1)
        messaging_agent.add_message(DataMessageBody(data={"random_walk_position": position}))
        notify.status(f"sampling every {interval} s, at {position:.2f} now")


def _known_load(logger: Logger) -> float | None:
    """The load that `system_checks` found; None where it is not known, which is no reason not to sample."""
    try:
        return StateInterface.load().system.last_5_min_load
    except OSError as error:  # also a TimeoutError: whoever holds the state hangs
        logger.warning(f"The load is not known: {error}")
        return None
