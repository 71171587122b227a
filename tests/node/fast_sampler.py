"""A procedure for the fault sweep, installed into a node's release: 20 samples a second, each known by its number.

It writes down every sample for which `add_message` has returned: those must all arrive at the broker.
"""

import os
import time

from ivy import constants
from ivy.types.config import Config
from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent

SECONDS_BETWEEN_SAMPLES = 0.05


def run(config: Config, logger: Logger) -> None:
    """Sample until killed."""
    messaging_agent = MessagingAgent()
    life = time.time_ns()
    number = 0
    with open(os.path.join(constants.IVY_DATA_DIR, "returned.txt"), "a", buffering=1) as returned:
        while True:
            messaging_agent.add_message(DataMessageBody(data={"life": life, "number": number}))
            returned.write(f"{life} {number}\n")
            number += 1
            notify.sleep(SECONDS_BETWEEN_SAMPLES)
