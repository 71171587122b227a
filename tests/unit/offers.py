"""Configs as they are offered."""

from typing import Any

from ivy.types.config import ForeignConfig
from ivy.types.updates import Offer, Source
from tests.support.helpers import CONFIG


def foreign(revision: int = 4, version: str = "1.0.0", **sections: Any) -> ForeignConfig:
    """A config as it is offered."""
    general = {**CONFIG["general"], "config_revision": revision, "software_version": version}
    return ForeignConfig.model_validate({**CONFIG, "general": general, **sections})


def offer(revision: int, source: Source = "backend") -> Offer:
    """An offer, with a secret in it."""
    config = foreign(revision, backend={"password": "hidden-password"})
    if source == "backend":
        return Offer.of_backend(config)
    return Offer(identifier=f"{source}-1", config=config, source=source)
