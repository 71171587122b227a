"""Config offers as Tenta sends them."""

import json
from typing import Any

from tests.support.backend_node import SENSOR

TOPIC = f"configurations/{SENSOR}"


def offer(revision: int, **more: Any) -> str:
    """An offer as Tenta sends it."""
    configuration = {"general": {"software_version": "1.0.1", "system_identifier": SENSOR}, **more}
    return json.dumps({"revision": revision, "configuration": configuration})
