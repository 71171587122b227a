"""What the updater remembers across reboots, in `<ivy_root>/updates.json`. Pending offers are in the `state`."""

import zlib
from typing import Literal, Optional

import pydantic

from ivy.types.config import ForeignConfig, as_text

_KEPT_DECISIONS = 50

Source = Literal["backend", "admin", "rollback"]
"""Where an offer comes from: the last is the admin's, too, but says nothing about revisions."""


def identifier_of(offer: ForeignConfig) -> str:
    """What an offer of the backend is known by: by its content, too, as a platform may begin to count anew."""
    return f"revision-{offer.general.config_revision}-{zlib.crc32(as_text(offer).encode()):08x}"


class Trial(pydantic.BaseModel):
    """An offer that is put to the test, from just before its activation until the verdict is carried out."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    identifier: str = pydantic.Field(description="Of the offer, unique on this node.")
    offer: ForeignConfig
    source: Source
    digest: str = pydantic.Field(description="SHA-256 of the config file that is on trial, in hexadecimal.")
    link_was_down: bool = pydantic.Field(description="Whether there was no connection before the activation.")
    seconds_of_probation: int = pydantic.Field(default=30, description="How long all services must run well.")
    max_seconds_of_probation: int = pydantic.Field(default=300, description="How long that may take.")
    interruptions: int = pydantic.Field(default=0, description="How often it began anew, e.g. after a power cut.")
    failure: Optional[str] = pydantic.Field(default=None, description="Why it is to be undone, once that is known.")


class Decision(pydantic.BaseModel):
    """What became of an offer."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    identifier: str
    offer: ForeignConfig = pydantic.Field(description="Whole until it was reported, then only its `general`.")
    accepted: bool
    reason: str = pydantic.Field(default="", description="Why not.")
    time: float = pydantic.Field(description="Unix time in seconds.")
    reported: bool = pydantic.Field(default=False, description="Whether the operator's message is in the queue.")


class History(pydantic.BaseModel):
    """The past of a node's updates, and the one that is under way."""

    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)

    decided_revision: int = pydantic.Field(default=-1, description="A backend's offer must have a higher one.")
    trial: Optional[Trial] = None
    decisions: list[Decision] = pydantic.Field(default=[], description="The newest of them, the oldest first.")
    last_good: Optional[ForeignConfig] = pydantic.Field(
        default=None, description="The config, and so the version, before the last accepted change."
    )

    def find(self, identifier: str) -> Optional[Decision]:
        """The decision about an offer, if there was one."""
        return next((decision for decision in self.decisions if decision.identifier == identifier), None)

    def is_decided(self, offer: ForeignConfig) -> bool:
        """Whether an offer of the backend, or a newer one, was decided about."""
        return offer.general.config_revision <= self.decided_revision or self.find(identifier_of(offer)) is not None

    def add(self, decision: Decision) -> None:
        """Remember a decision; the oldest are forgotten."""
        self.decisions = [*self.decisions, decision][-_KEPT_DECISIONS:]
