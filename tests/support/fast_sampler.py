"""A procedure for the fault sweep, installed into a node's release: 20 samples a second, each known by its number.

It writes down every sample for which `add_message` has returned: those must all arrive at the broker. What it
writes lies beside the node's data, on a disk that is never full.
"""

import os
import time

from ivy.types.config import Config
from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent

SECONDS_BETWEEN_SAMPLES = 0.05
CHANNELS = {
    f"channel_{number}": 20.5 for number in range(20)
}  # so that a page of the queue holds a few samples only


def run(config: Config, logger: Logger) -> None:
    """Sample until killed."""
    messaging_agent = MessagingAgent()
    life = time.time_ns()
    number = 0
    with open(os.path.join(os.environ["STATE_DIRECTORY"], "returned.txt"), "a", buffering=1) as returned:
        while True:
            messaging_agent.add_message(DataMessageBody(data={"life": life, "number": number, **CHANNELS}))
            returned.write(f"{life} {number}\n")
            number += 1
            notify.sleep(SECONDS_BETWEEN_SAMPLES)
