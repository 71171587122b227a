"""The package ivy-node: its script with fake programs around it, and its units beside those of ivy."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from ivy import constants
from ivy.cli import main
from ivy.cli.first_boot import host_name, parts, report, wishes
from ivy.types.config import Config, NodeConfig

PROJECT = Path(__file__).parents[2]
PARTS = PROJECT / "packaging" / "ivy-node"
HOUR, DAY = 3600, 86_400
TAKES_NOTHING = "touch: setting times of 'x': Read-only file system"
# What each fake does beside noting how it was called.
FAKES = {
    "ivy-busy": 'cat "$HOME/busy"',
    "ivy-held": 'test -e "$HOME/held"',
    "ivy": 'test "$1" != link || cat "$HOME/link"',
    "systemctl": "",
    "journalctl": "echo printed",
    "touch": 'case $* in *"$(cat "$HOME/sick")"*) cat "$HOME/failing" >&2; exit 1 ;; esac; /usr/bin/touch "$@"',
    "tune2fs": "",
    "findmnt": 'case $* in *VFS-OPTIONS*) cat "$HOME/mount" ;; *) echo "/dev/of${5#"$HOME"}" ;; esac',
    "timeout": 'while case $1 in --*) true ;; *) false ;; esac; do shift; done; shift; "$@"',
}


@dataclass(frozen=True)
class Machine:
    """Where the script finds its notes, and programs that are fakes."""

    home: Path

    def __post_init__(self) -> None:
        for name in ("bin", "notes", "kept", "repair.d", "data", "system", "sys/dev/block", "sys/fs/ext4/vda2"):
            (self.home / name).mkdir(parents=True)
        for name, work in FAKES.items():
            program = self.home / "bin" / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> "$HOME/calls"\n{work}\n')
            program.chmod(0o755)
        self.link("there")
        (self.home / "sick").write_text("nothing")
        (self.home / "sys/dev/block/254:2").symlink_to("../../devices/virtio0/block/vda/vda2")
        self.mount()

    def link(self, how: str, repair: str = "7200", reboot: str = "43200") -> None:
        (self.home / "link").write_text(f"{how} {repair} {reboot}\n")

    def mount(self, number: str = "254:2", options: str = "rw,noatime", errors: int = 0) -> None:
        """Of the system, as findmnt and the kernel tell of it."""
        (self.home / "mount").write_text(f"  {number} {options}\n")
        (self.home / "sys/fs/ext4/vda2/errors_count").write_text(f"{errors}\n")

    def look(self, at: int) -> list[str]:
        """Run the script, so many seconds after the boot. Returns what it called, without its questions."""
        (self.home / "uptime").write_text(f"{at}.25 0.00\n")
        (self.home / "calls").write_text("")
        places = {
            "IVY_NODE_DIR": "kept",
            "IVY_REPAIR_DIR": "repair.d",
            "IVY_DATA_DIR": "data",
            "IVY_RUN_DIR": "",
            "IVY_BUNDLED_DIR": "nothing",
            "IVY_SYSTEM": "system",
            "IVY_SYS": "sys",
            "IVY_BUSY": "bin/ivy-busy",
            "IVY_HELD": "bin/ivy-held",
            "IVY_UPTIME": "uptime",
            "RUNTIME_DIRECTORY": "notes",
        }
        environment = {name: str(self.home / place) for name, place in places.items()}
        environment |= {"PATH": f"{self.home}/bin:{os.environ['PATH']}", "HOME": str(self.home)}
        subprocess.run(["/bin/sh", str(PARTS / "ivy-lost")], env=environment, capture_output=True, check=True)
        calls = (self.home / "calls").read_text().splitlines()
        return [call for call in calls if call.startswith(("ivy tell", "systemctl", "tune2fs"))]

    def program(self) -> None:
        program = self.home / "repair.d" / "10-modem"
        program.write_text("#!/bin/sh\necho reset\n")
        program.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


REBOOT = "systemctl --check-inhibitors=no reboot"


def test_a_link_that_is_there_leads_to_nothing(machine: Machine) -> None:
    assert [machine.look(at) for at in (0, 13 * HOUR)] == [[], []]


@pytest.mark.parametrize("how", ["there", "none"])
def test_hours_count_from_when_the_link_was_last_seen(machine: Machine, how: str) -> None:
    machine.link("away")
    assert machine.look(0) == machine.look(11 * HOUR) == []
    machine.link(how)
    assert machine.look(11 * HOUR + 300) == []
    machine.link("away")
    assert machine.look(11 * HOUR + 600) == machine.look(22 * HOUR) == []
    assert machine.look(23 * HOUR + 600) == [REBOOT]


def test_programs_are_run_hourly_and_end(machine: Machine) -> None:
    machine.program()
    (machine.home / "repair.d" / "README.txt").touch()  # a name that is none for run-parts
    machine.link("away")
    assert machine.look(0) == machine.look(2 * HOUR - 1) == []
    assert machine.look(2 * HOUR) == [
        "ivy tell the link has been away for 120 min: ran what is in " + str(machine.home / "repair.d")
    ]
    limited = f"timeout --kill-after=5 60 {machine.home}/repair.d/10-modem"
    calls = (machine.home / "calls").read_text().splitlines()
    assert [call for call in calls if "repair.d/" in call] == [limited]
    assert machine.look(3 * HOUR - 1) == []
    assert len(machine.look(3 * HOUR)) == 1


def test_without_programs_nobody_is_told(machine: Machine) -> None:
    machine.link("away")
    assert machine.look(0) == machine.look(3 * HOUR) == []


def test_a_limit_may_be_never(machine: Machine) -> None:
    machine.program()
    machine.link("away", "never", "never")
    assert machine.look(0) == machine.look(99 * HOUR) == []


def test_a_reboot_waits_for_a_procedure_that_is_not_to_be_disturbed(machine: Machine) -> None:
    machine.link("away")
    machine.look(0)
    (machine.home / "busy").write_text("ivy-co2\n")
    assert machine.look(12 * HOUR) == machine.look(13 * HOUR) == []
    (machine.home / "busy").unlink()
    assert machine.look(13 * HOUR + 300) == [REBOOT]


def test_programs_are_run_whoever_is_not_to_be_disturbed(machine: Machine) -> None:
    machine.program()
    machine.link("away")
    (machine.home / "busy").write_text("ivy-co2\n")
    machine.look(0)
    assert len(machine.look(12 * HOUR)) == 1


def test_no_reboot_waits_for_longer_than_two_hours(machine: Machine) -> None:
    machine.link("away")
    machine.look(0)
    (machine.home / "busy").write_text("ivy-co2\nivy-wind\n")
    assert machine.look(12 * HOUR) == machine.look(14 * HOUR - 1) == []
    assert machine.look(14 * HOUR) == [REBOOT]


def test_two_hours_begin_again_with_the_next_outage(machine: Machine) -> None:
    (machine.home / "busy").write_text("ivy-co2\n")
    for began in (0, 24 * HOUR):
        machine.link("away")
        assert machine.look(began) == machine.look(began + 12 * HOUR) == machine.look(began + 13 * HOUR) == []
        machine.link("there")
        machine.look(began + 13 * HOUR)


def test_a_check_of_the_disk_waits_too_and_keeps_its_turn_of_the_day(machine: Machine) -> None:
    take_nothing(machine)
    (machine.home / "busy").write_text("ivy-co2\n")
    assert machine.look(0) == machine.look(HOUR) == machine.look(3 * HOUR - 1) == []
    assert not (machine.home / "kept" / "checked").exists()
    assert machine.look(3 * HOUR)[-1] == REBOOT


def test_reboots_are_told_once_when_the_link_is_back(machine: Machine) -> None:
    for _ in range(2):
        machine.link("away")
        for note in (machine.home / "notes").iterdir():  # it has booted
            note.unlink()
        machine.look(0)
        assert machine.look(12 * HOUR) == [REBOOT]
    machine.link("there")
    assert machine.look(13 * HOUR) == ["ivy tell reboots of the machine because the link was away: 2"]
    assert machine.look(14 * HOUR) == []
    assert (machine.home / "kept" / "all-reboots").read_text() == "link\nlink\n", "which the metrics count"


def test_a_node_that_cannot_even_tell_is_lost(machine: Machine) -> None:
    machine.look(0)
    (machine.home / "link").unlink()
    assert machine.look(300) == machine.look(12 * HOUR) == []
    assert machine.look(12 * HOUR + 300) == [REBOOT]


def test_without_any_answer_since_the_boot_nothing_is_done(machine: Machine) -> None:
    (machine.home / "link").unlink()
    assert machine.look(0) == machine.look(13 * HOUR) == []


def test_no_machine_reboots_while_somebody_holds_it(machine: Machine) -> None:
    (machine.home / "held").touch()
    machine.link("away")
    take_nothing(machine)
    assert machine.look(0) == machine.look(13 * HOUR) == machine.look(2 * DAY) == []
    (machine.home / "held").unlink()
    assert machine.look(2 * DAY + 300)[-1] == REBOOT


def take_nothing(machine: Machine, complaint: str = TAKES_NOTHING, where: str = "data") -> None:
    """Let `touch` fail for the disk of a directory."""
    (machine.home / "queue-trouble").touch()
    (machine.home / "failing").write_text(complaint)
    (machine.home / "sick").write_text(str(machine.home / where))


def test_a_disk_that_takes_nothing_is_checked_after_an_hour(machine: Machine) -> None:
    take_nothing(machine)
    assert machine.look(0) == machine.look(HOUR - 1) == []
    for called, wanted in zip(machine.look(HOUR), ("tune2fs -E force_fsck ", "ivy tell ", REBOOT), strict=True):
        assert called.startswith(wanted)
    (machine.home / "notes" / "sick").unlink()  # it has booted
    told = "ivy tell reboots of the machine because the disk took nothing: 1"
    assert [machine.look(at * HOUR) for at in (2, 4)] == [[told], []], "once a day"
    (machine.home / "kept" / "checked").unlink()
    assert machine.look(4 * HOUR)[-1] == REBOOT


def test_an_hour_begins_again_when_the_disk_took_something(machine: Machine) -> None:
    take_nothing(machine)
    machine.look(0)
    (machine.home / "queue-trouble").unlink()
    assert machine.look(HOUR - 1) == []
    take_nothing(machine)
    assert machine.look(HOUR) == []


def test_a_disk_that_is_full_or_closed_is_none_to_be_checked(machine: Machine) -> None:
    for reason in ("No space left on device", "Permission denied"):
        take_nothing(machine, f"touch: x: {reason}")
        assert machine.look(0) == machine.look(2 * HOUR) == []


def test_what_services_say_alone_is_not_believed(machine: Machine) -> None:
    (machine.home / "queue-trouble").touch()
    assert machine.look(0) == machine.look(2 * HOUR) == []


def test_where_no_day_can_be_noted_it_counts_from_the_boot(machine: Machine) -> None:
    take_nothing(machine, where="")  # and so does the disk that it would be noted on
    assert machine.look(0) == machine.look(HOUR) == machine.look(DAY - 1) == []
    assert machine.look(DAY)[-1] == REBOOT


def refuse(machine: Machine) -> None:
    """Let `touch` fail for the system, and for what is kept there."""
    (machine.home / "failing").write_text(TAKES_NOTHING)
    (machine.home / "sick").write_text(str(machine.home / "system"))


def test_a_system_that_the_kernel_has_made_read_only_is_checked_too(machine: Machine) -> None:
    refuse(machine)
    machine.mount(errors=1)
    assert machine.look(0) == machine.look(HOUR - 1) == []
    called = machine.look(HOUR)
    assert called[0] == "tune2fs -E force_fsck /dev/of/system"
    assert [call.partition(":")[0] for call in called[1:]] == [
        "ivy tell the disk has taken nothing for an hour",
        REBOOT,
    ]


@pytest.mark.parametrize(
    ("number", "options", "errors"),
    [("0:24", "rw,relatime", 1), ("254:2", "ro,noatime", 1), ("254:2", "rw,noatime", 0)],
    ids=["an overlay", "by fstab", "without an error"],
)
def test_a_system_that_is_to_be_read_only_is_well(machine: Machine, number: str, options: str, errors: int) -> None:
    refuse(machine)
    machine.mount(number, options, errors)
    assert machine.look(0) == machine.look(2 * DAY) == []


def test_a_system_that_takes_something_is_well_whatever_was_counted_before(machine: Machine) -> None:
    machine.mount(errors=3)
    assert machine.look(0) == machine.look(2 * DAY) == []


def test_its_limits_are_those_of_the_documentation() -> None:
    text = (PROJECT / "debian" / "ivy-node.7").read_text()
    for name, field in NodeConfig.model_fields.items():
        found = re.search(rf"\.I node\.{name}\n\((\d+)\)", text)
        assert found and int(found[1]) == field.default


@pytest.mark.parametrize("name", ["ivy-lost", "ivy-programs"])
def test_what_is_meant_for_services_is_not_for_its_unit(name: str) -> None:
    shared = {path.name for path in (PROJECT / "units" / "ivy-.service.d").glob("*.conf")}
    own = {path.name for path in (PARTS / f"{name}.service.d").iterdir()}
    assert shared - own == {"05-mounts.conf"}
    for path in (PARTS / f"{name}.service.d").iterdir():
        assert all(line.startswith("#") for line in path.read_text().splitlines())


def test_only_where_no_program_can_be_started_the_machine_is_reset() -> None:
    """Not by its timer alone, an exit status, or somebody's hand; but also where each start hangs."""
    unit, timer = (settings(PARTS / f"ivy-programs.{kind}") for kind in ("service", "timer"))
    (interval,), (every,) = (
        re.findall(r"^(\d+)min$", each[0]) for each in (unit["StartLimitIntervalSec"], timer["OnUnitActiveSec"])
    )
    assert int(unit["StartLimitBurst"][0]) >= 2 * (int(interval) // int(every) + 1)
    assert unit["Restart"] == ["on-abnormal"] and unit["RefuseManualStart"] == ["yes"]
    # Until it is left behind after SIGTERM and SIGKILL, and started again.
    hangs = int(unit["TimeoutStartSec"][0]) + 2 * int(unit["TimeoutStopSec"][0]) + 60
    assert unit["RestartSec"] == ["1min"] and hangs * int(unit["StartLimitBurst"][0]) < int(interval) * 60
    assert unit["ExecStart"][-1] == "/usr/bin/true" and all(each[0] == "-" for each in unit["ExecStart"][:-1])


FIRST = ("ivy-first-boot", "ivy-first-config")


@pytest.mark.parametrize("name", FIRST)
def test_who_takes_in_a_card_has_a_sandbox_of_its_own_and_is_not_watched(name: str) -> None:
    drop_ins = PARTS / f"{name}.service.d"
    assert {path.name for path in drop_ins.iterdir()} == {
        "06-owners.conf",
        "10-sandbox.conf",
        "20-supervision.conf",
    }
    for each in ("06-owners", "20-supervision"):
        assert settings(drop_ins / f"{each}.conf") == {}
    rules = (PROJECT / "debian" / "rules").read_text()
    assert f" {name}.service" in rules.partition("--package=ivy-node")[2]


def test_who_tries_the_config_of_a_card_is_in_the_updaters_sandbox_and_writes_the_card() -> None:
    own = settings(PARTS / "ivy-first-config.service.d" / "10-sandbox.conf")
    updater = settings(PROJECT / "units" / "ivy-updater.service.d" / "10-sandbox.conf")
    assert own.pop("ReadWritePaths") == [*updater.pop("ReadWritePaths"), f"-{main.CARD}"]
    assert own == updater


def test_a_card_is_looked_at_where_there_is_a_file_or_a_host_without_a_name() -> None:
    unit = settings(PARTS / "ivy-first-boot.service")
    wanted = {f"|{main.CARD}/{pattern}*" for pattern in (wishes.FILE, *parts.PATTERNS)}
    assert set(unit["ConditionPathExistsGlob"]) == wanted
    assert unit["ConditionHost"] == [f"|{name}" for name in host_name.BY_DEFAULT]
    assert unit["ExecStart"] == [f"/usr/bin/ivy take-in --files-only {main.CARD}"]
    assert {"network-pre.target", "ivy.target"} <= set(unit["Before"][0].split())
    assert unit["SuccessExitStatus"] == [str(constants.EXIT_CONFIG_ERROR)], (
        "else it fails, and the machine is degraded"
    )


def test_a_config_is_tried_when_the_services_run_and_holds_nobody_up() -> None:
    unit = settings(PARTS / "ivy-first-config.service")
    assert unit["ConditionPathExists"] == [f"{main.CARD}/{wishes.FILE}"]
    assert unit["ExecStart"] == [f"/usr/bin/ivy take-in {main.CARD}"]
    assert unit["After"] == ["ivy.target ivy-first-boot.service"] and unit["Type"] == ["exec"]
    assert unit["RestartForceExitStatus"] == [str(constants.EXIT_TRY_AGAIN)] and "Restart" not in unit
    assert settings(PARTS / "registration.conf")["ExecStopPost"] == [
        f"-/usr/bin/ivy report-registration {main.CARD}"
    ]
    notes = {settings(PARTS / f"{name}.service")["RuntimeDirectory"][0] for name in FIRST}
    assert notes == {report.NOTES_DIR.name}


def test_the_readme_shows_what_is_taken_in() -> None:
    section = (PROJECT / "README.md").read_text().partition("## A card to flash\n")[2].partition("\n## ")[0]
    shown = [
        wishes.parse(text.replace("/etc/ivy/ca.crt", "/etc/hostname"))
        for text in re.findall(r"(?ms)^```\n(.*?)^```", section)
    ]
    assert [(each.host_name, set(each.sections)) for each in shown] == [
        ("roof-7", set()),
        (None, {"general", "backend"}),
    ]
    for each in shown[1:]:
        Config.model_validate(
            {**Config.load_template().model_dump(mode="json"), "backend": each.sections["backend"]}
        )
    assert {pattern for pattern in parts.PATTERNS if f"| `{pattern}`" in section} == set(parts.PATTERNS)


def settings(path: Path) -> dict[str, list[str]]:
    """All settings of a unit file, each with its values in the order in which they stand."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_it_names_no_unit_that_a_release_could_bring() -> None:
    assert not {path.name for path in PARTS.iterdir()} & {path.name for path in (PROJECT / "units").iterdir()}
