"""What a link to a broker has to tell. Knows neither MQTT's library nor what is sent."""

import dataclasses
from typing import Union


@dataclasses.dataclass(frozen=True)
class Connected:
    """The broker accepted connection and subscriptions."""


@dataclasses.dataclass(frozen=True)
class Disconnected:
    """The connection broke, or could not be made. What was not acknowledged must be published again."""

    reason: str
    seconds_to_next_try: float
    by_broker: bool = False
    """Whether the broker broke an established connection, for no reason that this side knows."""


@dataclasses.dataclass(frozen=True)
class Acknowledged:
    """The broker's PUBACK for what `publish` returned this token for."""

    token: int


@dataclasses.dataclass(frozen=True)
class Received:
    """A publication on a subscribed topic."""

    topic: str
    payload: bytes


Event = Union[Connected, Disconnected, Acknowledged, Received]
