#!/usr/bin/env python3
"""Prints the completion of `ivy` for bash, made from the parser of its arguments, for the package."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from ivy.cli import main  # noqa: E402

_SERVICES_OF = ("run", "logs")  # others take a NAME that is new
_FILE, _NAME = "FILE", "NAME"

_TEMPLATE = r"""# Completion of ivy for bash. Made by packaging/completion.py from the parser of its arguments.

_ivy_services() {
    local release=${IVY_ROOT_DIR:-/var/lib/ivy}/current path
    [ -e "$release" ] || release=/usr/lib/ivy
    for path in "$release"/ivy/procedures/[!_]*.py "$release"/ivy/backend/*_backend.py; do
        path=${path##*/} path=${path%.py} path=${path%_backend}
        printf '%s\n' "${path//_/-}"
    done
    printf 'updater\n'
}

_ivy() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command='' word words=''
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "${command:+$command }$word" in
        @COMMANDS@) command=${command:+$command }$word ;;
        esac
    done
    case "$command $previous" in
@VALUES@
    *)
        case "$command" in
@ARGUMENTS@
        esac
        ;;
    esac
    case $words in
    @FILE@)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    @NAME@) words=$(_ivy_services) ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _ivy ivy
"""


def script(parser: argparse.ArgumentParser) -> str:
    """The script for a parser."""
    parsers = dict(_walk(parser, ""))
    values = [line for path, each in parsers.items() for line in _values(path, each)]
    arguments = [line for path, each in parsers.items() for line in _arguments(path, each)]
    names = " | ".join(f'"{path}"' for path in parsers if path)
    text = _TEMPLATE.replace("@COMMANDS@", names).replace("@VALUES@", "\n".join(values))
    text = text.replace("@ARGUMENTS@", "\n".join(arguments))
    return text.replace("@FILE@", f"@{_FILE}").replace("@NAME@", f"@{_NAME}")


def _walk(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and those of its commands, by their words; but for what is not listed in the help."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for listed in action._choices_actions:
                yield from _walk(action.choices[listed.dest], f"{path} {listed.dest}".strip())


def _values(path: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """What may follow an option, for those that want something."""
    for action in parser._actions:
        if action.option_strings and action.nargs != 0:
            patterns = " | ".join(f'"{path} {option}"' for option in action.option_strings)
            yield f"    {patterns}) words='{_words(path, action)}' ;;"


def _arguments(path: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """What else may stand behind a command: its options once a hyphen is there, or if there is nothing else."""
    options = " ".join(option for action in parser._actions for option in action.option_strings)
    first = next((_words(path, action) for action in parser._actions if not action.option_strings), "")
    yield f'        "{path}")'
    yield f"            words='{first or options}'"
    if first:
        yield f"            [[ $current != -* ]] || words='{options}'"
    yield "            ;;"


def _words(path: str, action: argparse.Action) -> str:
    """The words that an argument may be, or what stands for files or services."""
    if isinstance(action, argparse._SubParsersAction):
        return " ".join(listed.dest for listed in action._choices_actions)
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    if action.metavar == _FILE or (action.metavar == _NAME and path in _SERVICES_OF):
        return f"@{action.metavar}"
    return ""


if __name__ == "__main__":
    print(script(main.parser()), end="")
