"""A program with many links: `links.py PORT USER PASSWORD FIRST COUNT`. Each sends its next number every second.

Goes on until a line comes, and then until all is acknowledged. Prints how many numbers each link has sent.
"""

import os
import sys
import threading
import time

from ivy.backend.mqtt_link import Acknowledged, Connected, Disconnected, MQTTLink
from ivy.types.config import MQTTBrokerConfig

SECONDS_BETWEEN_NUMBERS = 1.0


class Link(threading.Thread):
    """One of them, with as little else as may be."""

    def __init__(self, settings: MQTTBrokerConfig, name: str, end: threading.Event) -> None:
        """Not connected yet."""
        super().__init__(daemon=True)
        self.sent = 0
        self._topic = f"measurements/{name}"
        self._link = MQTTLink(settings, ())
        self._end = end
        self._waiting: list[int] = []
        self._under_way: dict[int, int] = {}

    def run(self) -> None:
        """Send, and send again what was not acknowledged when a connection broke."""
        never, _ = os.pipe()
        due = time.monotonic()
        while not self._end.is_set() or self._waiting or self._under_way:
            for event in self._link.wait(never, 0 if self._link.is_connected and self._waiting else 0.5):
                match event:
                    case Acknowledged(token, code) if token in self._under_way:
                        number = self._under_way.pop(token)
                        self._waiting += [number] if code else []
                    case Connected() | Disconnected():
                        self._waiting = [*self._under_way.values(), *self._waiting]
                        self._under_way = {}
            if time.monotonic() >= due and not self._end.is_set():
                due += SECONDS_BETWEEN_NUMBERS
                self._waiting.append(self.sent)
                self.sent += 1
            while self._link.is_connected and self._waiting:
                number = self._waiting.pop(0)
                self._under_way[self._link.publish(self._topic, str(number).encode())] = number
        self._link.close()


def main() -> None:
    port, user, password, first, count = sys.argv[1:]
    end = threading.Event()
    links = []
    for number in range(int(first), int(first) + int(count)):
        settings = MQTTBrokerConfig(
            host="127.0.0.1", port=int(port), client_id=f"link-{number}", username=user, password=password
        )
        links.append(Link(settings, str(number), end))
    for link in links:
        link.start()
    sys.stdin.readline()
    end.set()
    for link in links:
        link.join()
    print(*[link.sent for link in links])


if __name__ == "__main__":
    main()
