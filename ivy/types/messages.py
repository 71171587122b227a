"""The messages that procedures and backends exchange through the queue. Not their form at any platform."""

import math
from typing import Annotated, Any, Literal

import pydantic

from ivy.types import secrets
from ivy.types.config import Config, ForeignConfig, LogLevel
from ivy.types.model import Model

RESERVED_KEYS = frozenset({"logging", "configuration"})
"""Keys of data that mean something else to a backend."""

_MOST_BITS = 14_000


def _without_surrogates(text: str) -> str:
    """What a sensor says in no known encoding must not end its procedure: JSON and UTF-8 cannot carry it."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _readable(number: int) -> float | int:
    """Nobody reads an integer of more than 4300 digits: what was made of noise is infinite, and costs no sample."""
    if number.bit_length() <= _MOST_BITS:
        return number
    return math.inf if number > 0 else -math.inf


Text = Annotated[str, pydantic.AfterValidator(_without_surrogates)]
Integer = Annotated[int, pydantic.AfterValidator(_readable)]


def _reject_reserved_keys(data: dict[str, float | int | str]) -> dict[str, float | int | str]:
    if not RESERVED_KEYS.isdisjoint(data):
        raise ValueError(f"reserved keys: {', '.join(sorted(RESERVED_KEYS & data.keys()))}; use another name")
    return data


class _Body(Model):
    """What all messages have in common."""

    clock_synchronised: bool = pydantic.Field(
        default=True, description="False: the timestamp may be wrong. Stands in the JSON only then."
    )

    @pydantic.model_serializer(mode="wrap")
    def _leave_out_what_is_normal(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        if not fields.pop("clock_synchronised", True):
            fields["clock_synchronised"] = False  # last: the beginning tells the variant
        return fields

    # Infinity and NaN are samples too: kept in queue and archive, whatever a platform makes of them.
    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")


class DataMessageBody(_Body):
    """The body of a data message: one sample of any number of quantities."""

    variant: Literal["data"] = "data"
    data: Annotated[dict[Text, float | Integer | Text], pydantic.AfterValidator(_reject_reserved_keys)]


class LogMessageBody(_Body):
    """The body of a log message: what the operator should read."""

    variant: Literal["log"] = "log"
    level: LogLevel
    subject: Text
    body: Text


class ConfigMessageBody(_Body):
    """The body of a config message: what became of a config. Carries no secrets, whatever it is made from."""

    variant: Literal["config"] = "config"
    status: Literal["received", "accepted", "rejected", "startup"]
    config: ForeignConfig

    @pydantic.field_validator("config")
    @classmethod
    def _remove_secrets(cls, config: ForeignConfig) -> ForeignConfig:
        return ForeignConfig.model_validate(secrets.hide(config.model_dump(mode="json"), Config))


MessageBody = Annotated[
    DataMessageBody | LogMessageBody | ConfigMessageBody, pydantic.Field(discriminator="variant")
]


class MessageArchiveItem(Model):
    """A message as it stands in the archive."""

    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")

    timestamp: float = pydantic.Field(description="Unix time of the sampling, in seconds.")
    message_body: MessageBody


class MessageQueueItem(MessageArchiveItem):
    """A message as it stands in the queue."""

    identifier: int = pydantic.Field(description="The row's number, unique while it is in the queue.")
