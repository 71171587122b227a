"""A release of now on a node whose package is 1.0.0: it came over the air, and brings its sandbox along."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from testbed.bed import Bed

from tests.node import released
from tests.support.installed import install, unit_property
from tests.support.releases import append, write
from tests.support.update_site import UpdateSite, with_tenta

RUNS = "9.1.0"
RELEASE_TESTS = Path(__file__).parent / "release_tests"


@pytest.fixture
def site(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Generator[UpdateSite, None, None]:
    node = bed.node("n1")
    node.boot()
    install(node, released.package())
    with closing(with_tenta(bed, node, tmp_path_factory.mktemp("old"))) as site:
        site.connect()
        site.release(RUNS)
        site.accepts(RUNS)
        node.wait_for(lambda: unit_property(node, "ivy-updater", "SubState") == "dead", 30, "the pass to end")
        yield site
    node.destroy()


def test_what_comes_next_is_in_a_sandbox_and_goes_on(site: UpdateSite) -> None:
    assert site.node.run(["sh", "-c", "ls -d /usr/lib/systemd/system/*sandbox* || true"]).stdout == ""
    harm = (RELEASE_TESTS / "harm.py").read_text().replace("BROKER_ADDRESS", site.platform.address)
    site.release("9.2.0", write("tests/release/test_zz_harm.py", harm))
    assert "harm done: []" in site.rejects("9.2.0")
    assert "ivy_sandbox-test.service" in site.node.journal("--unit=ivy_sandbox-test")
    site.release("9.3.0", append("ivy/procedures/dummy_procedure.py", "\n# another release\n"))
    site.accepts("9.3.0")
    # Without its settings nothing is run, and what runs goes on.
    site.node.path("/var/lib/ivy/9.3.0/units/ivy_sandbox-.service.d/10-sandbox.conf").write_bytes(b"\0" * 500)
    site.offer("9.4.0")
    site.node.wait_for(lambda: "is damaged" in site.node.journal("--unit=ivy-updater"), 60, "the pass to fail")
    site.wait_for_samples()
