"""What a README tells its readers to type, and who has tried it. Runs nothing."""

import re
from dataclasses import dataclass

PROGRAMS = {
    ".",
    "ansible-galaxy",
    "ansible-playbook",
    "ansible-vault",
    "apt",
    "cp",
    "git",
    "ivy",
    "journalctl",
    "ln",
    "man",
}
PROGRAMS |= {"python3", "ssh", "ssh-keygen", "systemctl"}
FENCED = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
INDENTED = re.compile(r"(?m)^    (\S.*)$")
SPAN = re.compile(r"`([^`]+)`")
COMMENT = re.compile(r"\s{2,}#\s.*")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    text: str


class Document:
    """Commands are all indented lines, without comments, and what begins with a program in backticks."""

    def __init__(self, text: str) -> None:
        self._blocks = [Block(*found) for found in FENCED.findall(text)]
        prose = FENCED.sub("", text)
        lines = [COMMENT.sub("", line) for line in INDENTED.findall(prose)]
        self._spans = [" ".join(span.split()) for span in SPAN.findall(INDENTED.sub("", prose))]
        self._commands = list(dict.fromkeys([*lines, *filter(_is_command, self._spans)]))
        # A block without a language is a drawing.
        self._untried = {*self._commands, *(block.text for block in self._blocks if block.language)}

    def take(self, beginning: str, filled: dict[str, str] | None = None) -> str:
        """The command that begins so, which is tried now.

        Args:
            beginning: Of the command; enough of it to tell it from others, or all of it.
            filled: What to write for the placeholders in it.

        Raises:
            LookupError: There is no such command or placeholder, or more than one such command.
        """
        command = _only(beginning, self._commands)
        self._untried.discard(command)
        for placeholder, text in (filled or {}).items():
            if placeholder not in command:
                raise LookupError(f"no {placeholder} in {command!r}")
            command = command.replace(placeholder, text)
        return command

    def leave_out(self, command: str, because: str) -> None:
        """Say why a command is not tried.

        Raises:
            LookupError: There is no such command, or no reason.
        """
        if command not in self._commands or not because:
            raise LookupError(f"{command!r} cannot be left out")
        self._untried.discard(command)

    def block(self, language: str, containing: str) -> str:
        """The text of the fenced block that contains something, which is tried now.

        Raises:
            LookupError: There is none, or more than one.
        """
        texts = [block.text for block in self._blocks if block.language == language and containing in block.text]
        if len(texts) != 1:
            raise LookupError(f"{len(texts)} blocks in {language} contain {containing!r}")
        self._untried.discard(texts[0])
        return texts[0]

    def span(self, beginning: str) -> str:
        """What stands in backticks and begins so, be it a command or not.

        Raises:
            LookupError: There is none, or more than one.
        """
        return _only(beginning, list(dict.fromkeys(self._spans)))

    def untried(self) -> list[str]:
        """All commands and blocks that nobody took."""
        return sorted(self._untried)


def _is_command(span: str) -> bool:
    words = span.split()
    return words[0].startswith("packaging/") or (len(words) > 1 and words[0] in PROGRAMS)


def _only(beginning: str, texts: list[str]) -> str:
    found = [text for text in texts if text.startswith(beginning)]
    if beginning in found:
        return beginning
    if len(found) != 1:
        raise LookupError(f"{len(found)} begin with {beginning!r}: {found}")
    return found[0]
