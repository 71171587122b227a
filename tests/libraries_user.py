"""A procedure that uses what other people's libraries do, to be copied into a release's `ivy/procedures`.

gpiozero looks for its pin factories with `importlib.metadata`; requests takes proxies and certificates from
`urllib.request` and `ssl`; and a sensor with a web page is asked by `urlopen`.
"""

import ssl
from importlib.metadata import entry_points, version
from urllib.request import getproxies, urlopen

from ivy.types.config import Config
from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent

FACTORIES = list(entry_points(group="gpiozero_pin_factories"))
PROXIES = getproxies()
CERTIFICATES = ssl.create_default_context()


def run(config: Config, logger: Logger) -> None:
    """Send once what they say."""
    with urlopen("file:///etc/os-release") as answer:
        lines = len(answer.read().splitlines())
    data: dict[str, float | int | str] = {"pydantic": version("pydantic"), "lines": lines}
    MessagingAgent().add_message(DataMessageBody(data=data))
    while True:
        notify.sleep(60)
