"""A Debian package is judged like what comes over the air: on probation, undone if it is not well, told to all."""

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from testbed.bed import Bed, Snapshot
from testbed.run import PATIENCE

from tests.node.flaws import FLAWS
from tests.support.installed import unit_property
from tests.support.packages import repacked
from tests.support.releases import THIS, Edit
from tests.support.update_site import UpdateSite, with_tenta

OLDER, GOOD, BAD, NEXT, OVER_THE_AIR = "9.4.0", "9.5.0", "9.6.0", "9.7.0", "10.0.0"
SECONDS_TO_DECIDE = PATIENCE * 120
NOT_DECIDED = 75
CRASHES = FLAWS["a procedure that crashes at start"]


@pytest.fixture(scope="module")
def site(
    bed: Bed, installed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[UpdateSite, None, None]:
    """A node on which ivy is installed. All tests here share it, in their order."""
    node = bed.node("packaged", base=installed)
    node.boot()
    with closing(with_tenta(bed, node, tmp_path_factory.mktemp("packaged"))) as site:
        site.connect()
        site.wait_for_samples()
        yield site
    node.destroy()


def install(site: UpdateSite, package: Path, version: str, edit: Edit = lambda _: None) -> str:
    """Have apt install the package under test, as one of another version and with changes. Returns all it said."""
    made = repacked(package, site.node.path("/root/made"), version, edit)
    command = ["apt-get", "install", "--yes", "--allow-downgrades", f"/root/made/{made.name}"]
    done = site.node.run(command, timeout=300)
    status = site.node.run(["dpkg-query", "--show", "--showformat=${Status} ${Version}", "ivy"]).stdout
    assert status == f"install ok installed 1:{version}"
    return done.stdout + done.stderr


def verdict(site: UpdateSite, status: int = 0, seconds: int = SECONDS_TO_DECIDE) -> str:
    """What `ivy releases --wait` says."""
    waiting = ["ivy", "releases", "--wait", str(seconds)]
    done = site.node.run(waiting, check=False, timeout=seconds + 60)
    assert done.returncode == status, done.stdout + done.stderr + site.node.journal("--unit=ivy-updater")
    return done.stdout + done.stderr


def releases(site: UpdateSite) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.node.run(["ivy", "releases", "--json"]).stdout)
    return found


def roles(site: UpdateSite) -> dict[str, list[str]]:
    return {release["version"]: release["roles"] for release in releases(site)["releases"]}


def test_a_good_package_is_kept(site: UpdateSite, package: Path) -> None:
    said = install(site, package, GOOD)
    assert f"ivy {GOOD} is on trial" in said
    assert verdict(site) == f"{GOOD} runs.\n"
    assert roles(site) == {THIS: ["for ivy rollback"], GOOD: ["runs", "the package's"]}
    last = releases(site)["decisions"][-1]
    assert (last["package"], last["version"], last["accepted"], last["reason"]) == ("deb", GOOD, True, "")
    site.wait_for_samples()


def test_a_bad_package_is_undone_and_told(site: UpdateSite, package: Path) -> None:
    before = site.running()
    install(site, package, BAD, CRASHES.edit)
    said = verdict(site, 1)
    print(said)
    told = site.wait_for_log(f"Debian package of version {BAD}", "was rejected")
    shown = site.node.run(["ivy", "releases"]).stdout
    for text in (said, told, shown):
        assert [word for word in CRASHES.words if word not in text] == [], text
    assert f"package (deb) for {BAD}: rejected" in shown
    assert site.running() == before
    assert roles(site)[BAD] == ["the package's"]
    assert not site.node.path("/var/lib/ivy/previous").exists()
    site.wait_for_samples()
    assert verdict(site, 1, 0) == said, "whoever asks later learns the same"


@pytest.mark.thorough
def test_an_older_package_runs_if_somebody_asks_for_it(site: UpdateSite, package: Path) -> None:
    install(site, package, OLDER)
    assert verdict(site) == f"{OLDER} runs.\n"
    site.wait_for_samples()


@pytest.mark.thorough
def test_without_a_link_as_long_is_waited_for_it_as_with_an_offer(site: UpdateSite, package: Path) -> None:
    site.platform.stop()
    try:
        site.node.wait_for(
            lambda: (
                "no connection" in unit_property(site.node, "ivy-tenta", "StatusText")
                or not unit_property(site.node, "ivy-tenta", "StatusText").startswith("connected")
            ),
            30,
            "the outage",
        )
        install(site, package, GOOD)
        said = verdict(site, NOT_DECIDED, 20)
        print(said)
        assert f"Debian package of version {GOOD} is not decided about" in said
    finally:
        site.platform.start()
    assert verdict(site) == f"{GOOD} runs.\n"
    site.wait_for_samples()


@pytest.mark.thorough
def test_what_came_over_the_air_runs_on_if_it_is_newer(site: UpdateSite, package: Path) -> None:
    site.release(OVER_THE_AIR)
    site.accepts(OVER_THE_AIR)
    assert f"{OVER_THE_AIR} runs, which is newer" in install(site, package, NEXT)
    assert f"to change that: ivy update {NEXT}" in verdict(site, 1)
    site.node.run(["ivy", "update", NEXT], timeout=SECONDS_TO_DECIDE)
    assert verdict(site) == f"{NEXT} runs.\n"
