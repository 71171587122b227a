"""Chapter "A fleet"."""

import re

from tests.readme.desk import Desk
from tests.readme.fleet import NAMES, FleetDesk
from tests.readme.site import FLEET, Site
from tests.support.releases import THIS


def test_bare_nodes_sample_and_deliver(fleet: FleetDesk, site: Site) -> None:
    fleet.provisioned()
    for name in NAMES:
        site.wait_until_well(site.nodes[name])


def test_playing_it_again_changes_nothing(fleet: FleetDesk) -> None:
    printed = fleet.play("provision", " --check --diff")
    assert set(re.findall(r"changed=(\d+)", printed)) == {"0"}


def test_a_table_tells_how_all_are(fleet: FleetDesk) -> None:
    assert THIS in fleet.play("status")


def test_all_take_the_release(fleet: FleetDesk, site: Site) -> None:
    for name in NAMES:
        site.connect_sensor(site.nodes[name])
    fleet.play("update")
    for name, identifier in zip(NAMES, FLEET, strict=True):
        assert site.nodes[name].path("/var/lib/ivy/current", follow=False).readlink().name == "1.2.0"
        site.wait_for_sample(identifier, "temperature_celsius")


def test_archives_are_collected(fleet: FleetDesk, desk: Desk) -> None:
    fleet.play("collect")
    for name in NAMES:
        assert list((desk.home / "archive" / name).glob("*.csv"))
