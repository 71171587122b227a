"""What the updater remembers across reboots, in `<ivy_root>/updates.json`. Pending offers are in the `state`."""

import zlib
from typing import Literal

import pydantic

from ivy.types.config import ForeignConfig, as_text
from ivy.types.model import Model
from ivy.version import Version

_KEPT_DECISIONS = 50

Source = Literal["backend", "admin", "rollback"]
"""Where an offer comes from: the last is the admin's, too, but says nothing about revisions."""


class Offer(Model):
    """A config that somebody wants this node to use: pending, on trial, and decided about, it is this record.

    On disk it has the names that releases of version 1.0.0 know, which may run again after a rollback.
    """

    model_config = pydantic.ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    identifier: str = pydantic.Field(description="Unique on this node.")
    config: ForeignConfig = pydantic.Field(
        validation_alias="offer",
        serialization_alias="offer",
        description="Whole until the decision was reported, then only its `general`.",
    )
    source: Source = "backend"

    # The trial: from just before the activation until the decision is carried out.
    digest: str = pydantic.Field(default="", description="SHA-256 of the config file on trial, in hexadecimal.")
    link_was_down: bool = pydantic.Field(default=False, description="Whether there was no connection before.")
    seconds_of_probation: int = pydantic.Field(default=30, description="How long all services must run well.")
    max_seconds_of_probation: int = pydantic.Field(default=300, description="How long that may take.")
    interruptions: int = pydantic.Field(default=0, description="How often it began again, e.g. after a power cut.")
    failure: str | None = pydantic.Field(default=None, description="Why it is to be undone, once that is known.")

    # The decision.
    accepted: bool | None = pydantic.Field(default=None, description="null until it is decided.")
    reason: str = pydantic.Field(default="", description="Why not.")
    time: float = pydantic.Field(default=0, description="Of the decision: Unix time in seconds.")
    reported: bool = pydantic.Field(default=False, description="Whether the operator's message is in the queue.")

    @classmethod
    def of_backend(cls, config: ForeignConfig) -> "Offer":
        """What a backend offers: known by its content, too, as a platform may begin to count again."""
        number = f"{config.general.config_revision}-{zlib.crc32(as_text(config).encode()):08x}"
        return cls(identifier=f"revision-{number}", config=config)

    @property
    def revision(self) -> int:
        """The number of the config."""
        return self.config.general.config_revision

    @property
    def version(self) -> Version:
        """The version that the config is for."""
        return self.config.general.software_version


class History(Model):
    """The past of a node's updates, and the one that is under way."""

    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)

    decided_revision: int = pydantic.Field(default=-1, description="A backend's offer must have a higher one.")
    trial: Offer | None = None
    decisions: list[Offer] = pydantic.Field(default=[], description="The newest of them, the oldest first.")
    last_good: ForeignConfig | None = pydantic.Field(
        default=None, description="The config, and so the version, before the last accepted change."
    )

    def find(self, identifier: str) -> Offer | None:
        """The offer of this name, if it was decided about."""
        return next((offer for offer in self.decisions if offer.identifier == identifier), None)

    def is_decided(self, config: ForeignConfig) -> bool:
        """Whether an offer of the backend, or a newer one, was decided about."""
        offer = Offer.of_backend(config)
        return offer.revision <= self.decided_revision or self.find(offer.identifier) is not None

    def add(self, offer: Offer) -> None:
        """Remember a decision; the oldest are forgotten."""
        self.decisions = [*self.decisions, offer][-_KEPT_DECISIONS:]
