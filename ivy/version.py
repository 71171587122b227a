"""Version numbers of ivy. Not for versions of anything else (Python's, Debian's)."""

import functools
import re
from typing import TYPE_CHECKING

import pydantic

_PATTERN = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(?:-(alpha|beta|rc)\.(0|[1-9][0-9]*))?", re.ASCII
)
_LONGEST = 64
_FINAL = "~"  # sorts after "alpha", "beta" and "rc"


@functools.total_ordering
class Version(pydantic.RootModel[str]):
    """A version `MAJOR.MINOR.PATCH[-(alpha|beta|rc).N]`, ordered as those are released.

    It names directories and git tags, so nothing but this form is ever accepted.

    Raises:
        pydantic.ValidationError: The string has another form.
    """

    model_config = pydantic.ConfigDict(
        frozen=True,
        json_schema_extra={
            "description": "A version such as 1.2.3 or 1.2.3-rc.1.",
            "pattern": f"^{_PATTERN.pattern}$",
            "maxLength": _LONGEST,
        },
    )

    if TYPE_CHECKING:  # the positional form; a real one would be called with the fields of any object that comes in

        def __init__(self, root: str) -> None: ...

    @pydantic.field_validator("root")
    @classmethod
    def _check_form(cls, value: str) -> str:
        if len(value) > _LONGEST or not _PATTERN.fullmatch(value):
            raise ValueError('must look like "1.2.3" or "1.2.3-rc.1"')
        return value

    def as_tag(self) -> str:
        """The git tag of this version, e.g. `v1.2.3-rc.1`."""
        return f"v{self.root}"

    def as_identifier(self) -> str:
        """The bare version, e.g. `1.2.3-rc.1`, as it names release directories."""
        return self.root

    def _order(self) -> tuple[int, int, int, str, int]:
        [(major, minor, patch, stage, number)] = _PATTERN.findall(self.root)
        return int(major), int(minor), int(patch), stage or _FINAL, int(number or 0)

    def __lt__(self, other: "Version") -> bool:
        return self._order() < other._order()

    def __str__(self) -> str:
        return self.root
