"""What the updater remembers across reboots, in `<ivy_root>/updates.json`. Pending offers are in the `state`."""

import contextlib
import zlib
from typing import Any, Literal, get_args

import pydantic

from ivy.types.config import ForeignConfig, ForeignGeneralConfig, as_text, destination
from ivy.types.model import Model
from ivy.version import Version

_KEPT_DECISIONS = 50
_KEPT_CONNECTIONS = 4
MOST_SUPERSEDED = 16
"""Offers that are answered of those that one has replaced; the oldest are not."""

Source = Literal["backend", "admin", "rollback"]
"""Where an offer comes from: the last is the admin's, too, but says nothing about revisions."""

PackageKind = Literal["sw", "fw"]
"""The two kinds of update packages that ThingsBoard has. A node may be given both; they mean the same here."""

PACKAGE_KINDS: tuple[PackageKind, ...] = get_args(PackageKind)


class Package(Model):
    """An update package that the platform has assigned: a version, with the config that is active then."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    kind: PackageKind
    version: Version
    assignment: str = pydantic.Field(
        pattern="^[0-9a-f]{8}$", description="Tells it from an earlier assignment of the same version."
    )

    @property
    def identifier(self) -> str:
        """The name of the offer. Backends write this: it can be that of no offer but their own."""
        return f"package-{self.kind}-{self.version}-{self.assignment}"


class Offer(Model):
    """A config that somebody wants this node to use: pending, on trial, and decided about, it is this record.

    On disk it has the names that releases of version 1.0.0 know, which may run again after a rollback.
    """

    model_config = pydantic.ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    identifier: str = pydantic.Field(description="Unique on this node.")
    config: ForeignConfig = pydantic.Field(
        validation_alias="offer",
        serialization_alias="offer",
        description="Whole until the decision was reported, then only number and version.",
    )
    source: Source = "backend"
    package: Package | None = pydantic.Field(
        default=None, description="The update package that it comes of, whose states the platform is told."
    )

    is_installed: bool = pydantic.Field(
        default=False, description="Whether a Debian package has brought the version; by the admin's will, too."
    )

    # The trial: from just before the activation until the decision is carried out.
    digest: str = pydantic.Field(default="", description="SHA-256 of the config file on trial, in hexadecimal.")
    link_was_down: bool = pydantic.Field(default=False, description="Whether there was no connection before.")
    failing_before: list[str] = pydantic.Field(
        default=[], description="The units that did not run well before: they decide nothing."
    )
    sending_before: dict[str, float] = pydantic.Field(
        default={}, description="The units that sent data before, and the seconds from one sample to the next."
    )
    silent_before: list[str] = pydantic.Field(
        default=[], description="The units that had sent data, and did not any more: what they do decides nothing."
    )
    seconds_of_probation: int = pydantic.Field(default=30, description="How long all services must run well.")
    max_seconds_of_probation: int = pydantic.Field(default=300, description="How long that may take.")
    interruptions: int = pydantic.Field(default=0, description="How often it began again, e.g. after a power cut.")
    failure: str | None = pydantic.Field(default=None, description="Why it is to be undone, once that is known.")

    # The decision.
    accepted: bool | None = pydantic.Field(default=None, description="null until it is decided.")
    reason: str = pydantic.Field(default="", description="Why not; or what is not well, and was not before.")
    time: float = pydantic.Field(default=0, description="Of the decision: Unix time in seconds.")
    reported: bool = pydantic.Field(default=False, description="Whether the operator's message is in the queue.")

    @classmethod
    def of_backend(cls, config: ForeignConfig) -> "Offer":
        """What a backend offers: known by its content, too, as a platform may begin to count again."""
        return cls(identifier=f"revision-{config.general.config_revision}-{_checksum(config)}", config=config)

    @classmethod
    def of_package(cls, package: Package, revision: int) -> "Offer":
        """What a package offers, without its content yet: that is the config that is active when it is tried."""
        config = _without_content(revision, package.version)
        return cls(identifier=package.identifier, config=config, package=package)

    @property
    def what(self) -> str:
        """What is offered, in words."""
        if self.package is not None:
            return f"update package ({self.package.kind}) of version {self.version}"
        if self.is_installed:
            return f"Debian package of version {self.version}"
        return f"config revision {self.revision} for version {self.version}"

    @property
    def revision(self) -> int:
        """The number of the config."""
        return self.config.general.config_revision

    @property
    def version(self) -> Version:
        """The version that the config is for."""
        return self.config.general.software_version

    def without_content(self) -> "Offer":
        """The same offer, of which number and version are left. Its identifier still tells its content."""
        return self.model_copy(
            update={
                "config": _without_content(self.revision, self.version),
                **{"digest": "", "failure": None},
                **{"failing_before": [], "sending_before": {}, "silent_before": []},
            }
        )


class Superseded(Model):
    """What is left of an offer of the backend's that a newer one replaced before it was decided about."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    revision: int = pydantic.Field(ge=-1)
    version: Version
    checksum: str = pydantic.Field(pattern="^[0-9a-f]{8}$", description="Of its content.")

    @classmethod
    def of(cls, config: ForeignConfig) -> "Superseded":
        """What is to be kept of an offer."""
        general = config.general
        return cls(revision=general.config_revision, version=general.software_version, checksum=_checksum(config))

    def as_offer(self) -> Offer:
        """The offer, without its content. Backends write this: it can have the name of no offer but their own."""
        config = _without_content(self.revision, self.version)
        return Offer(identifier=f"revision-{self.revision}-{self.checksum}", config=config)


class History(Model):
    """The past of a node's updates, and the one that is under way."""

    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)

    accepted_revision: int = pydantic.Field(default=-1, description="Of the backend's offers, the last accepted.")
    old_revision: int | None = pydantic.Field(
        default=None, description="Of the offer that was rejected last for its number, if none was accepted since."
    )
    former_connections: list[ForeignConfig] = pydantic.Field(
        default=[], description="What was accepted before, where messages went elsewhere; the newest last."
    )
    connected_since: float = pydantic.Field(default=0, description="When the present one was accepted: Unix time.")
    trial: Offer | None = None
    decisions: list[Offer] = pydantic.Field(default=[], description="The newest of them, the oldest first.")
    last_good: ForeignConfig | None = pydantic.Field(
        default=None, description="The config, and so the version, before the last accepted change."
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_1_0_0(cls, content: Any) -> Any:
        """Releases of version 1.0.0 count rejected offers, too, under a name that is kept in step for them."""
        if not isinstance(content, dict) or "decided_revision" not in content:
            return content
        content = dict(content)
        decided = content.pop("decided_revision")
        if content.get("accepted_revision") != decided:
            content["accepted_revision"] = _last_accepted(content.get("decisions"))
            content["old_revision"] = None
        return content

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def decided_revision(self) -> int:
        """What version 1.0.0, which may run again after a rollback, lets an offer exceed."""
        return self.accepted_revision

    def find(self, identifier: str) -> Offer | None:
        """The offer of this name, if it was decided about."""
        return next((offer for offer in self.decisions if offer.identifier == identifier), None)

    def is_decided(self, config: ForeignConfig) -> bool:
        """Whether just this offer of the backend was decided about."""
        return self.find(Offer.of_backend(config).identifier) is not None

    def revision_to_exceed(self, active: int) -> int:
        """The revision that an offer of the backend must exceed.

        A platform that was set up again counts from the beginning, and whoever had it for an hour may have let it
        count far ahead: it must not lose the node. So a lower revision is taken after an even lower one, which was
        rejected for its number. What is merely sent again is known by its content, and does not rise.

        Args:
            active: The revision of the active config.
        """
        return max(active, self.accepted_revision) if self.old_revision is None else self.old_revision

    def keep_connection(self, before: ForeignConfig, after: ForeignConfig, now: float, *, is_undone: bool) -> None:
        """Remember where messages went before a change, if they go elsewhere now.

        Those that were in use longest stay: whoever had the platform for an hour cannot push them out, by one
        change after the other.

        Args:
            before: The config that was replaced.
            after: The one that replaced it.
            now: Unix time in seconds.
            is_undone: Whether the admin went back, and so wants nothing more of that connection.
        """
        old, new = destination(before), destination(after)
        if old is None or old == new:
            return
        kept = [former for former in self.former_connections if destination(former) not in (old, new)]
        if not is_undone:
            seconds = max(0.0, now - self.connected_since)
            parts = {"general": before.general, "backend": before.section("backend"), "seconds_in_use": seconds}
            kept.append(ForeignConfig.model_validate(parts))
        if len(kept) > _KEPT_CONNECTIONS:
            kept.remove(min(kept, key=_seconds_in_use))
        self.former_connections, self.connected_since = kept, now

    def add(self, offer: Offer) -> None:
        """Remember a decision; the oldest are forgotten.

        Of rejected offers only the newest keeps its content: there may be many before they can be reported.
        """
        before = [known.without_content() if known.accepted is False else known for known in self.decisions]
        self.decisions = [*before, offer][-_KEPT_DECISIONS:]


def _checksum(config: ForeignConfig) -> str:
    return f"{zlib.crc32(as_text(config).encode()):08x}"


def _without_content(revision: int, version: Version) -> ForeignConfig:
    return ForeignConfig(general=ForeignGeneralConfig(config_revision=revision, software_version=version))


def _seconds_in_use(former: ForeignConfig) -> float:
    return float((former.model_extra or {}).get("seconds_in_use", 0))


def _last_accepted(decisions: Any) -> int:
    """The revision that counts after decisions, as they are on disk."""
    last = -1
    for decision in decisions if isinstance(decisions, list) else ():
        with contextlib.suppress(LookupError, TypeError, ValueError):
            revision = int(decision["offer"]["general"]["config_revision"])
            if decision["accepted"] and decision["identifier"].startswith("revision-"):
                last = max(last, revision)
            elif decision["accepted"] and decision["identifier"].startswith("admin-"):
                last = min(last, revision)
    return last
