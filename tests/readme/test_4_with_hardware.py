"""The guide ivy-procedure(7): four procedures with hardware, which came with the release of the chapter before."""

from typing import Any

import pytest

from tests.readme import four, hardware
from tests.readme.site import IDENTIFIER, Site, merged, write_wanted
from tests.readme.terminal import Terminal
from tests.support.installed import read_config, unit_property

VALVE = 5
CO2 = {"bottles": [{"line": VALVE, "ppm": 400}], "seconds_per_bottle": 600}
PROGRAMS = "/root/programs"


def override(site: Site, unit: str, lines: str) -> None:
    """A setting of the admin's for a unit; none takes it back."""
    drop_in = site.roof.path("/etc/systemd/system") / f"{unit}.service.d" / "90-of-a-test.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(f"[Service]\n{lines}")
    site.roof.run(["systemctl", "daemon-reload"])


def wait_until_is(site: Site, unit: str, state: str) -> None:
    site.roof.wait_for(lambda: unit_property(site.roof, unit, "ActiveState") == state, 30, f"{unit} to be {state}")


def apply(site: Site, roof: Terminal, **sections: Any) -> None:
    roof.run(f"ivy config apply {write_wanted(site.roof, merged(read_config(site.roof), sections))}", 180)


@pytest.mark.parametrize("key", ["co2_ppm", "wind_gust", "box_celsius", "ups_has_mains"])
def test_each_samples(site: Site, key: str) -> None:
    site.wait_for_sample(IDENTIFIER, key)


def test_one_is_told_what_another_measures(site: Site) -> None:
    told = site.roof.path(hardware.TOLD)
    site.roof.wait_for(lambda: told.exists() and b"p 981.2\r\n" in told.read_bytes(), 60, "the pressure")


def test_a_box_whose_procedure_is_killed_is_off(site: Site, roof: Terminal) -> None:
    override(site, "ivy-heated-box", "Restart=no\n")
    site.roof.wait_for(lambda: four.level(site.roof, four.HEATER) > 0, 30, "the heater")
    roof.run("systemctl kill --kill-whom=main --signal=KILL ivy-heated-box")
    site.roof.wait_for(
        lambda: unit_property(site.roof, "ivy-heated-box", "ActiveState") == "failed",
        30,
        "the end of the procedure",
    )
    assert four.level(site.roof, four.HEATER) == 0
    override(site, "ivy-heated-box", "")
    roof.run("systemctl start ivy-heated-box")
    site.roof.wait_for(lambda: four.level(site.roof, four.HEATER) > 0, 30, "the heater")


def test_a_change_for_the_wind_leaves_a_calibration_alone(site: Site, roof: Terminal) -> None:
    apply(site, roof, co2=CO2, ups={"seconds_on_battery": 1})
    site.roof.wait_for(lambda: four.level(site.roof, VALVE) == 1, 60, "a calibration")
    before = {name: unit_property(site.roof, f"ivy-{name}", "MainPID") for name in ("co2", "wind")}
    apply(site, roof, wind={"seconds_between_datapoints": 1})
    assert unit_property(site.roof, "ivy-wind", "MainPID") != before["wind"]
    assert unit_property(site.roof, "ivy-co2", "MainPID") == before["co2"]
    assert four.level(site.roof, VALVE) == 1
    roof.type("ivy status")
    assert "busy:     co2" in roof.finish(status=None)  # 1 where the box's end is still a problem
    site.roof.path(hardware.STEADY).touch()
    site.recorder.wait_for_element("measurements", 60, "the end of the calibration", "co2_offset_ppm")
    assert four.level(site.roof, VALVE) == 0
    site.wait_for_sample(IDENTIFIER, "co2_ppm")


def test_an_empty_battery_switches_the_machine_off(site: Site, roof: Terminal) -> None:
    """Which it does not here: a program before the real one notes that it should be."""
    program = site.roof.path(PROGRAMS) / "systemctl"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$*" >>/root/called\n')
    program.chmod(0o755)
    override(site, "ivy-ups", f"Environment=PATH={PROGRAMS}:/usr/bin\n")
    four.set_level(site.roof, hardware.MAINS, 0)
    called = site.roof.path("/root/called")
    site.roof.wait_for(lambda: called.exists() and called.read_text() == "poweroff\n", 60, "the power-off")
    wait_until_is(site, "ivy-ups", "inactive")
    assert unit_property(site.roof, "ivy-ups", "Result") == "success"
    assert unit_property(site.roof, "ivy-ups", "ExecMainStatus") == "42"
    site.recorder.wait_for_element("logs", 60, "what the operator is told", "No mains for 1 s")
    four.set_level(site.roof, hardware.MAINS, 1)
    override(site, "ivy-ups", "")
    roof.run("systemctl start ivy-ups")
    site.wait_for_sample(IDENTIFIER, "ups_has_mains")
