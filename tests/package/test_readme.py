"""The README's commands are ones that there are, and the files that it names exist."""

import re
import shlex
from pathlib import Path

import pytest

from ivy.cli import main

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
CODE = re.findall(r"(?m)^    (\S.*)$", README) + re.findall(r"`([^`\n]+)`", README)


def commands() -> list[str]:
    """Every call of `ivy` in code, without comment, redirection and what follows it."""
    found = set[str]()
    for line in CODE:
        for match in re.finditer(r"(?:^|; or: |python3 -m )(ivy [a-z].*)", line):
            found.add(re.split(r" +#| > | \| |;|\)", match[1])[0].strip())
    return sorted(found)


def test_there_are_commands_to_be_tried() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_that_there_is(command: str) -> None:
    words = main._join_times(shlex.split(command)[1:])
    if len(words) > 1:
        assert main.parser().parse_args(words)
    else:  # only named
        with pytest.raises(SystemExit, match="0"):
            main.parser().parse_args([*words, "--help"])


@pytest.mark.parametrize("name", sorted(set(re.findall(r"packaging/[a-z][a-z-]*\b(?!/)", README))))
def test_a_program_of_the_checkout_is_there(name: str) -> None:
    assert (PROJECT / name).exists()
