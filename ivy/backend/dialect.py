"""What a platform's dialect is: pure functions between messages and MQTT payloads. No sockets, no queue."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Optional

from ivy.types.config import ForeignConfig
from ivy.types.messages import MessageQueueItem

LARGEST_BATCH = 60_000
"""Bytes of a payload into which several messages are packed; below what any platform here accepts."""


@dataclasses.dataclass(frozen=True)
class Publication:
    """One MQTT PUBLISH, and the messages that are delivered when it is acknowledged."""

    topic: str
    payload: bytes
    message_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What becomes of messages: each is in one publication, or has no form on the platform, for a reason."""

    publications: list[Publication]
    unsendable: dict[int, str]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How to speak to one platform.

    Attributes:
        subscriptions: Topics to subscribe to, with QoS 1, at each connect.
        encode: Turns messages into publications.
        decode: Turns a topic and a payload into the config that it offers, or None if it offers none. Raises
            `ValueError`, whose text says what is wrong with it.
    """

    subscriptions: tuple[str, ...]
    encode: Callable[[Sequence[MessageQueueItem]], Encoded]
    decode: Callable[[str, bytes], Optional[ForeignConfig]]


def pack(topic: str, elements: Iterable[tuple[int, str]]) -> list[Publication]:
    """Pack JSON elements into as few arrays as fit into `LARGEST_BATCH` bytes each.

    Args:
        topic: Where they go.
        elements: The message's identifier and its JSON text, each. A larger one goes alone.
    """
    publications: list[Publication] = []
    batch: list[tuple[int, str]] = []
    size = len("[")
    for identifier, text in elements:
        length = len(text.encode()) + len(",")  # or the closing bracket
        if batch and size + length > LARGEST_BATCH:
            publications.append(_publication(topic, batch))
            batch, size = [], len("[")
        batch.append((identifier, text))
        size += length
    return [*publications, _publication(topic, batch)] if batch else publications


def _publication(topic: str, batch: list[tuple[int, str]]) -> Publication:
    array = "[" + ",".join(text for _, text in batch) + "]"
    return Publication(topic, array.encode(), tuple(identifier for identifier, _ in batch))
