"""The tests' strict stand-in for ThingsBoard, for a person: prints what a node sends, and sends what is typed.

python -m testbed.thingsboard ADDRESS PORT TOKEN, with a Python that has the tests' libraries. Knows one device.
"""

import json
import signal
import sys

from tests.support.recorder import Arrival
from tests.support.thingsboard_server import BAD_CREDENTIALS, GRANTED, ThingsBoardServer

HELP = """\
Type: set NAME JSON      a shared attribute, such as: set configuration {"general": …}
      call METHOD JSON   a remote call, such as: call status null
Ctrl-C ends it."""


class ThingsBoard(ThingsBoardServer):
    """Prints instead of remembering: it may run for weeks."""

    def keep(self, arrival: Arrival) -> None:
        _say(arrival.topic, arrival.payload.decode(errors="backslashreplace"))

    def keep_closing(self, reason: str) -> None:
        _say("closed:", reason)

    def keep_loss(self, reason: str) -> None:
        _say("not stored:", reason)


def _say(*words: str) -> None:
    print(*words, flush=True)


def _obey(server: ThingsBoard, line: str) -> None:
    """Do what a line says, or say what could be said."""
    command, _, rest = line.strip().partition(" ")
    name, _, text = rest.partition(" ")
    try:
        value = json.loads(text or "null")
    except ValueError as error:
        return _say(f"not JSON: {error}")
    if command == "set" and name:
        server.set_attribute(name, value)
    elif command == "call" and name:
        server.call(name, value)
    elif line.strip():
        _say(HELP)


def main() -> None:
    """Serve until Ctrl-C; the end of what is typed ends nothing."""
    address, port, token = sys.argv[1:]

    def login(_id: str, name: str, _password: str) -> int:
        return GRANTED if name == token else BAD_CREDENTIALS

    with ThingsBoard(login, int(port), address=address) as server:
        _say(f"{address}:{server.port}, access token: {token}")
        _say(HELP)
        try:
            for line in sys.stdin:
                _obey(server, line)
            signal.pause()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
