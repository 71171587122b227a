"""What a platform's dialect is: pure functions between messages and MQTT payloads. No sockets, no queue."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ivy.types.config import ForeignConfig
from ivy.types.messages import MessageQueueItem

CLOCK_KEY = "clock_synchronised"
"""The value that is added to a sample whose time may be wrong, a zero."""

CLOCK_MARK = "[clock not synchronised] "
"""What stands before a log line whose time may be wrong."""

LARGEST_BATCH = 60_000
"""Bytes of a payload into which several messages are packed; below what any platform here accepts."""

_LARGEST_HEADER = 13  # of a PUBLISH: kind, length of all, length of the topic, identifier, alias of the topic


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


@dataclasses.dataclass(frozen=True, order=True)
class Remark:
    """What the platform gets otherwise than it was sampled, or not at all: under which key, and why."""

    key: str
    text: str


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What becomes of messages: each is in one publication, or has no form on the platform, for a reason."""

    publications: list[Publication]
    unsendable: dict[int, str]
    remarks: frozenset[Remark] = frozenset()
    """What the operator should know, once, of single values in what is sent."""
    lost: Mapping[int, frozenset[Remark]] = dataclasses.field(default_factory=dict)
    """The same of what is unsendable, by message: why nothing is left of it."""


class OfferError(ValueError):
    """A config offer that cannot be taken; the text says why, without any value of it: it may hold secrets.

    The revision is that of the offer, where that much can be read. The content is what it is known by, where a
    platform wraps the same offer in several ways; else the payload is.
    """

    def __init__(self, text: str, revision: int | None = None, content: bytes = b"") -> None:
        super().__init__(text)
        self.revision = revision
        self.content = content


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
        packages: What a topic and a payload say of update packages, see `update_packages.Said`. Raises nothing.
        most_per_second: Messages of a backlog that are sent in a second, at most, unless the config says so.
    """

    provider: str
    subscriptions: tuple[str, ...]
    encode: Callable[[Sequence[MessageQueueItem]], Encoded]
    decode: Callable[[str, bytes], Incoming | None]
    greeting: Callable[[], Sequence[Publication]] = tuple
    packages: Callable[[str, bytes], Mapping[str, str | None]] = lambda _topic, _payload: {}
    most_per_second: int | None = None


class NoFormError(Exception):
    """Why a platform has no form for a message."""


ElementsOf = Callable[[MessageQueueItem, set[Remark]], list[tuple[str, str, int]]]
"""What a message becomes: topic and JSON text of each element, and its data points, where the platform counts them.
Adds what the operator should know of it; raises `NoFormError`."""


def encode(items: Sequence[MessageQueueItem], elements_of: ElementsOf, topics: Sequence[str]) -> Encoded:
    """Turn messages into arrays of their elements, which are published topic by topic."""
    elements: dict[str, list[tuple[int, str, int]]] = {topic: [] for topic in topics}
    unsendable: dict[int, str] = {}
    remarks: set[Remark] = set()
    lost: dict[int, frozenset[Remark]] = {}
    for item in items:
        own: set[Remark] = set()
        try:
            found = elements_of(item, own)
        except NoFormError as reason:
            unsendable[item.identifier], lost[item.identifier] = str(reason), frozenset(own)
            continue
        remarks |= own
        for topic, text, points in found:
            elements[topic].append((item.identifier, text, points))
    publications = [publication for topic in topics for publication in pack(topic, elements[topic])]
    return Encoded(publications, unsendable, frozenset(remarks), lost)


def pack(topic: str, elements: Iterable[tuple[int, str, int]]) -> list[Publication]:
    """Pack elements into as few arrays as fit into `LARGEST_BATCH` bytes. A larger one goes alone."""
    batches: list[list[tuple[int, str, int]]] = []
    size = LARGEST_BATCH
    for identifier, text, count in elements:
        length = len(text.encode()) + len(",")  # or the closing bracket
        if size + length > LARGEST_BATCH:
            batches.append([])
            size = len("[")
        batches[-1].append((identifier, text, count))
        size += length
    return [_publication(topic, batch) for batch in batches]


def _publication(topic: str, batch: list[tuple[int, str, int]]) -> Publication:
    array = "[" + ",".join(text for _, text, _ in batch) + "]"
    message_ids = tuple(identifier for identifier, _, _ in batch)
    return Publication(topic, array.encode(), message_ids, sum(points for _, _, points in batch))
