"""What a release needs of the machine: Debian's packages and groups, by `[tool.ivy]` of its `pyproject.toml`.

Looks whether they are there; only the admin can bring them. Wheels are the matter of `requirements.lock`.
"""

import grp
import re
import tomllib
from pathlib import Path

from ivy import constants
from ivy.utils.host import commands
from ivy.utils.updates.errors import NodeTrouble, Rejected

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
_GROUP = re.compile(r"[a-z_][a-z0-9_-]*", re.ASCII)
_SECONDS_TO_ASK = 60


def check(release: Path) -> None:
    """See whether the node has what a release needs.

    Raises:
        NodeTrouble: Something is missing.
        Rejected: It cannot be understood what is needed.
    """
    if missing := lacking(release):
        raise NodeTrouble(
            f"missing: {', '.join(missing)}; play provision, with ivy_debian_packages and ivy_groups naming them,"
            " or do as root: apt-get install PACKAGE, groupadd --system GROUP"
        )


def lacking(release: Path) -> list[str]:
    """What a release needs and the node has not, in words; errors as of `check`."""
    try:
        project = tomllib.loads((release / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Rejected(f"its pyproject.toml cannot be read: {error}") from None
    packages = _named(project, "debian", _PACKAGE)
    groups = _named(project, "groups", _GROUP)
    missing = sorted(packages - _installed()) if packages else []
    return [*missing, *(f"the group {name}" for name in sorted(groups) if not _is_group(name))]


def _named(project: object, field: str, form: re.Pattern[str]) -> set[str]:
    """The names in a field of `[tool.ivy]`, which an older release does not have."""
    value = project
    for key in ("tool", constants.NAME, field):
        value = value.get(key, {}) if isinstance(value, dict) else None
    if not value and isinstance(value, dict | list):
        return set()
    if not isinstance(value, list) or not all(isinstance(name, str) and form.fullmatch(name) for name in value):
        raise Rejected(
            f"its pyproject.toml: tool.{constants.NAME}.{field} must be a list of names, not {value!r:.200}"
        )
    return set(value)


def _installed() -> set[str]:
    question = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n"]
    try:
        said = commands.run(question, timeout=_SECONDS_TO_ASK)
    except commands.CommandError as error:
        raise NodeTrouble(f"which packages are installed is not known: {error}") from None
    return {line.split()[0] for line in said.splitlines() if line.endswith(" installed")}


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
