"""Man pages and completion know what the parser and the schema know."""

import argparse
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import completion
import config_man
import pytest

from ivy.cli import main
from ivy.types.config import Config

PROJECT = Path(__file__).parents[2]
Commands = dict[str, argparse.ArgumentParser]


def listed_commands(parser: argparse.ArgumentParser, path: str = "") -> Commands:
    """All commands that the help lists and that do something, by their words."""
    found: Commands = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for listed in action._choices_actions:
                found |= listed_commands(action.choices[listed.dest], f"{path} {listed.dest}".strip())
    return found or {path: parser}


COMMANDS = listed_commands(main.parser())


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}


def synopses() -> list[str]:
    """What stands behind each .TP among the commands of ivy(1), as plain text."""
    text = (PROJECT / "debian" / "ivy.1").read_text()
    section = text.partition(".SH COMMANDS\n")[2].partition("\n.SH ")[0]
    return [plain(entry.partition("\n")[0]) for entry in section.split(".TP\n")[1:]]


def plain(line: str) -> str:
    """A line of a man page as a reader sees it: .BR and .BI join their arguments, .B does not."""
    macro, _, rest = line.partition(" ")
    words = shlex.split(re.sub(r"\\f.", "", rest).replace(r"\-", "-"))
    return (" " if macro == ".B" else "").join(words)


def documented_commands() -> dict[str, set[str]]:
    """The commands of ivy(1), each with its options."""
    found: dict[str, set[str]] = {}
    for synopsis in synopses():
        for name in re.split(r" *\[| [A-Z]", synopsis)[0].split(", "):
            assert name not in found, name
            found[name] = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", synopsis))
    return found


def test_the_man_page_knows_every_command_and_its_options() -> None:
    assert documented_commands() == {name: options_of(parser) for name, parser in COMMANDS.items()}


def fields(schema: dict[str, Any]) -> set[tuple[str, str]]:
    """Each field of the schema, with the name of the class that has it."""
    sections = {"": schema, **schema["$defs"]}
    return {(name, field) for name, section in sections.items() for field in section.get("properties", {})}


@pytest.fixture(scope="module")
def config_page() -> str:
    return config_man.page(Config.model_json_schema(), '{"a": "b"}\n', 1_800_000_000)


def test_the_page_of_the_config_has_every_field_with_its_type_and_default(config_page: str) -> None:
    entries = re.findall(r"(?m)^(?:\.SS (?:.*\.)?|\\fB)(\w+)(?:\\fR \(.*\))?$", config_page)
    foreign = {"ForeignGeneralConfig", "ForeignConfig"}
    expected = [field for name, field in fields(Config.model_json_schema()) if name not in foreign]
    assert sorted(entries) == sorted(expected)
    for text in (
        "\\fBport\\fR (integer, 1 to 65535)\nUsually 8883",
        "\\fBmax_parallel_messages\\fR (integer, 1 to 10000)\nMessages sent and not acknowledged yet, at most."
        "\nDefault: 50.",
        '\\fBprovider\\fR ("tenta" or "thingsboard")',
        "\\fBmax_days\\fR (integer, 1 to 36500 or null)",
        '.TH IVY\\-CONFIG 5 "January 2027"',
        ".SS backend.mqtt_connection.tls\n",
    ):
        assert text in config_page


def test_no_page_has_a_warning(config_page: str, tmp_path: Path) -> None:
    (tmp_path / "ivy-config.5").write_text(config_page)
    for path in (PROJECT / "debian" / "ivy.1", tmp_path / "ivy-config.5"):
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z", str(path)], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""


_COMPLETE = """
compopt() { :; }
. "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_ivy
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Shell:
    """A bash with the completion, and a release to look for services in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "completion"
        self.script.write_text(completion.script(main.parser()))
        for module in ("procedures/wind_sensor", "procedures/__init__", "backend/tenta_backend", "backend/pace"):
            path = directory / "current" / "ivy" / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def complete(self, *words: str) -> set[str]:
        """What may follow; the last word is the one that is being written."""
        command = ["bash", "-euc", _COMPLETE, "bash", str(self.script), "ivy", *words]
        environment = {"IVY_ROOT_DIR": str(self.directory), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            command, env=environment, cwd=self.directory, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return set(done.stdout.split())


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("shell"))


def test_the_first_word_is_a_command(shell: Shell) -> None:
    assert shell.complete("") == {name.split()[0] for name in COMMANDS}
    assert shell.complete("mes") == {"messages"}
    assert shell.complete("-") == {"-h", "--help", "--version"}


def test_a_group_of_commands_is_completed(shell: Shell) -> None:
    assert shell.complete("config", "") == {name.split()[1] for name in COMMANDS if name.startswith("config ")}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_a_command_are_completed(shell: Shell, name: str) -> None:
    parser = COMMANDS[name]
    assert shell.complete(*name.split(), "-") == options_of(parser) | {"-h", "--help"}
    for action in parser._actions:
        if action.option_strings and action.choices:
            assert shell.complete(*name.split(), action.option_strings[-1], "") == set(action.choices)


def test_services_and_files_are_completed(shell: Shell) -> None:
    assert shell.complete("run", "") == shell.complete("logs", "") == {"wind-sensor", "tenta", "updater"}
    assert shell.complete("logs", "t") == {"tenta"}
    for words in (["config", "validate"], ["config", "apply"], ["plot", "x", "--svg"]):
        assert shell.complete(*words, "cur") == {"current"}
    assert shell.complete("messages", "--since", "") == set()


def test_the_completion_is_clean(shell: Shell) -> None:
    subprocess.run(["shellcheck", "--shell=bash", str(shell.script)], check=True)
