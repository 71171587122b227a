"""`packaging/new-procedure`: what it writes passes its own test at once; what it removes leaves nothing."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ivy import constants
from ivy.utils.functions import procedure_names
from tests.support.releases import set_version

CHECKOUT = Path(constants.PROJECT_DIR)
PARTS = ("ivy", "units", "tests", "config", "packaging", "debian", "pyproject.toml")
FILES = {
    "ivy/procedures/wind_speed.py",
    "units/ivy-wind-speed.service",
    "tests/unit/test_procedure_wind_speed.py",
    "ivy/types/config.py",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fork of this one: a copy without any procedure but what is ivy's."""
    if not (CHECKOUT / "packaging" / "new-procedure").is_file():
        pytest.fail("this needs a whole checkout")
    for part in PARTS:
        source, target = CHECKOUT / part, tmp_path / "checkout" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    for name in set(procedure_names()) - {"system-checks"}:
        assert new_procedure(tmp_path / "checkout", "--remove", name).returncode == 0
    return tmp_path / "checkout"


def python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=600)


def new_procedure(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As in a clean clone: with nothing but Python's own modules."""
    return python(checkout, "-I", "-S", "packaging/new-procedure", *arguments)


def contents(checkout: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file() and path.suffix != ".pyc"}


HARDWARE = {
    "aa": ["--serial", "/dev/ttyUSB0"],
    "a-port-with-a-very-long-name-9": ["--serial", "/dev/serial/by-id/usb-FTDI_UART-if00-port0"],
    "zz-top": ["--i2c", "--gpio"],
    "sys": ["--gpio"],
    "x-1-net": ["--network"],
    "middle": [],
}
"""Names that come first, last and in between, and what each is made for."""


@pytest.mark.slow
def test_whatever_it_is_made_for_all_of_it_passes_at_once(checkout: Path) -> None:
    for name, options in HARDWARE.items():
        made = new_procedure(checkout, name, *options)
        assert made.returncode == 0, made.stderr
    own = [f"tests/unit/test_procedure_{name.replace('-', '_')}.py" for name in HARDWARE]
    tested = python(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", *own)
    assert tested.returncode == 0, tested.stdout
    if importlib.util.find_spec("mypy") is None:  # where the package is built
        return
    modules = [f"ivy/procedures/{name.replace('-', '_')}.py" for name in HARDWARE]
    for tool in (["ruff", "check", "--no-cache"], ["ruff", "format", "--check"], ["mypy", "--cache-dir=/dev/null"]):
        linted = python(checkout, "-m", *tool, *modules, *own, "ivy/types/config.py")
        assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["--serial", "/dev/ttyACM3"], {"DeviceAllow=char-ttyACM rw", "SupplementaryGroups=dialout"}),
        (["--serial", "/dev/serial0"], {"DeviceAllow=char-ttyAMA rw", "DeviceAllow=char-ttyS rw"}),
        (["--i2c", "--network"], {"DeviceAllow=char-i2c rw", "SupplementaryGroups=i2c"}),
        (["--gpio"], {"DeviceAllow=char-gpiochip rw", "SupplementaryGroups=gpio", "Environment=LG_WD=/tmp"}),
    ],
)
def test_its_unit_gets_what_the_hardware_takes(checkout: Path, options: list[str], lines: set[str]) -> None:
    assert new_procedure(checkout, "wind-speed", *options).returncode == 0
    drop_in = (checkout / "units/ivy-wind-speed.service.d/50-device.conf").read_text().splitlines()
    assert lines | {"PrivateDevices=no"} <= set(drop_in)
    unit = (checkout / "units/ivy-wind-speed.service").read_text().splitlines()
    assert "ExecStopPost=-/usr/bin/ivy run wind-speed --make-safe" in unit
    assert ("PrivateNetwork=yes" in unit) != ("--network" in options)


@pytest.mark.parametrize("device", ["ttyUSB0", "/dev/tty USB0", "/dev/", "/tmp/x"])
def test_what_is_no_device_is_refused(checkout: Path, device: str) -> None:
    before = contents(checkout)
    refused = new_procedure(checkout, "wind-speed", "--serial", device)
    assert refused.returncode == 2
    assert "--serial" in refused.stderr and contents(checkout) == before


@pytest.mark.slow
def test_its_own_test_passes_at_once(checkout: Path) -> None:
    made = new_procedure(checkout, "wind-speed")
    assert made.returncode == 0, made.stderr
    assert {line.split()[1] for line in made.stdout.splitlines() if line.startswith(("wrote", "changed"))} == FILES
    tested = python(
        checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_procedure_wind_speed.py"
    )
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout
    again = new_procedure(checkout, "wind-speed")
    assert again.returncode == 2
    assert "already" in again.stderr


def test_what_was_written_can_be_removed_and_leaves_nothing(checkout: Path) -> None:
    before = contents(checkout)
    new_procedure(checkout, "wind-speed", "--serial", "/dev/ttyUSB0")
    drop_ins = checkout / "units/ivy-wind-speed.service.d"
    assert drop_ins.is_dir()
    (checkout / "units/ivy-wind-speed.timer").write_text("[Timer]\nOnCalendar=daily\n")
    removed = new_procedure(checkout, "--remove", "wind-speed")
    assert removed.returncode == 0, removed.stderr
    assert contents(checkout) == before and not drop_ins.exists()


@pytest.mark.parametrize("name", ["system-checks", "no-such", "Wind"])
def test_what_is_ivys_or_no_procedure_cannot_be_removed(checkout: Path, name: str) -> None:
    before = contents(checkout)
    refused = new_procedure(checkout, "--remove", name)
    assert refused.returncode == 2
    assert refused.stderr.startswith("new-procedure: ")
    assert contents(checkout) == before


@pytest.mark.slow
def test_the_tests_of_a_fork_pass(checkout: Path) -> None:
    """Those of them that are quick and would know."""
    template = "config/config.template.json"
    shutil.copy2(CHECKOUT / template, checkout / "config" / "config.json")  # to try it, before
    assert new_procedure(checkout, "heat-box").returncode == 0
    set_version(checkout, "9.8.7")
    assert python(checkout, "-m", "ivy", "config", "validate", template).returncode == 0
    files = [
        "tests/release/test_version_change.py::test_the_given_config_is_valid_and_for_this_version",
        "tests/unit/test_remote_calls.py",
        "tests/unit/test_update_plan.py",
        "tests/unit/test_layers.py::test_a_small_module_has_a_reason_to_be_one",
        "tests/package/test_generator.py",
        "tests/package/test_units.py",
    ]
    tested = python(checkout, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files)
    assert tested.returncode == 0, tested.stdout


def test_configs_of_before_stay_valid_and_the_new_section_has_bounds(checkout: Path) -> None:
    new_procedure(checkout, "wind-speed")
    template = "config/config.template.json"
    assert python(checkout, "-m", "ivy", "config", "validate", template).returncode == 0
    text = (checkout / template).read_text().rstrip().removesuffix("}")
    (checkout / "bad.json").write_text(text + ', "wind_speed": {"seconds_between_datapoints": 0}}')
    refused = python(checkout, "-m", "ivy", "config", "validate", "bad.json")
    assert refused.returncode == 78
    assert "wind_speed.seconds_between_datapoints" in refused.stderr


@pytest.mark.parametrize(
    "name",
    [
        "Wind",
        "wind_speed",
        "../x",
        "",
        "import",
        "a--b",
        "system-checks",
        "queue",
        "general",
        "restart-counter",
        "updater-watch",
        "lost",
        "json",
        "dump",
        "foreign",
        "a-name-that-is-longer-than-its-lines",
    ],
)
def test_names_that_cannot_be_are_refused_and_nothing_is_written(checkout: Path, name: str) -> None:
    before = contents(checkout)
    refused = new_procedure(checkout, name)
    assert refused.returncode == 2
    assert refused.stderr.startswith("new-procedure: ")
    assert contents(checkout) == before
