"""What a check of `ivy doctor` found."""

from dataclasses import dataclass

TRY_SUDO = "sudo ivy doctor"
"""What to do about what this user may not see."""


@dataclass(frozen=True)
class Finding:
    """One line: a thing that is well, or what to do about it."""

    check: str
    text: str
    remedy: str = ""
    """What to do; empty if all is well."""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.remedy
