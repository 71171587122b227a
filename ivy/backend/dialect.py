"""What a platform's dialect is: pure functions between messages and MQTT payloads. No sockets, no queue."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ivy.types.config import ForeignConfig
from ivy.types.messages import MessageQueueItem

CUT_MARK = "\n[cut]"
"""What stands at the end of a text that was too long."""

CLOCK_KEY = "clock_synchronised"
"""The value that is added to a sample whose time may be wrong, a zero."""

CLOCK_MARK = "[clock not synchronised] "
"""What stands before a log line whose time may be wrong."""

LARGEST_BATCH = 60_000
"""Bytes of a payload into which several messages are packed; below what any platform here accepts."""

_LARGEST_HEADER = 9  # of a PUBLISH: kind, length of all, length of the topic, identifier


@dataclasses.dataclass(frozen=True)
class Publication:
    """One MQTT PUBLISH, and the messages that are delivered when it is acknowledged.

    A message may be in several publications; it is delivered when all of them are acknowledged.
    """

    topic: str
    payload: bytes
    message_ids: tuple[int, ...] = ()
    points: int = 0
    """How many values it carries, where the platform counts them."""

    @property
    def size(self) -> int:
        """Bytes of its packet, at most."""
        return len(self.topic.encode()) + len(self.payload) + _LARGEST_HEADER


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What becomes of messages: each is in one publication, or has no form on the platform, for a reason."""

    publications: list[Publication]
    unsendable: dict[int, str]


class OfferError(ValueError):
    """A config offer that cannot be taken; the text says why, without any value of it: it may hold secrets.

    The revision is that of the offer, where that much can be read.
    """

    def __init__(self, text: str, revision: int | None = None) -> None:
        super().__init__(text)
        self.revision = revision


@dataclasses.dataclass(frozen=True)
class Request:
    """A remote procedure call, and where its answer goes. What cannot be read asks for the method ""."""

    answer_topic: str
    method: str
    params: Any


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the platform lets a node send: rates as pairs of a number and a time in seconds, sizes in bytes."""

    publications: tuple[tuple[int, float], ...] = ()
    points: tuple[tuple[int, float], ...] = ()
    most_in_flight: int | None = None
    largest_publication: int | None = None


Incoming = ForeignConfig | Request | Limits
"""What a platform may want of a node: a `ForeignConfig` is a config offer."""


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How to speak to one platform.

    Attributes:
        provider: What a config calls the platform.
        subscriptions: Topics to subscribe to, with QoS 1, at each connect.
        encode: Turns messages into publications.
        decode: Turns a topic and a payload into what is wanted, or None. Raises `OfferError`.
        greeting: Makes what is published after each connect, without any message.
    """

    provider: str
    subscriptions: tuple[str, ...]
    encode: Callable[[Sequence[MessageQueueItem]], Encoded]
    decode: Callable[[str, bytes], Incoming | None]
    greeting: Callable[[], Sequence[Publication]] = tuple


def pack(
    topic: str, elements: Iterable[tuple[int, str]], points: Mapping[int, int] | None = None
) -> list[Publication]:
    """Pack JSON texts, each with its message's identifier, into as few arrays as fit into `LARGEST_BATCH` bytes.

    A larger one goes alone. `points` are those of each message, where they are counted.
    """
    batches: list[list[tuple[int, str]]] = []
    size = LARGEST_BATCH
    for identifier, text in elements:
        length = len(text.encode()) + len(",")  # or the closing bracket
        if size + length > LARGEST_BATCH:
            batches.append([])
            size = len("[")
        batches[-1].append((identifier, text))
        size += length
    return [_publication(topic, batch, points or {}) for batch in batches]


def _publication(topic: str, batch: list[tuple[int, str]], points: Mapping[int, int]) -> Publication:
    array = "[" + ",".join(text for _, text in batch) + "]"
    message_ids = tuple(identifier for identifier, _ in batch)
    return Publication(topic, array.encode(), message_ids, sum(points.get(each, 0) for each in message_ids))
