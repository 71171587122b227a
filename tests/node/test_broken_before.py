"""What is broken blocks no change, its own cure least of all; and a change restarts only what it concerns."""

import json
import re
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from testbed.bed import Bed, Node

from tests.support.cases import with_few
from tests.support.installed import unit_property
from tests.support.platforms import ThingsBoardPlatform, new_platform
from tests.support.releases import Edit, edits, replace, write
from tests.support.update_site import MARKED, UpdateSite
from tests.support.validators.prometheus import parse

SENSOR_FILE = "/etc/ivy/wind-sensor"
CALIBRATION_FILE = "/etc/ivy/wind-calibrates"
FLAG = "/run/ivy-backend/restart-wind"
PROCEDURE = f'''"""Reads a sensor that can be taken away, or say nothing any more, and is calibrated at times."""

from pathlib import Path

from ivy.types.config import Config
from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent


def run(config: Config, logger: Logger) -> None:
    messaging_agent = MessagingAgent()
    while True:
        if (said := Path("{SENSOR_FILE}").read_text()) != "nothing":
            messaging_agent.add_message(DataMessageBody(data={{"wind": float(said)}}))
        with notify.undisturbed(600 if Path("{CALIBRATION_FILE}").exists() else 0):
            while Path("{CALIBRATION_FILE}").exists():
                notify.sleep(0.2)
        notify.sleep(1)
'''
UNIT = """[Unit]
Description=ivy procedure: wind
PartOf=ivy.target

[Service]
ExecStart=/usr/bin/ivy run wind
"""


def like_wind(name: str) -> Edit:
    """A procedure of another name that does the same, with files of its own."""
    return edits(
        write(f"ivy/procedures/{name}.py", PROCEDURE.replace("wind", name)),
        write(f"units/ivy-{name}.service", UNIT.replace("wind", name)),
    )


WIND: Edit = edits(MARKED, like_wind("wind"), like_wind("spectrometer"), like_wind("rain"))
SILENT: Edit = edits(WIND, replace("ivy/procedures/wind.py", '!= "nothing"', '== "nothing"'))
OFF, ON = {"wind": {"enabled": False}}, {"wind": {"enabled": True}}


@pytest.fixture(params=with_few(["thingsboard", "tenta"]))
def site(request: pytest.FixtureRequest, bed: Bed, node: Node, tmp_path: Path) -> Generator[UpdateSite, None, None]:
    with closing(UpdateSite(bed, node, new_platform(request.param, tmp_path, bed.address), tmp_path)) as site:
        site.connect(metrics={"textfile_directory": "/run/ivy"})
        for name in ("wind", "spectrometer", "rain"):
            let_say(node, name, "1.5")
        site.release("9.1.0", WIND)
        site.release("9.2.0", WIND)
        site.release("9.3.0", SILENT)
        yield site


def let_say(node: Node, name: str, said: str) -> None:
    """Let the sensor of a procedure say something: at once and whole, as it may be read meanwhile."""
    beside = node.path(f"/etc/ivy/.{name}-sensor")
    beside.write_text(said)
    beside.rename(beside.with_name(f"{name}-sensor"))


def break_sensor(node: Node) -> None:
    node.path(SENSOR_FILE).unlink()
    node.wait_for(lambda: int(unit_property(node, "ivy-wind", "NRestarts")) >= 3, 120, "a crash loop")


def processes(node: Node, *names: str) -> list[str]:
    return [unit_property(node, f"ivy-{name}", "MainPID") for name in names]


def status(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)
    return found


def wind(node: Node) -> dict[str, Any]:
    return next(unit for unit in status(node)["units"] if unit["name"] == "ivy-wind.service")


def state_of_wind(node: Node) -> str:
    return str(wind(node)["state"])


def check_that_nobody_disturbs_a_calibration(site: UpdateSite) -> None:
    """No update and no operator who restarts it, only an admin in a hurry; the former is done afterwards."""
    node = site.node
    before = processes(node, "wind")
    calibrates = node.path(CALIBRATION_FILE)
    calibrates.touch()
    node.wait_for(lambda: wind(node)["busy_seconds"], 30, "the calibration to begin")
    # No other procedure can end it, nor begin one.
    as_another = ["nsenter", "--mount", "--target", *processes(node, "system-checks"), "setpriv", "--reuid=ivy"]
    as_another += ["--regid=ivy", "--clear-groups", "touch", "-c", "/run/ivy-busy/ivy-wind"]
    failed = node.run(as_another, check=False)
    assert "Read-only file system" in failed.stderr, failed

    ask_for_a_restart(site)
    revision = site.offer(archive={"max_days": 98})  # which concerns all
    node.wait_for(lambda: waits_for_wind(node), 60, "the update to wait")
    node.wait_for(lambda: not node.path(FLAG).exists(), 30, "the request to be taken")
    said = node.run(["ivy", "status"], check=False).stdout
    assert "busy:     wind until " in said and "update:   waits for wind, until " in said
    assert wind(node)["busy_seconds"] and processes(node, "wind") == before

    assert wind_in_a_hurry(site) != before
    node.wait_for(lambda: waits_for_wind(node), 60, "the update to wait for the next calibration")
    calibrates.unlink()
    assert site.decision(revision)
    restarted = node.path("/run/ivy-restarted")
    node.wait_for(lambda: [path.name for path in restarted.iterdir()] == ["wind"], 60, "the restart")
    assert processes(node, "wind") != before and status(node)["update_waits"] is None
    site.wait_for_log(f"Config revision {revision} for version 9.1.0 is waiting for wind until ")


def waits_for_wind(node: Node) -> bool:
    return (status(node)["update_waits"] or {}).get("procedures") == ["wind"]


def ask_for_a_restart(site: UpdateSite) -> None:
    """By a call, where the platform has those; else as a backend leaves word."""
    if isinstance(site.platform, ThingsBoardPlatform):
        answer = site.platform.ask("restart", {"name": "wind"})
        assert answer["result"].startswith("wind is restarted later: it is not to be disturbed until "), answer
    else:
        site.node.run(["setpriv", "--reuid=ivy-backend", "--regid=ivy-backend", "--clear-groups", "touch", FLAG])


def wind_in_a_hurry(site: UpdateSite) -> list[str]:
    """The admin's change ends the pass that waits, and waits for nobody. Returns what calibrates then."""
    node = site.node
    node.path("/root/config.json").write_text(json.dumps(site.config(archive={"max_days": 97})))
    node.run(["ivy", "config", "apply", "--now", "/root/config.json"], timeout=120)
    node.wait_for(lambda: wind(node)["busy_seconds"], 30, "the next calibration to begin")
    return processes(node, "wind")


def wait_for_wind(site: UpdateSite) -> None:
    arrived = len(site.platform.samples())
    site.node.wait_for(
        lambda: any("wind" in values for _, values in site.platform.samples()[arrived:]), 30, "samples of the wind"
    )


def figure(node: Node, metric: str, name: str) -> float | None:
    """What Prometheus would read of a procedure."""
    return parse(node.run(["cat", "/run/ivy/ivy.prom"]).stdout).get((metric, (("unit", f"ivy-{name}.service"),)))


def check_what_is_seen(site: UpdateSite) -> None:
    """Of one that is silent, one that is off, and one in the middle of something; by all that tell of them."""
    node = site.node
    node.path("/etc/ivy/spectrometer-calibrates").touch()
    node.wait_for(lambda: figure(node, "ivy_unit_busy_seconds", "spectrometer"), 30, "the other calibration")
    told = [status(node)["units"]]
    if isinstance(site.platform, ThingsBoardPlatform):
        told.append(site.platform.ask("status")["result"]["units"])
    for units in told:
        named = {unit["name"].removeprefix("ivy-").removesuffix(".service"): unit for unit in units}
        assert named["wind"]["last_sample_seconds"] >= named["wind"]["silent_seconds"] > 4
        assert named["spectrometer"]["busy_seconds"] > 0 and named["spectrometer"]["silent_seconds"] is None
        assert named["rain"]["state"] == "off by config"
    said = node.run(["ivy", "status"], check=False).stdout
    print(said)
    assert re.search(
        r"^  ivy-wind\.service +active \(running\)  SILENT, last sample \d+ (s|min) ago$", said, re.MULTILINE
    )
    assert re.search(r"^busy:     spectrometer until .* --now$", said, re.MULTILINE)
    silent = [figure(node, "ivy_procedure_silent", name) for name in ("wind", "spectrometer", "rain")]
    assert silent == [1, 0, None] and figure(node, "ivy_procedure_max_silent_seconds", "wind") == 4
    last = figure(node, "ivy_last_sample_timestamp_seconds", "wind")
    assert last is not None and last < time.time() - 4


def be_silent(site: UpdateSite) -> None:
    """It is told once, whoever watches; seen; decides about no change, and told again when it is over."""
    node, limit = site.node, "procedures.wind.max_silent_seconds"
    before = processes(node, "wind", "system-checks")
    site.accepts(procedures={"wind": {"max_silent_seconds": 4}})
    assert processes(node, "wind", "system-checks") == before, "it is of no use to them"
    site.accepts(system_checks={"seconds_between_checks": 2})
    let_say(node, "wind", "nothing")
    said = site.wait_for_log("wind is silent: it has sent no data for ", f" s, and {limit} is 4")
    problems = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)["problems"]
    assert [text for text in problems if text.startswith("ivy-wind.service: silent: no data for ")]
    check_what_is_seen(site)
    node.run(["systemctl", "restart", "ivy-system-checks"])
    before = processes(node, "spectrometer")
    revision = site.offer(dummy_procedure={"seconds_between_datapoints": 3})  # which need not wait for others
    assert site.decision(revision) and processes(node, "spectrometer") == before
    node.path("/etc/ivy/spectrometer-calibrates").unlink()
    site.wait_for_log(f"Config revision {revision} for", ": ivy-wind.service sends no data, and did not before")
    let_say(node, "wind", "1.5")
    site.wait_for_log("wind sends data again")
    node.wait_for(lambda: node.run(["ivy", "status"], check=False).returncode == 0, 60, "all to be well")
    assert [log for log in site.platform.logs() if "wind is silent" in log] == [said]


def test_a_dead_sensor_blocks_nothing(site: UpdateSite) -> None:
    node = site.node
    site.accepts("9.1.0", procedures={"rain": {"enabled": False}})
    wait_for_wind(site)
    check_that_nobody_disturbs_a_calibration(site)
    quick = {"wind": {"max_silent_seconds": 15}}  # whatever rhythm it has on this machine
    assert "ivy-wind.service has sent no data since, and did before" in site.rejects("9.3.0", procedures=quick)
    wait_for_wind(site)
    be_silent(site)
    break_sensor(node)

    before = processes(node, "system-checks", "dummy-procedure")
    revision = site.offer(dummy_procedure={"seconds_between_datapoints": 2})
    assert site.decision(revision)
    after = processes(node, "system-checks", "dummy-procedure")
    assert after[0] == before[0] and after[1] != before[1]
    said = site.wait_for_log(f"Config revision {revision} for", "was accepted: ivy-wind.service does not run well")
    assert "did not before" in said

    break_again = int(unit_property(node, "ivy-wind", "NRestarts"))
    node.wait_for(lambda: int(unit_property(node, "ivy-wind", "NRestarts")) > break_again, 120, "one more crash")
    site.accepts("9.2.0")
    assert site.running()[0] == "9.2.0"

    site.accepts(procedures=OFF)
    assert unit_property(node, "ivy-wind", "ActiveState") in ("inactive", "failed")
    assert state_of_wind(node) == "off by config"
    node.wait_for(lambda: node.run(["ivy", "status"], check=False).returncode == 0, 60, "all to be well")

    let_say(node, "wind", "2.5")
    site.accepts(procedures=ON)
    wait_for_wind(site)

    node.run(["systemctl", "mask", "--now", "ivy-wind.service"])
    site.accepts(dummy_procedure={"seconds_between_datapoints": 1})
    assert state_of_wind(node) == "masked by the admin"
    node.wait_for(lambda: node.run(["ivy", "status"], check=False).returncode == 0, 60, "all to be well")
