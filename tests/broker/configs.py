"""Configs for a broker of this machine."""

from typing import Any

from ivy.types.config import Config
from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.helpers import make_config


def config_for(port: int, **connection: Any) -> Config:
    """That of a node of Tenta."""
    broker = {"host": "127.0.0.1", "port": port, "client_id": SENSOR, "username": SENSOR, "password": PASSWORD}
    return make_config(backend={"provider": "tenta", "mqtt_connection": {**broker, **connection}})
