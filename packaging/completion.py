#!/usr/bin/env python3
"""Prints the completion of `ivy` for a shell, made from the parser of its arguments, for the package.

completion.py bash | zsh | fish
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from ivy.cli import fields, main  # noqa: E402

_SERVICES_OF = ("run", "logs")  # others take a NAME that is new
_FILE, _NAME, _DIRECTORY = "FILE", "NAME", "DIRECTORY"

_BASH = r"""# Completion of ivy for bash. Made by packaging/completion.py from the parser of its arguments.

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

_ZSH = r"""#compdef ivy
# Completion of ivy for zsh. Made by packaging/completion.py from the parser of its arguments.

_ivy_services() {
    local release=${IVY_ROOT_DIR:-/var/lib/ivy}/current
    [[ -e $release ]] || release=/usr/lib/ivy
    local -a names=($release/ivy/procedures/[^_]*.py(N:t:r) $release/ivy/backend/*_backend.py(N:t:r))
    compadd -- ${${names%_backend}//_/-} updater
}

_ivy() {
    local command='' word
    local -i depth=0 number=0
    for word in ${words[2,CURRENT-1]}; do
        number+=1
        case ${command:+$command }$word in
        @COMMANDS@) command=${command:+$command }$word depth=number ;;
        esac
    done
    words=(ivy "${(@)words[depth+2,-1]}")
    CURRENT+=-depth
    case $command in
@ARGUMENTS@
    esac
}

_ivy "$@"
"""

_FISH = r"""# Completion of ivy for fish. Made by packaging/completion.py from the parser of its arguments.

function __ivy_services
    set -l release /var/lib/ivy/current
    set -q IVY_ROOT_DIR; and set release $IVY_ROOT_DIR/current
    test -e $release; or set release /usr/lib/ivy
    for path in $release/ivy/procedures/*.py $release/ivy/backend/*_backend.py
        set -l name (string replace -r '(_backend)?\.py$' '' (basename $path))
        string match -q '_*' $name; or string replace -a _ - $name
    end
    echo updater
end

function __ivy_at
    set -l command ''
    for word in (commandline -opc)[2..-1]
        set -l longer (string trim "$command $word")
        contains -- $longer @COMMANDS@; and set command $longer
    end
    test "$command" = "$argv"
end

complete -c ivy -f
@ARGUMENTS@
"""


def script(parser: argparse.ArgumentParser, shell: str = "bash") -> str:
    """The script for a parser and a shell."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](dict(_walk(parser, "")))


def _bash(parsers: dict[str, argparse.ArgumentParser]) -> str:
    values = [line for path, each in parsers.items() for line in _values(path, each)]
    arguments = [line for path, each in parsers.items() for line in _arguments(path, each)]
    names = " | ".join(f'"{path}"' for path in parsers if path)
    text = _BASH.replace("@COMMANDS@", names).replace("@VALUES@", "\n".join(values))
    text = text.replace("@ARGUMENTS@", "\n".join(arguments))
    return text.replace("@FILE@", f"@{_FILE}").replace("@NAME@", f"@{_NAME}")


def _zsh(parsers: dict[str, argparse.ArgumentParser]) -> str:
    names = "|".join(path.replace(" ", "\\ ") for path in parsers if path)
    arguments = [line for path, each in parsers.items() for line in _zsh_arguments(path, each)]
    return _ZSH.replace("@COMMANDS@", names).replace("@ARGUMENTS@", "\n".join(arguments))


def _zsh_arguments(path: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"    {_quoted(path)})"
    yield "        _arguments -s \\"
    specs = [spec for action in parser._actions for spec in _zsh_specs(path, action)]
    yield from (f"            {_quoted(spec)} \\" for spec in specs[:-1])
    yield f"            {_quoted(specs[-1])}"
    yield "        ;;"


def _zsh_specs(path: str, action: argparse.Action) -> Iterator[str]:
    """What `_arguments` is told of an option, for each of its names, or of another argument."""
    value = f":{action.metavar or action.dest}:{_zsh_values(path, action)}"
    if not action.option_strings:
        is_last = action.nargs == argparse.ONE_OR_MORE
        yield f"*{value}" if is_last else f":{value}" if action.nargs == argparse.OPTIONAL else value
        return
    others = f"({' '.join(action.option_strings)})" if len(action.option_strings) > 1 else ""
    for name in action.option_strings:
        if action.nargs == 0:
            yield f"{others}{name}[{_zsh_text(action.help)}]"
        else:
            yield f"{others}{name}{'=' if name.startswith('--') else '+'}[{_zsh_text(action.help)}]{value}"


def _zsh_values(path: str, action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        listed = (f'{each.dest}\\:"{_zsh_text(each.help)}"' for each in action._choices_actions)
        return f"(({' '.join(listed)}))"
    words = _words(path, action)
    return {f"@{_FILE}": "_files", f"@{_NAME}": "_ivy_services", "": " "}.get(words, f"({words})")


def _zsh_text(text: str | None) -> str:
    """A help text without what would end it."""
    said = _help(text)
    for before, after in (("\\", ""), ("[", "("), ("]", ")"), (":", "\\:"), ("`", "'"), ('"', "'")):
        said = said.replace(before, after)
    return said


def _fish(parsers: dict[str, argparse.ArgumentParser]) -> str:
    names = " ".join(_quoted(path) for path in parsers if path)
    arguments = [line for path, each in parsers.items() for line in _fish_arguments(path, each)]
    return _FISH.replace("@COMMANDS@", names).replace("@ARGUMENTS@", "\n".join(arguments))


def _fish_arguments(path: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    here = f"complete -c ivy -n {_quoted(f'__ivy_at {path}'.strip())}"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for listed in action._choices_actions:
                yield f"{here} -a {listed.dest} -d {_quoted(_help(listed.help))}"
            continue
        names = (f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in action.option_strings)
        text = f" -d {_quoted(_help(action.help))}" if action.option_strings else ""
        yield f"{here} {' '.join([*names, *_fish_values(path, action)])}{text}"


def _fish_values(path: str, action: argparse.Action) -> list[str]:
    if action.option_strings and action.nargs == 0:
        return []
    words = _words(path, action)
    if words == f"@{_FILE}":
        return ["-rF" if action.option_strings else "-F"]
    found = _quoted("(__ivy_services)" if words == f"@{_NAME}" else words)
    return [*(["-x"] if action.option_strings else []), "-a", found]


def _help(text: str | None) -> str:
    return "" if text in (None, argparse.SUPPRESS) else str(text)


def _quoted(text: str) -> str:
    """A word for any of these shells."""
    return "'" + text.replace("'", r"'\''") + "'"


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
    if action.metavar == "PATH":
        return " ".join(fields.paths())
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    if action.metavar == _DIRECTORY:
        return f"@{_FILE}"
    if action.metavar == _FILE or (action.metavar == _NAME and path in _SERVICES_OF):
        return f"@{action.metavar}"
    return ""


if __name__ == "__main__":
    print(script(main.parser(), sys.argv[1]), end="")
