"""What a node lacks is no fault of an offer: room in /tmp, and room in /run for systemd to reload."""

from collections.abc import Generator
from contextlib import closing, contextmanager

import pytest
from testbed.bed import Bed, Node, Snapshot

from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.cases import with_few
from tests.support.installed import read_config
from tests.support.releases import edits
from tests.support.update_site import AT_ONCE, MARKED, UpdateSite, with_tenta

REFUSED = "not enough space available on /run/systemd"
FLAG = "/run/ivy-updater/reload-refused"
LEAST_TO_RELOAD = 16 << 20  # systemd's


@pytest.fixture(scope="module")
def site(
    bed: Bed, installed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[UpdateSite, None, None]:
    """A node that runs a release from over the air. All tests here share it."""
    node = bed.node("lacking", base=installed)
    node.boot()
    with closing(with_tenta(bed, node, tmp_path_factory.mktemp("lacking"))) as site:
        site.connect()
        site.release("9.1.0", edits(MARKED, AT_ONCE))
        site.accepts("9.1.0")
        yield site
    node.destroy()


@contextmanager
def small_tmp(node: Node, options: str) -> Generator[None, None, None]:
    """A /tmp that is full at once."""
    node.run(["mount", "-t", "tmpfs", "-o", options, "none", "/tmp"])
    try:
        node.run(["sh", "-c", "cat /dev/zero >/tmp/filler"], check=False)
        yield
    finally:
        node.run(["umount", "--lazy", "/tmp"])


@contextmanager
def full_run(node: Node) -> Generator[None, None, None]:
    """Too little room in /run for systemd to reload: 20 MB, 8 of which are taken."""
    node.run(["mount", "-o", "remount,size=20M", "/run"])
    node.run(["fallocate", "--length=8M", "/run/filler"])
    try:
        free = node.run(["stat", "--file-system", "--format=%f %S", "/run"]).stdout.split()
        assert int(free[0]) * int(free[1]) < LEAST_TO_RELOAD
        yield
    finally:
        node.run(["rm", "/run/filler"])
        node.run(["mount", "-o", "remount,size=64M", "/run"])


def wait_for_reload(site: UpdateSite) -> None:
    """As soon as there is room, a pass of the updater sees to it."""
    flag = site.node.path(FLAG)
    site.node.wait_for(lambda: not flag.exists(), 360, "systemd to be reloaded")


def count_trials(site: UpdateSite) -> int:
    """How many have begun: what is on trial is known to systemd then."""
    return site.node.journal("--unit=ivy-updater").count("On probation: ")


@pytest.mark.parametrize(
    ("version", "options"), with_few([("9.2.0", "size=64k"), ("9.3.0", "nr_inodes=1")]), ids=["room", "inodes"]
)
def test_a_tmp_without(site: UpdateSite, version: str, options: str) -> None:
    site.release(version, MARKED)
    with small_tmp(site.node, options):
        site.accepts(version)
        site.node.run(["systemctl", "restart", "ivy-system-checks", "ivy-owners"])
        site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
        site.accepts(dummy_procedure={"seconds_between_datapoints": 1})


@pytest.mark.thorough
def test_a_change_for_which_systemd_cannot_reload(site: UpdateSite) -> None:
    active = read_config(site.node)["general"]["config_revision"]
    with full_run(site.node):
        reason = site.rejects(dummy_procedure={"seconds_between_datapoints": 2})
        print(reason)
        assert REFUSED in reason
        site.wait_for_samples(active)
        doctor = site.node.run(["ivy", "doctor"], check=False).stdout
        [line] = [line for line in doctor.splitlines() if line.startswith("BAD  run ")]
        assert "systemd does not reload" in line
        by_hand = site.apply(site.config(dummy_procedure={"seconds_between_datapoints": 2}), status=1)
        assert REFUSED in by_hand
    wait_for_reload(site)
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
    site.accepts(dummy_procedure={"seconds_between_datapoints": 1})


@pytest.mark.thorough
def test_a_change_that_is_undone_while_systemd_cannot_reload(site: UpdateSite) -> None:
    """What runs afterwards is what the history says."""
    active = read_config(site.node)["general"]["config_revision"]
    connection = read_config(site.node)["backend"]["mqtt_connection"]
    wrong = connection | {"username": SENSOR, "password": PASSWORD, "port": 1884}
    before, trials = site.running(), count_trials(site)
    revision = site.offer(backend={"mqtt_connection": wrong})
    site.node.wait_for(lambda: count_trials(site) > trials, 60, "what is offered to be activated")
    with full_run(site.node):
        assert not site.decision(revision)
        assert "there is no connection" in site.reason(revision)
        assert site.running() == before
        site.wait_for_samples(active)
        assert site.node.path(FLAG).exists()
    wait_for_reload(site)
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
