"""To enter a broker: whether it lets this node in, and how a node that it does not know registers by its name.

The latter is ThingsBoard's provisioning. One question each, over a connection of its own; nothing is kept here, and
nothing decided.
"""

import contextlib
import json
import os
import time
from collections.abc import Generator, Iterator
from typing import Literal, NamedTuple

from ivy.backend import reasons
from ivy.backend.mqtt_link import Acknowledged, Connected, Disconnected, Event, MQTTLink, Received, TooLarge
from ivy.types import secrets
from ivy.types.config import MQTTBrokerConfig

SECONDS_TO_ANSWER = 20.0
_USER = "provision"
_REQUESTS, _ANSWERS = "/provision/request", "/provision/response"
_LARGEST_ANSWER = 65_536
_LONGEST_TOKEN = 512
_NAME_REMEDY = (
    "it may have a device of this name already, or none where the profile wants it to be there before. Delete that"
    " device at the platform, or give this node its access token: ivy setup --provider thingsboard --username TOKEN"
)


class Outcome(NamedTuple):
    """What became of a try."""

    kind: Literal["done", "refused", "away"]
    """`refused`: it says no, and will the next time. `away`: nobody answered, so it is to be tried again."""
    text: str
    """Of `done` the access token, or nothing; else why not, and what to do."""


def login(broker: MQTTBrokerConfig, seconds: float = SECONDS_TO_ANSWER) -> Outcome:
    """Try to log in at a broker. Whoever is logged in with the same names is thrown out."""
    with _connection(MQTTLink(broker, ()), seconds) as events:
        for event in events:
            if isinstance(event, Connected):
                return Outcome("done", "")
            if isinstance(event, Disconnected):
                return Outcome("refused" if event.is_unknown else "away", event.reason)
    return _no_answer(broker, seconds)


def register(
    broker: MQTTBrokerConfig, name: str, key: str, secret: str, token: str, seconds: float = SECONDS_TO_ANSWER
) -> Outcome:
    """Register this node as a device of ThingsBoard's.

    Args:
        broker: Where; of its login, only the client's name is used.
        name: The node's, which nobody has there yet.
        key: Of the device profile, and so
        secret: that belongs to it.
        token: With which the node would like to log in. Chosen here, so that an answer that is lost costs nothing:
            whoever has kept the token sees whether it works.
        seconds: How long it may take.

    Returns: When it is done, with the token that the platform says.
    """
    nameless = broker.model_copy(update={"username": _USER, "password": ""})  # which the config would not take
    wish = {"deviceName": name, "provisionDeviceKey": key, "provisionDeviceSecret": secret}
    request = json.dumps({**wish, "credentialsType": "ACCESS_TOKEN", "token": token}).encode()
    link, is_taken = MQTTLink(nameless, (), largest_payload=_LARGEST_ANSWER), False
    with _connection(link, seconds) as events:
        for event in events:
            match event:
                case Connected():
                    link.listen_unanswered(_ANSWERS)
                    link.publish(_REQUESTS, request, is_delivery=False)
                case Acknowledged(code=code, said=said):
                    if reasons.fate(code) is not reasons.Fate.DELIVERED:
                        return Outcome("refused", _no_platform(link, reasons.of_publication(code, said)))
                    is_taken = True
                case Received(topic=topic, payload=payload) if topic == _ANSWERS:
                    return _read(payload, name, link.address)
                case TooLarge(size):
                    return Outcome("away", f"{link.address} answered with {size} bytes; is it ThingsBoard?")
                case Disconnected(reason=reason, is_unknown=True):
                    return Outcome("refused", _no_platform(link, reason))
                case Disconnected(reason=reason):
                    return Outcome("away", reason)
    if is_taken:
        why = f"{link.address} took the request, and did not answer it within {seconds:.0f} s; is it ThingsBoard?"
        return Outcome("away", why)
    return _no_answer(broker, seconds)


@contextlib.contextmanager
def _connection(link: MQTTLink, seconds: float) -> Generator[Iterator[Event], None, None]:
    """What happens over a link, for so long at most."""
    nobody = os.eventfd(0)
    deadline = time.monotonic() + seconds

    def events() -> Iterator[Event]:
        while (rest := deadline - time.monotonic()) > 0:
            yield from link.wait(nobody, rest)

    try:
        yield events()
    finally:
        link.close()
        os.close(nobody)


def _no_answer(broker: MQTTBrokerConfig, seconds: float) -> Outcome:
    return Outcome("away", f"no answer from {broker.host}:{broker.port} within {seconds:.0f} s")


def _no_platform(link: MQTTLink, reason: str) -> str:
    return f"{link.address} lets nobody register: {reason}. Is it ThingsBoard? Other brokers know no provisioning"


def _read(payload: bytes, name: str, address: str) -> Outcome:
    """What the answer means. Nothing of it is believed, and none of its secrets told."""
    try:
        answer = json.loads(payload)
        status = answer.get("status", answer.get("provisionDeviceStatus"))
    except (ValueError, AttributeError, RecursionError):
        return Outcome("away", f"{address} answered something that is not a JSON object; is it ThingsBoard?")
    said = f" ({own})" if (own := reasons.quoted(answer.get("errorMsg"))) else ""
    match status:
        case "SUCCESS":
            return _read_credentials(answer.get("credentialsType"), answer.get("credentialsValue"), address)
        case "NOT_FOUND":
            remedy = "compare both with the device profile, and see that its provisioning is not disabled"
            return Outcome("refused", f"{address} does not know the provision key or its secret{said}: {remedy}")
        case "FAILURE":
            return Outcome("refused", f"{address} does not register {name!r}{said}: {_NAME_REMEDY}")
    return Outcome("away", f"{address} answered without a status that is known; is it ThingsBoard?")


def _read_credentials(kind: object, token: object, address: str) -> Outcome:
    if kind != "ACCESS_TOKEN":
        why = f"{address} registered this node with other credentials than an access token, which it asked for"
        return Outcome("refused", f"{why}; choose that for the device at the platform, and give it: ivy setup")
    if not isinstance(token, str) or not 0 < len(token) <= _LONGEST_TOKEN or not token.isprintable():
        return Outcome("away", f"{address} answered with something that is not an access token")
    if token == secrets.HIDDEN:
        return Outcome("away", f"{address} answered with {secrets.HIDDEN} for an access token")
    return Outcome("done", token)
