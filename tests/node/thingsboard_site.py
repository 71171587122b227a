"""A node that is updated over the air by ThingsBoard."""

from pathlib import Path
from typing import Any

from testbed.bed import Bed, Node

from tests.broker.platforms import ThingsBoardPlatform
from tests.node.update_site import Site


class ThingsBoardSite(Site):
    """With the stand-in for ThingsBoard."""

    provider = "thingsboard"

    def __init__(self, bed: Bed, node: Node, directory: Path) -> None:
        super().__init__(bed, node, directory)
        self.platform = ThingsBoardPlatform(bed.address, "n1")

    def close(self) -> None:
        self.platform.close()
        super().close()

    def address(self) -> tuple[str, int]:
        return self.platform.address, self.platform.port

    def publish(self, revision: int, config: dict[str, Any]) -> None:
        self.platform.offer(config, revision)

    def verdicts(self) -> list[tuple[bool, int]]:
        return self.platform.verdicts()

    def logs(self) -> list[str]:
        return self.platform.logs()

    def samples(self) -> list[tuple[float, dict[str, Any]]]:
        return self.platform.samples()
