"""A release of now on a node whose package is 1.0.0: it came over the air, and brings its sandbox along."""

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from testbed.bed import Bed, Snapshot

from tests.node import released
from tests.support.backend_node import PASSWORD
from tests.support.installed import install, read_config, unit_property
from tests.support.releases import append, write
from tests.support.sampling import let_edit
from tests.support.update_site import UpdateSite, with_tenta

RUNS = "9.1.0"
RELEASE_TESTS = Path(__file__).parent / "release_tests"
GO_ON = "/run/let-tests-go-on"


@pytest.fixture
def site(
    bed: Bed, furnished: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[UpdateSite, None, None]:
    node = bed.node("n1", base=furnished)
    node.boot()
    install(node, released.package())
    with closing(with_tenta(bed, node, tmp_path_factory.mktemp("old"))) as site:
        site.connect()
        site.release(RUNS, write("tests/release/test_zz_waits.py", (RELEASE_TESTS / "waits.py").read_text()))
        update = site.offer(RUNS)
        leave_an_offer_to_the_next_updater(site)
        assert site.decision(update), site.reason(update)
        assert site.decision(site.revision), site.reason(site.revision)
        node.wait_for(lambda: PASSWORD not in config_text(site), 60, "the release to hide its secrets")
        site.wait_for_samples()
        node.wait_for(lambda: unit_property(node, "ivy-updater", "SubState") == "dead", 30, "the pass to end")
        yield site
    node.destroy()


def config_text(site: UpdateSite) -> str:
    return site.node.path("/var/lib/ivy/current/config/config.json").read_text()


def leave_an_offer_to_the_next_updater(site: UpdateSite) -> None:
    """Have the backend of 1.0 take one that no platform sends again, while its updater is busy with the update."""
    testing = f"Testing version {RUNS}"
    site.node.wait_for(lambda: testing in site.node.journal("--unit=ivy-updater"), 90, "the tests")
    site.revision += 1
    config = site.config(dummy_procedure={"seconds_between_datapoints": 2})
    config["general"] |= {"software_version": RUNS, "config_revision": site.revision}
    site.platform.send(json.dumps({"revision": site.revision, "configuration": config}).encode())
    state = site.node.path("/var/lib/ivy/data/state.json")
    pending = f'"config_revision": {site.revision}'
    site.node.wait_for(lambda: pending in state.read_text(), 30, "the offer to be stored")
    site.node.path(GO_ON).touch()


def restart_as_the_operator(site: UpdateSite) -> None:
    """As the backend leaves word of it, for units of 1.0."""
    before = unit_property(site.node, "ivy-dummy-procedure", "InvocationID")
    leave = "from ivy.backend import flags; flags.leave(flags.constants.RESTART_FLAG + 'dummy-procedure')"
    as_backend = ["setpriv", "--reuid=ivy-backend", "--regid=ivy-backend", "--groups=ivy-backend,ivy"]
    python = ["env", "PYTHONPATH=/var/lib/ivy/current", "/usr/bin/python3", "-P", "-B", "-c", leave]
    site.node.run([*as_backend, *python])
    site.node.wait_for(
        lambda: unit_property(site.node, "ivy-dummy-procedure", "InvocationID") not in ("", before),
        30,
        "the restart",
    )


@pytest.mark.thorough
def test_what_comes_next_is_in_a_sandbox_and_goes_on(site: UpdateSite) -> None:
    assert read_config(site.node)["dummy_procedure"] == {"seconds_between_datapoints": 2}
    restart_as_the_operator(site)
    assert site.node.run(["sh", "-c", "ls -d /usr/lib/systemd/system/*sandbox* || true"]).stdout == ""
    harm = (RELEASE_TESTS / "harm.py").read_text().replace("BROKER_ADDRESS", site.platform.address)
    site.release("9.2.0", write("tests/release/test_zz_harm.py", harm))
    assert "harm done: []" in site.rejects("9.2.0")
    assert "ivy_sandbox-test.service" in site.node.journal("--unit=ivy_sandbox-test")
    site.release("9.3.0", append("ivy/procedures/dummy_procedure.py", "\n# another release\n"))
    site.accepts("9.3.0")
    # Back to what needs its secrets inside, and forth before that has written anything.
    site.accepts("1.0.0")
    assert PASSWORD in config_text(site)
    site.accepts("9.3.0")
    # Without its settings nothing is run, and what runs goes on.
    release = let_edit(site.node, "/var/lib/ivy/9.3.0")
    (release / "units" / "ivy_sandbox-.service.d" / "10-sandbox.conf").write_bytes(b"\0" * 500)
    site.offer("9.4.0")
    site.node.wait_for(lambda: "is damaged" in site.node.journal("--unit=ivy-updater"), 60, "the pass to fail")
    site.wait_for_samples()
