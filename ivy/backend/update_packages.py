"""Update packages that the platform assigns: reads what it says of them, and lets new ones wait for the updater.

A package is assigned for as long as it stands in the attributes, which are sent at each connect: what is known is
ignored. What it becomes, and when, the updater decides. Its file is of no interest: versions come by git.
"""

import contextlib
import json
import math
import os
import time
import zlib
from collections.abc import Mapping
from typing import Any

import pydantic_core

from ivy import constants
from ivy.backend import flags
from ivy.backend.delays import USUAL, Delays
from ivy.backend.flow_control import Bucket
from ivy.types.state import BackendState
from ivy.types.updates import PACKAGE_KINDS, Package, PackageKind
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import BACKEND_STATE
from ivy.utils.updates import package_states
from ivy.version import Version

ATTRIBUTES = tuple(f"{kind}_{part}" for kind in PACKAGE_KINDS for part in ("title", "version"))
"""The shared attributes that name a package."""

_LONGEST_VALUE = 256
_SHOWN = 80  # of its characters
_IN_BURST = 40

Said = Mapping[str, str | None]
"""Some of `ATTRIBUTES` as texts, None for those that do not exist. Of those that are missing nothing is said."""


def of_change(payload: bytes) -> Said:
    """What a message about changed attributes says of packages."""
    content = _object(payload) or {}
    deleted = content.get("deleted")
    gone = [key for key in ATTRIBUTES if key in deleted] if isinstance(deleted, list) else []
    return {key: _text(content[key]) for key in ATTRIBUTES if key in content} | dict.fromkeys(gone)


def of_answer(payload: bytes) -> Said:
    """What the answer to a request for all of them says: what is not in it does not exist."""
    content = _object(payload)
    shared = None if content is None else content.get("shared", {})
    return {key: _text(shared.get(key)) for key in ATTRIBUTES} if isinstance(shared, dict) else {}


def _object(payload: bytes) -> dict[str, Any] | None:
    try:
        content = pydantic_core.from_json(payload)
    except ValueError:  # the config's decoder says so
        return None
    return content if isinstance(content, dict) else None


def _text(value: Any) -> str | None:
    """Of another type it is no title and no version, and that its text is none either is reason enough."""
    if value is None:
        return None
    return (value if isinstance(value, str) else json.dumps(value))[:_LONGEST_VALUE]


class UpdatePackages:
    """What is assigned, as this process has heard. The first new package is stored at once, others with pauses."""

    def __init__(self, logger: Logger, queue: MessagingAgent, delays: Delays = USUAL) -> None:
        """Looks at nothing yet."""
        self._logger = logger
        self._queue = queue
        self._delays = delays
        self._known: dict[str, str | None] = {}
        self._answered: dict[PackageKind, str] = {}
        self._is_stored = True
        self._has_failed = False
        self._due = 0.0  # monotonic
        self._changes = Bucket(_IN_BURST, _IN_BURST * delays.after_many_offers)

    def hear(self, said: Said) -> None:
        """The platform has said something of packages."""
        if any(key not in self._known or self._known[key] != value for key, value in said.items()):
            self._known.update(said)
            self._is_stored = False
            self.try_again()

    def seconds_until_due(self) -> float:
        """How long there is nothing to be stored; infinity while nothing waits for that."""
        return math.inf if self._is_stored else max(0.0, self._due - time.monotonic())

    def try_again(self) -> None:
        """Store what waits for it, if it is time."""
        if self.seconds_until_due() == 0:
            self.flush()

    def flush(self) -> None:
        """Store what waits for it: there may be no later."""
        if self._is_stored:
            return
        self._due = time.monotonic() + self._delays.between_reports
        try:
            is_new = self._store()
        except OSError as error:  # another service holds the state, or the disk is full
            if not self._has_failed:
                text = f"An update package could not be stored, and will be tried again: {error}"
                self._logger.without_messages().error(text)
            self._has_failed = True
            return
        self._is_stored, self._has_failed = True, False
        self._due = 0.0
        if is_new:
            self._changes.take(1)
            self._due = time.monotonic() + max(self._delays.between_offers, self._changes.seconds_until(1))

    def _store(self) -> bool:
        """Returns whether anything is otherwise than it was."""
        before = BACKEND_STATE.peek()
        changed = {kind: now for kind in PACKAGE_KINDS if (now := self._change(kind, before)) is not None}
        if not changed:
            if before.packages:
                flags.leave(constants.PENDING_CONFIG_FLAG)  # it may have been lost with /run
            return False
        new = [package for kind, digest in changed.items() if digest and (package := self._judge(kind, digest))]
        with BACKEND_STATE.update() as state:
            state.assigned = state.assigned | {str(kind): digest for kind, digest in changed.items()}
            kept = [old for old in state.packages if old.kind not in {package.kind for package in new}]
            state.packages = [*kept, *new]
        self._answered.clear()
        if new:
            flags.leave(constants.PENDING_CONFIG_FLAG)
        for package in new:
            self._logger.info(f"The platform has assigned the update package of version {package.version}")
        return True

    def _change(self, kind: PackageKind, before: BackendState) -> str | None:
        """The digest of what is assigned, "" for nothing; None if that is known, or not all of it is heard yet."""
        title, version = (self._known.get(f"{kind}_{part}", _UNHEARD) for part in ("title", "version"))
        if _UNHEARD in (title, version):
            return None
        is_any = title is not None or version is not None
        digest = f"{zlib.crc32(json.dumps([title, version]).encode()):08x}" if is_any else ""
        return None if digest == before.assigned.get(kind, "") else digest

    def _judge(self, kind: PackageKind, digest: str) -> Package | None:
        """The package, if there can be such a one; else the platform is told why not, once."""
        try:
            version = _version_of(kind, self._known[f"{kind}_title"], self._known[f"{kind}_version"])
        except ValueError as error:
            if self._answered.get(kind) != digest:
                self._logger.error(f"An update package was ignored: {error}")
                self._queue.add_message(package_states.failed(kind, str(error)))
                self._answered[kind] = digest
            return None
        return Package(kind=kind, version=version, assignment=os.urandom(4).hex())


_UNHEARD = "\0"  # no attribute is this


def _version_of(kind: PackageKind, title: str | None, version: str | None) -> Version:
    """Raises `ValueError`, with what is wrong, and how to put it right."""
    if title is None or version is None:
        missing = "title" if title is None else "version"
        raise ValueError(f"{kind}_{missing}: is missing; a package has a title and a version")
    if title != constants.NAME:
        raise ValueError(
            f"{kind}_title: the package is one of {title[:_SHOWN]!r}, but this node runs {constants.NAME!r}; assign"
            " one with that title"
        )
    with contextlib.suppress(ValueError):
        return Version(version.removeprefix("v"))
    raise ValueError(f'{kind}_version: must look like "1.2.3" or "v1.2.3-rc.1", not {version[:_SHOWN]!r}')
