"""Man pages and completion know what the parser and the schema know."""

import argparse
import ast
import importlib
import pty
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from types import ModuleType
from typing import Any

import completion
import config_man
import pytest

from ivy import constants, overview
from ivy.cli import fields as fields_of_config
from ivy.cli import main
from ivy.types import calls
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


def exits(tree: ast.Module, module: ModuleType) -> Iterator[int]:
    """The statuses with which a module of the command ends it, or that its functions return."""

    def value_of(node: ast.expr) -> Iterator[int]:
        match node:
            case ast.Constant(int(number)):
                yield number
            case ast.IfExp(_, one, other):
                yield from (*value_of(one), *value_of(other))
            case ast.Attribute(ast.Name("constants"), name):
                yield getattr(constants, name)
            case ast.Name(name) if isinstance(getattr(module, name, None), int):
                yield getattr(module, name)

    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name("refuse"), [_]):
                yield 2
            case ast.Call(ast.Name("refuse"), [_, status]) | ast.Call(ast.Attribute(_, "exit"), [status]):
                yield from value_of(status)
            case ast.FunctionDef(_, _, body, _, ast.Name("int")):
                found = (each for line in body for each in ast.walk(line))
                returned = (each.value for each in found if isinstance(each, ast.Return))
                yield from (number for value in returned if value is not None for number in value_of(value))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_usage_line_can_be_copied(name: str) -> None:
    usage = COMMANDS[name].format_usage()
    assert usage.startswith(f"usage: ivy {name} [-h]") and "COMMAND" not in usage


def test_one_table_has_all_exit_statuses() -> None:
    section = (PROJECT / "debian" / "ivy.1").read_text().partition(".SH EXIT STATUS\n")[2].partition("\n.SH ")[0]
    told = [int(status) for status in re.findall(r"(?m)^(\d+)\tT\{$", section.partition(".TE")[0])]
    used: set[int] = set()
    for path in (PROJECT / "ivy" / "cli").rglob("*.py"):
        name = ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        used.update(exits(ast.parse(path.read_bytes()), importlib.import_module(name)))
    assert told == sorted(used)


def test_the_man_page_has_the_fixed_words_of_json() -> None:
    text = (PROJECT / "debian" / "ivy.1").read_text().partition(".SH JSON\n")[2].partition("\n.SH ")[0]
    entries = {plain(entry.partition("\n")[0]): entry for entry in text.split(".TP\n")[1:]}
    takes_json = {name for name, parser in COMMANDS.items() if "--json" in options_of(parser)}
    assert entries.keys() == takes_json
    assert f"now {constants.JSON_SCHEMA}:" in text
    checks = set()
    for path in (PROJECT / "ivy" / "cli" / "doctor").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Call(ast.Name("Finding" | "_unless_missing"), [ast.Constant(str(check)), *_]):
                    checks.add(check)
    told = re.findall(r"[a-z]+", entries["doctor"].partition("which is\n")[2])
    assert [word for word in told if word != "or"] == sorted(checks)
    words = re.sub(r"(?m)^\.\w+ |[\"]", "", entries["status"])
    assert all(word in words for word in ("ActiveState (SubState)", "done", *overview.NOT_WANTED))


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
        "\\fBmax_parallel_messages\\fR (integer, 1 to 10000)\nMessages sent and not acknowledged yet, at most: so"
        " many may come twice after a break, and a backlog over a long way drains by so many a round trip."
        "\nDefault: 500.",
        '\\fBprovider\\fR ("tenta" or "thingsboard")',
        "\\fBmax_days\\fR (integer, 1 to 36500 or null)",
        '.TH IVY\\-CONFIG 5 "January 2027"',
        ".SS backend.mqtt_connection.tls\n",
    ):
        assert text in config_page


def test_no_page_has_a_warning(config_page: str, tmp_path: Path) -> None:
    (tmp_path / "ivy-config.5").write_text(config_page)
    written = [path for path in (PROJECT / "debian").glob("ivy*.[1-9]") if path.name != "ivy-config.5"]
    assert len(written) >= 3
    for path in (*written, tmp_path / "ivy-config.5"):
        done = subprocess.run(
            ["groff", "-t", "-man", "-Tutf8", "-ww", "-z", str(path)], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""


@pytest.mark.parametrize("page", sorted(path.name for path in (PROJECT / "debian").glob("ivy*.7")))
def test_a_page_names_only_commands_and_fields_that_there_are(page: str) -> None:
    text = (PROJECT / "debian" / page).read_text()
    commands = re.findall(r'(?m)^\.B[BRI]? "?ivy ([a-z]+(?: [a-z]+)?)', text)
    assert commands
    assert [said for said in commands if not any(f"{name} ".startswith(f"{said} ") for name in COMMANDS)] == []
    sections = "|".join(Config.model_fields)
    named = {path.rpartition(".")[2] for path in re.findall(rf"(?m)^\.I ((?:{sections})\.[a-z_.]+)$", text)}
    assert named - {field for _, field in fields(Config.model_json_schema())} == set()


_COMPLETE = """
compopt() { :; }
. "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_ivy
printf '%s\\n' "${COMPREPLY[@]}"
"""


_ZSHRC = """
fpath=($ZDOTDIR $fpath)
autoload -Uz compinit
compinit -u
compadd() {
    local -a hits
    if [[ ${@[1,(i)(-|--)]} == *-[OAD]* ]]; then
        builtin compadd "$@"
        return
    fi
    builtin compadd -A hits "$@"
    print -rl -- $hits >>$ZDOTDIR/hits
}
zle-line-init() {
    BUFFER=$LINE CURSOR=$#LINE
    zle complete-word
    exit
}
zle -N zle-line-init
"""


class Shell:
    """A bash with the completion, and a release to look for services in."""

    name = "bash"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "_ivy"
        self.script.write_text(completion.script(main.parser(), self.name))
        for module in ("procedures/wind_sensor", "procedures/__init__", "backend/tenta_backend", "backend/pace"):
            path = directory / "current" / "ivy" / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def complete(self, *words: str) -> set[str]:
        """What may follow; the last word is the one that is being written."""
        return set(self.run(["bash", "-euc", _COMPLETE, "bash", str(self.script), "ivy", *words]).split())

    def run(self, command: list[str], **environment: str) -> str:
        """Run a program without an error, and return what it prints."""
        environment |= {"IVY_ROOT_DIR": str(self.directory), "PATH": "/usr/bin:/bin", "HOME": str(self.directory)}
        done = subprocess.run(
            command, env=environment, cwd=self.directory, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout


class Fish(Shell):
    """As well, a fish."""

    name = "fish"

    def complete(self, *words: str) -> set[str]:
        line = shlex.join(["ivy", *words[:-1]]) + f" {words[-1]}"
        code = "source $argv[1]; complete -C $argv[2]"
        said = self.run(["fish", "--no-config", "-c", code, str(self.script), line])
        return {line.partition("\t")[0].removesuffix("/") for line in said.splitlines()}


class Zsh(Shell):
    """As well, a zsh: it completes on a terminal only."""

    name = "zsh"

    def complete(self, *words: str) -> set[str]:
        (self.directory / ".zshrc").write_text(_ZSHRC)
        hits = self.directory / "hits"
        hits.write_text("")
        line = shlex.join(["ivy", *words[:-1]]) + f" {words[-1]}"
        master, terminal = pty.openpty()
        environment = {"ZDOTDIR": str(self.directory), "LINE": line, "TERM": "xterm", "PATH": "/usr/bin:/bin"}
        environment |= {"IVY_ROOT_DIR": str(self.directory), "HOME": str(self.directory)}
        with open(master, "rb", buffering=0), open(terminal, "r+b", buffering=0) as end:
            subprocess.run(
                ["zsh", "-d", "-i"],
                env=environment,
                cwd=self.directory,
                stdin=end,
                stdout=end,
                stderr=end,
                start_new_session=True,
                timeout=120,
            )
        # Where nothing begins so, zsh looks for what goes on so.
        return {hit.rstrip("=") for hit in hits.read_text().split() if hit.startswith(words[-1])}


SHELLS = [
    pytest.param(kind, id=kind.name, marks=pytest.mark.skipif(not which(kind.name), reason=f"without {kind.name}"))
    for kind in (Shell, Fish, Zsh)
]


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    kind: type[Shell] = request.param
    return kind(tmp_path_factory.mktemp("shell"))


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


def test_the_paths_of_the_config_are_completed(shell: Shell) -> None:
    for verb in ("get", "set"):
        assert shell.complete("config", verb, "") == set(fields_of_config.paths())
        assert shell.complete("config", verb, "backend.mqtt_connection.pr") == {"backend.mqtt_connection.protocol"}


def test_the_completion_is_clean(shell: Shell) -> None:
    bash = ["shellcheck", "--shell=bash"]
    subprocess.run([*(bash if shell.name == "bash" else [shell.name, "-n"]), str(shell.script)], check=True)


def test_readme_and_man_page_name_all_remote_calls_with_their_parameters() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("\n| Method | `params` |")[2].partition("\n\n")[0]
    rows = [row.split(" | ") for row in table.splitlines()[2:]]
    told = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert told.keys() == calls.METHODS.keys()
    for name, method in calls.METHODS.items():
        assert all(f"`{parameter}`" in told[name] for parameter in method.parameters)
    page = (PROJECT / "debian" / "ivy.1").read_text(encoding="utf-8")
    section = page.partition(".SH REMOTE CALLS")[2].partition(".SH")[0]
    assert set(re.findall(r"^\.BR? (\w+)", section, re.MULTILINE)) >= calls.METHODS.keys()
