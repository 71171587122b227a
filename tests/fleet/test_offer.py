"""The playbook `offer`: one config for each node, of its device profile's template and its shared attributes."""

import re
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from ivy.types.config import Config
from tests.fleet.desk import Desk
from tests.support.helpers import CONFIG
from tests.support.releases import PROJECT
from tests.support.thingsboard_rest import PASSWORD, USER, ThingsBoardRest


@pytest.fixture
def platform() -> Generator[ThingsBoardRest, None, None]:
    with closing(ThingsBoardRest()) as platform:
        platform.add("roof-1", "roof", seconds_between_checks=7, megabytes="150")
        platform.add("roof-2", "roof")
        yield platform


@pytest.fixture
def desk(tmp_path: Path) -> Generator[Desk, None, None]:
    """One that knows two nodes, of which neither can be reached, and has the template that the README shows."""
    with closing(Desk(tmp_path, forks=2)) as desk:
        desk.install_collection()
        nodes = {"roof-1": "192.0.2.1", "roof-2": "192.0.2.2"}
        desk.write_inventory(nodes, ["roof-1"], {}, {"vault_platform_password": PASSWORD})
        guide = (PROJECT / "packaging" / "ansible" / "README.md").read_text()
        [shown] = [
            block for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "ivy_templates" in block
        ]
        (tmp_path / "group_vars" / "all" / "platform.yml").write_text(shown.replace("operator@example.org", USER))
        yield desk


def offered(platform: ThingsBoardRest, name: str) -> Config:
    """What a node would get, but for procedures that only the README has."""
    content = platform.shared[name]["configuration"]
    return Config.model_validate({**CONFIG, **{key: content[key] for key in content if key in Config.model_fields}})


def test_a_template_becomes_a_config_for_each_node(desk: Desk, platform: ThingsBoardRest) -> None:
    # What would be is looked at first, and changes nothing.
    desk.play("offer", "--check", ivy_platform_url=platform.url).succeeded()
    assert "configuration" not in platform.shared["roof-1"]
    said = desk.play("offer", "-vvv", ivy_platform_url=platform.url).succeeded().output
    assert platform.token not in said and PASSWORD not in said
    one, two = offered(platform, "roof-1"), offered(platform, "roof-2")
    assert (one.general.system_identifier, two.general.system_identifier) == ("roof-1", "roof-2")
    assert (one.queue.max_megabytes, two.queue.max_megabytes) == (150, 2000)
    assert one.system_checks.seconds_between_checks == 7
    assert one.general.config_revision == two.general.config_revision == 0
    assert one.backend is not None and one.backend.mqtt_connection.client_id == "roof-1"
    assert one.backend.mqtt_connection.username == "***"

    # What is offered already is left alone; an attribute that was changed is a new offer for this one node.
    platform.shared["roof-1"]["megabytes"] = 9
    desk.play("offer", ivy_platform_url=platform.url).succeeded()
    one = offered(platform, "roof-1")
    assert (one.queue.max_megabytes, one.general.config_revision) == (9, 1)
    assert offered(platform, "roof-2") == two

    # What is missing at the platform, or at the desk, is named.
    del platform.profiles["roof-1"]
    platform.profiles["roof-2"] = "cellar"
    play = desk.play("offer", ivy_platform_url=platform.url)
    assert play.status != 0
    assert "The platform has no device roof-1" in play.output
    assert "ivy_templates has none for its device profile, cellar" in play.output
    assert offered(platform, "roof-2") == two
