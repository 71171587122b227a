"""What the services of a node tell each other: procedures in `data/state.json`, backends in a file of their own."""

import datetime
from typing import Any

import pydantic

from ivy.types.config import ForeignConfig
from ivy.types.model import Model
from ivy.types.updates import Package, Superseded


class SystemState(Model):
    """What the procedure `system_checks` found last."""

    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)

    last_boot_time: datetime.datetime | None = None
    last_5_min_load: float | None = pydantic.Field(default=None, description="Per cent of all cores.")


class LinkState(Model):
    """How long the connection of the config has been away."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    destination: dict[str, Any] | None = pydantic.Field(default=None, description="Which connection.")
    seconds_without: float = pydantic.Field(default=0, ge=0, le=1e10)


class BackendState(Model):
    """What backends know, as it is stored: where no procedure can write."""

    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)

    link: LinkState = LinkState()
    pending_configs: list[ForeignConfig] = pydantic.Field(default_factory=list)
    superseded: list[Superseded] = pydantic.Field(
        default=[], description="Offers that the pending one replaced, and that are not answered yet."
    )
    packages: list[Package] = pydantic.Field(
        default=[], description="Update packages that wait for their decision, one of each kind; the newest last."
    )
    assigned: dict[str, str] = pydantic.Field(
        default={}, description="A digest of the assignment of each kind that was seen last, whatever it was."
    )
    refused: list[str] = pydantic.Field(
        default=[], description="Digests of offers that could not be read, and were answered; the newest last."
    )


class State(Model):
    """Central state of the node. Fields of other versions are kept, so that a rollback loses nothing."""

    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)

    system: SystemState = SystemState()
    procedures: dict[str, dict[str, Any]] = pydantic.Field(
        default_factory=dict,
        description="What procedures tell each other, or a later run of theirs; by their names.",
    )
    pending_configs: list[ForeignConfig] = pydantic.Field(default_factory=list)
