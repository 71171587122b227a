"""Chapter "Write your own procedure"; before "Updates over the air", where it is what is released."""

from tests.readme import four
from tests.readme.conftest import Started
from tests.readme.desk import Desk
from tests.readme.document import Document
from tests.readme.fleet import write
from tests.readme.terminal import INTERRUPT, Terminal


def test_what_is_generated_passes_its_test(readme: Document, terminal: Terminal, started: Started) -> None:
    started.checkout_venv.result()
    terminal.run(readme.take(". .venv/bin/activate"))
    terminal.run(readme.take("packaging/new-procedure thermometer"))
    printed = terminal.run(readme.take("packaging/test unit -- "), 300)
    assert "tests/unit/test_procedure_thermometer.py . " in printed


def test_the_libraries_of_a_project_that_wants_none_are_locked(readme: Document, terminal: Terminal) -> None:
    assert "requirements.lock: 0 libraries" in terminal.run(readme.take("packaging/lock"), 60)
    assert readme.span("smbus2")


def test_it_runs_in_a_checkout(readme: Document, terminal: Terminal) -> None:
    terminal.type(readme.take("cp config/config.template.json"))
    terminal.expect("Starting to sample")
    terminal.press(INTERRUPT)
    terminal.finish()


def test_the_example_takes_its_place(readme: Document, terminal: Terminal, desk: Desk) -> None:
    module = readme.block("python", "def run(")
    name = module.partition(":")[0].removeprefix('"""')
    assert (desk.clone / name).is_file()
    write(desk.clone / name, module)
    write(desk.clone / "units/ivy-thermometer.service", readme.block("ini", "ExecStart"))
    drop_in = readme.span("units/ivy-thermometer.service.d")
    write(desk.clone / drop_in, readme.block("ini", "DeviceAllow"))
    terminal.run(f"ruff check {name} && ruff format --check {name} && mypy {name}", 120)


def test_four_with_hardware_are_written_by_the_guide(terminal: Terminal, desk: Desk) -> None:
    for name, options in four.WRITTEN.items():
        terminal.run(f"packaging/new-procedure {name} {options}")
    files = four.fill_in(desk.clone)
    names = " ".join(files)
    terminal.run(f"ruff check {names} && ruff format --check {names} && mypy {names}", 120)
    tests = [name for name in files if name.startswith("tests/")]
    assert "failed" not in terminal.run(f"python3 -m pytest {' '.join(tests)}", 300)
