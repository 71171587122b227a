"""Updates over the air, of config and of software, by a backend and by hand: accepted if good, undone if not."""

from collections.abc import Generator
from pathlib import Path

import pytest
from testbed.bed import Bed, Node
from testbed.broker import Broker

from tests.node.recorder import Recorder
from tests.node.update_site import UpdateSite


@pytest.fixture
def site(
    bed: Bed, node: Node, broker: Broker, recorder: Recorder, tmp_path: Path
) -> Generator[UpdateSite, None, None]:
    site = UpdateSite(bed, node, broker, recorder, tmp_path)
    site.connect()
    yield site
    site.close()


def test_versions_come_and_go(site: UpdateSite) -> None:
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
    site.release("1.1.0")
    site.accepts("1.1.0")
    assert site.running()[0] == "1.1.0"
