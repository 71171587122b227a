"""What a change means for services: which start again, which must send data again; does it concern the link?

Pure functions.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ivy.types.config import ForeignConfig
from ivy.utils.host import units
from ivy.utils.updates import policy

_PROCEDURES = "procedures"
_BACKEND = "backend"

RESTS = 2
"""So many rests between two samples make a silence, where nobody has set one."""


def services_to_restart(
    before: ForeignConfig | None, after: ForeignConfig, wanted: Collection[str], backend: str | None
) -> set[str] | None:
    """The units that must start again, as what they read is another now; None means all.

    A section with the name of a procedure belongs to that one, `procedures` to nobody that runs, and the section
    `backend` to the backend. All else belongs to all. The backend starts again in any case: it tells the platform
    which revision the node has.

    Args:
        before: None where it is not known.
        after: The config that is active now.
        wanted: All units that should run now.
        backend: The unit of the backend among them.
    """
    if before is None or before.general.software_version != after.general.software_version:
        return None
    owners = {units.service_of(unit).replace("-", "_"): unit for unit in wanted}
    old, new = policy.filled(before), policy.filled(after)
    found = {backend} if backend else set()
    for section in policy.different(old, new):
        if section in owners:
            found.add(owners[section])
        elif section not in (_BACKEND, _PROCEDURES):  # the last is read by who starts and watches them
            return None
    return found


def concerns_link(before: ForeignConfig | None, after: ForeignConfig) -> bool:
    """Whether a connection that is away now may be away because of the change."""
    if before is None or before.general.software_version != after.general.software_version:
        return True
    return not {"general", _BACKEND}.isdisjoint(policy.different(policy.filled(before), policy.filled(after)))


def must_send(
    sending: Mapping[str, float], before: ForeignConfig | None, after: ForeignConfig, most_seconds: float
) -> set[str]:
    """The procedures that sent data before a change and have to send some within a time after it.

    Those, that is, that may not be silent for longer: by their limit in the new config; without one, by the rhythm
    that they had. Where a number in its section is another, a procedure may have another rhythm, too: 10 s may be
    3600 now. Nothing is asked of it then.

    Args:
        sending: How many seconds they had between two samples, by their units.
        before: None where it is not known.
        after: The config that is active now.
        most_seconds: The time.
    """
    found = set()
    for unit, rest in sending.items():
        allowed: float | None = max_silent_seconds(after, unit)
        if allowed is None and before is not None and _numbers_of(before, unit) == _numbers_of(after, unit):
            allowed = RESTS * rest
        if allowed is not None and allowed <= most_seconds:
            found.add(unit)
    return found


def max_silent_seconds(config: ForeignConfig, unit: str) -> float | None:
    """For how long a config of any version lets a procedure be silent; None if it says nothing of that."""
    section = config.section(_PROCEDURES).get(_section_of(unit))
    limit = section.get("max_silent_seconds") if isinstance(section, dict) else None
    return limit if _is_number(limit) else None


def _section_of(unit: str) -> str:
    return units.service_of(unit).replace("-", "_")


def _numbers_of(config: ForeignConfig, unit: str) -> list[Any]:
    return list(_numbers(config.section(_section_of(unit)), ""))


def _numbers(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _numbers(value[key], f"{path}.{key}")
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _numbers(entry, f"{path}.{number}")
    elif _is_number(value):
        yield path, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
