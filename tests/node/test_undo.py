"""Updates that are not good are undone: the operator reads why, and what ran before goes on sampling."""

import re
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from testbed.bed import Bed, Snapshot
from testbed.package_index import PackageIndex

from tests.node import own_disk
from tests.node.flaws import DUMMY, FLAWS
from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.cases import with_few
from tests.support.installed import read_config, unit_property
from tests.support.releases import append, edits, write
from tests.support.sampling import let_edit
from tests.support.update_site import AT_ONCE, DECISION_SECONDS, MARKED, UpdateSite, with_tenta

RELEASES = "/var/lib/ivy"
DISK_MEGABYTES = 500
LEAST_FREE = 100_000_000  # bytes that an update must find


@pytest.fixture(scope="module")
def site(
    bed: Bed, installed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[UpdateSite, None, None]:
    """A node that runs a release from over the air, on a disk of its own. All tests here share it."""
    directory = tmp_path_factory.mktemp("undo")
    node = bed.node("undone", base=installed)
    own_disk.insert(node, RELEASES, DISK_MEGABYTES)
    node.boot()
    with closing(with_tenta(bed, node, directory)) as site:
        site.connect(queue={"min_free_megabytes": 1})
        site.release("9.1.0", edits(MARKED, AT_ONCE))
        site.accepts("9.1.0")
        yield site
    node.destroy()


@pytest.fixture(scope="module")
def index(
    bed: Bed, site: UpdateSite, tmp_path_factory: pytest.TempPathFactory
) -> Generator[PackageIndex, None, None]:
    index = PackageIndex(bed.address, tmp_path_factory.mktemp("index"))
    index.let_use(site.node)
    yield index
    index.close()


def rejects(site: UpdateSite, *words: str, version: str | None = None, **sections: Any) -> None:
    """Offer what is not good, and see that all is as before, and that the reason holds some words."""
    active = read_config(site.node)["general"]["config_revision"]
    reason = site.rejects(version, **sections)
    print(reason)
    assert [word for word in words if word not in reason] == [], reason
    site.wait_for_samples(active)


def mqtt_connection(site: UpdateSite, **changes: Any) -> dict[str, Any]:
    """As it is, with its secrets: those of a node are for the broker that it knows."""
    connection: dict[str, Any] = read_config(site.node)["backend"]["mqtt_connection"]
    return {"mqtt_connection": connection | {"username": SENSOR, "password": PASSWORD} | changes}


def test_a_config_with_a_wrong_broker_address(site: UpdateSite) -> None:
    backend = mqtt_connection(site, port=1884)
    rejects(site, "there is no connection", f"{site.platform.address}:1884", "refused", backend=backend)


def test_a_config_that_is_invalid(site: UpdateSite) -> None:
    wrong = {"seconds_between_datapoints": "often"}
    rejects(site, "was rejected: dummy_procedure.seconds_between_datapoints: ", dummy_procedure=wrong)


@pytest.mark.thorough
def test_a_config_that_only_the_backend_finds_wrong(site: UpdateSite) -> None:
    words = ("ivy-tenta.service failed", "general.system_identifier: ", "must not contain")
    rejects(site, *words, general={"system_identifier": "n1/#"})


@pytest.mark.parametrize("name", with_few(FLAWS))
def test_a_release_with(site: UpdateSite, name: str) -> None:
    version = f"2.{list(FLAWS).index(name)}.0"
    site.release(version, edits(MARKED, FLAWS[name].edit))
    rejects(site, *(word.format(version=version) for word in FLAWS[name].words), version=version)


def test_tags(site: UpdateSite) -> None:
    site.release("3.0.0", signer=None)
    rejects(site, "the tag v3.0.0 is not signed", version="3.0.0")
    site.release("3.1.0", signer=site.foreign)
    rejects(site, "the tag v3.1.0 is signed by nobody who may", version="3.1.0")
    site.release("3.2.0")
    site.maker.forge_tag("3.2.0")
    rejects(site, "the tag v3.2.0", "incorrect signature", version="3.2.0")


@pytest.mark.thorough
def test_a_tag_that_is_pushed_after_its_offer(site: UpdateSite) -> None:
    revision = site.offer("3.3.0")
    said = site.wait_for_log("Cannot fetch the source of version 3.3.0", timeout=DECISION_SECONDS)
    assert "v3.3.0 of https://github.com/university/ivy.git: there is no such tag" in said
    site.release("3.3.0", MARKED)
    assert site.decision(revision), site.reason(revision)
    site.wait_for_samples(revision)


@pytest.mark.thorough
def test_dependencies(site: UpdateSite, index: PackageIndex) -> None:
    line = index.add("sunshine", {"sunshine.py": "HOURS = 8\n"})
    needs = edits(MARKED, append(DUMMY, "\nimport sunshine\n\nassert sunshine.HOURS == 8\n"))
    site.release("4.0.0", edits(needs, write("requirements.lock", re.sub("sha256:.*", f"sha256:{'0' * 64}", line))))
    rejects(site, "its dependencies cannot be installed", "sunshine", "0000", version="4.0.0")
    site.release("4.1.0", edits(needs, write("requirements.lock", line.replace("sunshine", "moonshine"))))
    rejects(site, "its dependencies cannot be installed", "moonshine", version="4.1.0")
    site.release("4.2.0", edits(needs, write("requirements.lock", line.split()[0] + "\n")))
    rejects(site, "its dependencies cannot be installed", "Hashes are required", version="4.2.0")
    site.release("4.3.0", edits(needs, write("requirements.lock", line)))
    site.accepts("4.3.0")  # after all that, the next good one


def _need_a_group(tree: Path) -> None:
    project = tree / "pyproject.toml"
    needy, count = re.subn(r"(?m)^groups = \[.*\]$", 'groups = ["of-a-sensor"]', project.read_text())
    assert count == 1
    project.write_text(needy)


@pytest.mark.thorough
def test_what_a_node_lacks_of_debian_is_waited_for(site: UpdateSite) -> None:
    site.release("4.4.0", edits(MARKED, _need_a_group))
    revision = site.offer("4.4.0")
    said = "missing: the group of-a-sensor; play provision"
    site.wait_for_log(
        "This node lacks what it needs for the source of version 4.4.0", said, timeout=DECISION_SECONDS
    )
    site.node.run(["groupadd", "--system", "of-a-sensor"])
    assert site.decision(revision), site.reason(revision)
    site.wait_for_samples(revision)


def test_a_full_disk(site: UpdateSite, index: PackageIndex) -> None:
    """What does not fit waits for room, whether that is known before or found out on the way."""
    line = index.add("ballast", {"ballast.bin": 2 * LEAST_FREE})
    site.release("5.0.0", edits(MARKED, write("requirements.lock", line)))
    directory = site.node.path(RELEASES)
    lack = "This node lacks what it needs for the source of version 5.0.0"
    with own_disk.filled(directory, free=LEAST_FREE // 2):
        waiting = site.offer("5.0.0")
        site.wait_for_log(lack, "no space left for a version", "100 are needed", timeout=DECISION_SECONDS)
        site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
        assert "superseded by" in site.reason(waiting)
    with own_disk.filled(directory, free=LEAST_FREE * 3 // 2):
        waiting = site.offer("5.0.0", dummy_procedure={"seconds_between_datapoints": 1})
        site.wait_for_log(lack, "No space left on device", timeout=DECISION_SECONDS)
        site.node.wait_for(lambda: not list(directory.glob(".*.new")), 60, "what was begun to be removed")
    assert site.decision(waiting), site.reason(waiting)
    site.wait_for_samples(waiting)


@pytest.mark.thorough
def test_the_source_is_away_for_a_while_and_the_newest_offer_wins(site: UpdateSite) -> None:
    for version in ("6.0.0", "6.1.0"):
        site.release(version, MARKED)
    site.git.stop()
    first = site.offer("6.0.0")
    wait_until_waiting(site, "6.0.0")
    second, third = site.offer("6.0.0"), site.offer(dummy_procedure={"seconds_between_datapoints": 2})
    assert site.decision(third), site.reason(third)
    assert [site.decision(first), site.decision(second)] == [False, False]
    for replaced in (first, second):
        assert f"superseded by revision {third}" in site.reason(replaced)
    site.wait_for_samples(third)
    fourth = site.offer("6.1.0", dummy_procedure={"seconds_between_datapoints": 1})
    wait_until_waiting(site, "6.1.0")
    site.git.start()
    assert site.decision(fourth), site.reason(fourth)
    site.wait_for_samples(fourth)


def wait_until_waiting(site: UpdateSite, version: str) -> None:
    def is_waiting() -> bool:
        return unit_property(site.node, "ivy-updater", "StatusText").startswith(
            f"waiting for the source of version {version}"
        )

    site.node.wait_for(is_waiting, 30, "the updater to wait for the source")


@pytest.mark.thorough
def test_a_release_whose_updater_broke_later(site: UpdateSite) -> None:
    version, _ = site.running()
    release = let_edit(site.node, f"{RELEASES}/{version}")  # as nobody knows how it should be
    (release / "ivy" / "utils" / "updater.py").unlink()
    site.release("8.0.0", MARKED)
    site.accepts("8.0.0")
    assert "making the pass with that of the package" in site.node.journal("--unit=ivy-rollback")


@pytest.mark.thorough
def test_what_was_decided_is_not_tried_again(site: UpdateSite) -> None:
    site.release("9.0.0", signer=None)
    rejects(site, "the tag v9.0.0 is not signed", version="9.0.0")
    site.node.cut()
    site.node.boot()
    site.platform.restart()
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})  # decided about after all before it
    site.check_each_was_decided_once()
