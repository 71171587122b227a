"""What the services of a node tell each other through `data/state.json`."""

import datetime

import pydantic

from ivy.types.config import ForeignConfig
from ivy.types.model import Model


class SystemState(Model):
    """What the procedure `system_checks` found last."""

    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)

    last_boot_time: datetime.datetime | None = None
    last_5_min_load: float | None = pydantic.Field(default=None, description="Per cent of all cores.")


class State(Model):
    """Central state of the node. Fields of other versions are kept, so that a rollback loses nothing."""

    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)

    system: SystemState = SystemState()
    pending_configs: list[ForeignConfig] = pydantic.Field(default_factory=list)
