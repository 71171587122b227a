"""Updates over the air, of config and of software: what is good is accepted, through each backend.

What is not good: `tests.node.test_undo`.
"""

import contextlib
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from testbed.bed import Bed, Node

from tests.support.cases import with_few
from tests.support.installed import unit_property
from tests.support.platforms import ThingsBoardPlatform, new_platform
from tests.support.releases import Edit, edits, remove, write
from tests.support.update_site import DECISION_SECONDS, MARKED, UpdateSite

PROCEDURE = """\"\"\"{name}: it reads 1.\"\"\"

from ivy.types.config import Config
from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent


def run(config: Config, logger: Logger) -> None:
    messaging_agent = MessagingAgent()
    while True:
        messaging_agent.add_message(DataMessageBody(data={{"{name}": 1}}))
        notify.sleep(1)
"""
UNIT = """[Unit]
Description=ivy procedure: {name}
PartOf=ivy.target

[Service]
ExecStart=/usr/bin/ivy run {name}
"""


def procedure(name: str) -> Edit:
    """An edit that adds a procedure."""
    return edits(
        write(f"ivy/procedures/{name}.py", PROCEDURE.format(name=name)),
        write(f"units/ivy-{name}.service", UNIT.format(name=name)),
    )


# What the package has, and what only one release has, are gone in different ways.
OTHER_PROCEDURES = edits(
    MARKED,
    procedure("hygrometer"),
    remove("ivy/procedures/system_checks.py", "units/ivy-system-checks.service"),
)


@pytest.fixture(params=with_few(["tenta", "thingsboard"]))
def site(request: pytest.FixtureRequest, bed: Bed, node: Node, tmp_path: Path) -> Generator[UpdateSite, None, None]:
    platform = new_platform(request.param, tmp_path, bed.address)
    with closing(UpdateSite(bed, node, platform, tmp_path)) as site:
        site.connect()
        yield site


def test_configs_and_versions_come_and_go(site: UpdateSite) -> None:
    site.release("9.1.0", MARKED)
    site.release("9.2.0", OTHER_PROCEDURES)
    site.accepts("9.1.0")
    check_seconds_to_effect(site)
    site.accepts("9.2.0")
    check_procedures(site, there=["dummy-procedure", "hygrometer"], gone=["system-checks"])
    wait_for_samples_of(site, "hygrometer")
    site.accepts("9.1.0")
    check_procedures(site, there=["dummy-procedure", "system-checks"], gone=["hygrometer"])
    assert site.running()[0] == "9.1.0"
    reason = site.rejects(dummy_procedure={"seconds_between_datapoints": "often"})
    assert "dummy_procedure.seconds_between_datapoints" in reason
    site.check_each_was_decided_once()
    if isinstance(site.platform, ThingsBoardPlatform):
        check_update_packages(site, site.platform)


def check_update_packages(site: UpdateSite, platform: ThingsBoardPlatform) -> None:
    """The dashboard follows what becomes of them. (That the states are in its order, the platform's end checks.)"""
    packages, before = platform.packages(), site.config()
    site.release("9.3.0", MARKED, signer=site.foreign)
    packages.assign("9.3.0")
    site.node.wait_for(lambda: packages.latest("state") == "FAILED", DECISION_SECONDS, "the state")
    assert "signed by nobody who may" in packages.latest("error") and site.running()[0] == "9.1.0"
    packages.assign("v9.2.0")
    site.node.wait_for(lambda: packages.latest("state") == "UPDATING", DECISION_SECONDS, "the trial")
    site.node.cut()
    site.node.boot()
    site.node.wait_for(lambda: packages.latest("state") == "UPDATED", DECISION_SECONDS, "the end")
    assert packages.states()[-5:] == ["DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED"]
    shown = [packages.latest(key) for key in ("error", "current_title", "current_version")]
    assert shown == ["", "ivy", "9.2.0"] and site.running()[0] == "9.2.0"
    before["general"]["software_version"] = "9.2.0"
    assert site.config() == before


def check_seconds_to_effect(site: UpdateSite) -> None:
    """It is used at once, not only when it has proved itself. There is one second between samples."""
    began = time.monotonic()
    revision = site.offer(archive={"max_days": 100})
    site.wait_for_samples(revision)
    print(f"a config in effect after {time.monotonic() - began:.2f} s")
    assert site.decision(revision), site.reason(revision)


def check_procedures(site: UpdateSite, there: list[str], gone: list[str]) -> None:
    """What a release has runs and samples; what it has no more does not, and has left nothing behind."""
    node = site.node
    assert [unit_property(node, f"ivy-{name}", "ActiveState") for name in there] == ["active"] * len(there)
    assert [unit_property(node, f"ivy-{name}", "ActiveState") for name in gone] == ["inactive"] * len(gone)
    listed = node.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "ivy-*"]).stdout
    assert "not-found" not in listed
    running = []
    for path in node.path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            running.append(path.read_bytes())
    assert [
        name for name in (*there, *gone) if any(f"\0run\0{name}\0".encode() in each for each in running)
    ] == there


def wait_for_samples_of(site: UpdateSite, name: str) -> None:
    since = time.time()

    def has_come() -> bool:
        return any(name in values for taken, values in site.platform.samples() if taken > since)

    site.node.wait_for(has_come, 30, f"samples of the {name}")
