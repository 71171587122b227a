"""The schema of `config/config.json`. Not for deciding about a new config: that is the updater's."""

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import pydantic

from ivy import constants
from ivy.files import write_atomically
from ivy.types import secrets, secrets_file
from ivy.types.model import Model
from ivy.types.secrets import SECRET
from ivy.version import Version

ACCEPTED = "config.accepted.json"
"""The name of the copy that `ivy.types.accepted_config` is about."""

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"]
Name = Annotated[str, pydantic.Field(min_length=1, max_length=512)]
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SecretName = Annotated[str, pydantic.Field(min_length=1, max_length=512), SECRET]


class ConfigError(ValueError):
    """A config that cannot be used; the text names the file, every bad field, and what is expected there."""


class LostSecretError(ConfigError):
    """A config says `***`, and whoever needs the value has none; the text names each such field."""


class ConfigWarning(UserWarning):
    """A config that can be used, but says something other than its author means."""


class _Section(Model):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class GeneralConfig(_Section):
    """Which config this is, for which node and software."""

    config_revision: int = pydantic.Field(ge=-1, description="Number of this config; -1: none was ever received.")
    software_version: Version = pydantic.Field(description="The version of ivy that this config is for.")
    system_identifier: Name = pydantic.Field(
        description="The node's name at the backend; in Tenta, the UUID of the sensor."
    )


class LoggingVerbosityConfig(_Section):
    """The least important level that is shown at each place; null shows nothing there."""

    file_archive: LogLevel | None = pydantic.Field(description="The journal.")
    console_prints: LogLevel | None = pydantic.Field(description="The terminal, when run by hand.")
    message_sending: LogLevel | None = pydantic.Field(description="The backend.")


def _check_lock(path: str) -> str:
    if path == "general.config_revision":
        raise ValueError("cannot be locked, as each offer has another one")
    section: type[pydantic.BaseModel] | None = Config
    for step in path.split("."):
        if section is None or step not in section.model_fields:
            raise ValueError("must name a section or a field of the config, e.g. `backend.mqtt_connection`")
        section = section_of(section.model_fields[step])
    return path


def section_of(field: pydantic.fields.FieldInfo) -> type[pydantic.BaseModel] | None:
    """The schema of a section, which may be null; None for a field that is no section."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
            return kind
    return None


LockedPath = Annotated[str, pydantic.Field(max_length=512), pydantic.AfterValidator(_check_lock)]
"""What only the admin may change: a section or a field, by its path."""


class UpdaterConfig(_Section):
    """Where new versions come from."""

    repository: str = pydantic.Field(
        pattern=r"[a-zA-Z0-9-]+/[a-zA-Z0-9-]+", description="Organisation and repository, e.g. `org/name`."
    )
    provider: Literal["github", "gitlab"] = pydantic.Field(description="What runs at that host.")
    provider_host: str = pydantic.Field(min_length=3, description="Where the repository is, e.g. `github.com`.")
    access_token: Annotated[str, pydantic.Field(min_length=3, max_length=256), SECRET] | None = pydantic.Field(
        default=None, description="For private repositories."
    )
    source_conflict_strategy: Literal["overwrite", "reuse"] = pydantic.Field(
        default="reuse", description="What to do with source code of a version that is on disk already."
    )
    require_signed_tags: bool = pydantic.Field(
        default=True, description="Whether a version's tag must carry a signature of /etc/ivy/allowed_signers."
    )
    oldest_version: Version | None = pydantic.Field(
        default=None, description="No older version is accepted; null: any may be."
    )
    locked: list[LockedPath] = pydantic.Field(
        default=[],
        max_length=100,
        description="Sections and fields that no offer of the backend may change, e.g. `backend.mqtt_connection`.",
    )
    seconds_of_probation: int = pydantic.Field(
        default=30, ge=1, le=3600, description="How long all services must have run well after a change."
    )
    max_seconds_of_probation: int = pydantic.Field(
        default=300,
        ge=1,
        le=86_400,
        description="How long that may take, before the change is undone; never less than twice that.",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _accept_misspelt_strategy(cls, section: Any) -> Any:
        """The predecessor's template carries this key, and its software ignored it. So must we, aloud."""
        misspelt = "source_conflict_behaviour"
        if not isinstance(section, dict) or misspelt not in section:
            return section
        warnings.warn(
            f"updater.{misspelt} has no effect: the field is called updater.source_conflict_strategy",
            ConfigWarning,
            stacklevel=2,
        )
        return {key: value for key, value in section.items() if key != misspelt}


class TLSConfig(_Section):
    """Encryption of the MQTT connection."""

    enabled: bool = pydantic.Field(default=False, description="Whether the connection is encrypted.")
    ca_file: str | None = pydantic.Field(default=None, description="PEM file; null: the system's authorities.")
    certificate_file: str | None = pydantic.Field(default=None, description="PEM file of the node's certificate.")
    key_file: str | None = pydantic.Field(default=None, description="PEM file of the certificate's key.")
    check_dates: Literal["when_synchronised", "always"] = pydantic.Field(
        default="when_synchronised",
        description="When the dates of the broker's certificates count. `when_synchronised`: not while the clock is"
        " not synchronised, so that a wrong one does not lock the node out; authority and name are checked at any"
        " time. `always`: also then.",
    )

    @pydantic.model_validator(mode="after")
    def _check_pair(self) -> "TLSConfig":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file must be given together")
        if not self.enabled and (self.ca_file or self.certificate_file):
            raise ValueError("files are given but enabled is false: the connection would be unencrypted")
        return self


class MQTTBrokerConfig(_Section):
    """How to reach and enter the MQTT broker."""

    host: Name = pydantic.Field(description="Name or address of the broker.")
    port: int = pydantic.Field(ge=1, le=65535, description="Usually 8883 with encryption, 1883 without.")
    client_id: Name = pydantic.Field(description="Unique among the clients of the broker.")
    username: SecretName = pydantic.Field(description="To log in with; for ThingsBoard, the access token.")
    password: SecretName = pydantic.Field(description="To log in with.")
    protocol: Literal["5", "3.1.1"] | None = pydantic.Field(
        default=None, description="Version of MQTT; null: 5, and 3.1.1 where the broker does not speak that."
    )
    tls: TLSConfig = TLSConfig()


class BackendConfig(_Section):
    """Which platform gets the messages."""

    provider: constants.Provider = pydantic.Field(description="What the platform is.")
    mqtt_connection: MQTTBrokerConfig
    max_parallel_messages: int = pydantic.Field(
        default=500,
        ge=1,
        le=10_000,
        description="Messages sent and not acknowledged yet, at most: so many may come twice after a break, and a "
        "backlog over a long way drains by so many a round trip.",
    )
    max_drain_time: int = pydantic.Field(
        default=600, ge=0, le=7200, description="Seconds to go on sending what is queued when told to stop."
    )
    max_messages_per_second: int | None = pydantic.Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Messages of a backlog that are sent in a second, at most; new ones are never held back."
        " null: 1000 for Tenta, which keeps in memory what it has not stored yet; as many as it takes for"
        " ThingsBoard, which says how many these are.",
    )


class QueueConfig(_Section):
    """Bounds of the message queue on disk."""

    max_megabytes: int = pydantic.Field(default=2000, ge=1, le=1_000_000, description="Size of the queue, at most.")
    min_free_megabytes: int = pydantic.Field(
        default=500, ge=0, le=1_000_000, description="Space that the queue does not grow into."
    )


class ArchiveConfig(_Section):
    """Bounds of the message archive."""

    max_days: int | None = pydantic.Field(
        default=None, ge=1, le=36_500, description="Days that are kept; null: all, until space is short."
    )
    compress_after_days: int | None = pydantic.Field(
        default=7, ge=1, le=36_500, description="Newer days that stay plain; older ones become .csv.gz; null: all."
    )


class MetricsConfig(_Section):
    """Figures about the node for a monitoring system at its site."""

    textfile_directory: str | None = pydantic.Field(
        default=None,
        pattern=r"^/",
        max_length=512,
        description="Where `ivy.prom` is written once a minute, for the textfile collector of Prometheus's"
        " node-exporter, e.g. /run/ivy; null: nowhere.",
    )


Hours = Annotated[float, pydantic.Field(ge=0.1, le=87_600)]
"""Not less than it takes to look again."""


class NodeConfig(_Section):
    """What the machine does where the package ivy-node is installed."""

    hours_until_repair: Hours | None = pydantic.Field(
        default=2,
        description="Hours without a connection after which the programs in /etc/ivy/repair.d are run, and again"
        " each hour; null: never.",
    )
    hours_until_reboot: Hours | None = pydantic.Field(
        default=12,
        description="Hours without a connection, and since the last boot, after which the machine reboots; null: it"
        " never does for that.",
    )


class ProcedureConfig(_Section):
    """What holds for any procedure, whatever it samples."""

    enabled: bool = pydantic.Field(default=True, description="Whether it runs.")
    max_silent_seconds: int | None = pydantic.Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="Seconds without data after which it is called silent: a problem in `ivy status`, and a message"
        " to the operator; null: never. A change that restarts it waits for its data, if"
        " `updater.max_seconds_of_probation` is not shorter.",
    )


def _check_procedure(name: str) -> str:
    known = sorted(path.stem for path in Path(constants.PROJECT_DIR, "ivy", "procedures").glob("[!_]*.py"))
    if name not in known:
        raise ValueError(f"must be the name of a procedure: {', '.join(known)}")
    return name


ProcedureName = Annotated[str, pydantic.Field(max_length=512), pydantic.AfterValidator(_check_procedure)]


class DummyProcedureConfig(_Section):
    """Settings of `ivy.procedures.dummy_procedure`."""

    seconds_between_datapoints: int = pydantic.Field(
        ge=1, le=7200, description="Seconds from one sample to the next, counted from midnight UTC."
    )


class SystemChecksConfig(_Section):
    """Settings of `ivy.procedures.system_checks`."""

    seconds_between_checks: int = pydantic.Field(
        ge=1, le=7200, description="Seconds from one check to the next, counted from midnight UTC."
    )


class Config(_Section):
    """Schema of the config file for this version of the software; strict and frozen."""

    general: GeneralConfig
    logging_verbosity: LoggingVerbosityConfig
    updater: UpdaterConfig | None = None
    backend: BackendConfig | None = None
    queue: QueueConfig = QueueConfig()
    archive: ArchiveConfig = ArchiveConfig()
    metrics: MetricsConfig = MetricsConfig()
    node: NodeConfig = NodeConfig()
    procedures: dict[ProcedureName, ProcedureConfig] = pydantic.Field(
        default={},
        description="What holds for each of some procedures, by its name:"
        ' `{"wind": {"enabled": false}, "co2": {"max_silent_seconds": 600}}`.',
    )
    dummy_procedure: DummyProcedureConfig
    system_checks: SystemChecksConfig

    @pydantic.field_validator("procedures")
    @classmethod
    def _keep_housekeeping(cls, procedures: dict[str, ProcedureConfig]) -> dict[str, ProcedureConfig]:
        if (housekeeping := procedures.get("system_checks")) is not None and not housekeeping.enabled:
            raise ValueError("system_checks cannot be off: it keeps the archive within its bounds")
        return procedures

    def of_procedure(self, procedure: str) -> ProcedureConfig:
        """What holds for a procedure, by its name here or in its unit."""
        return self.procedures.get(procedure.replace("-", "_"), ProcedureConfig())

    def is_off(self, procedure: str) -> bool:
        """Whether a procedure is not to run, by its name here or in its unit."""
        return not self.of_procedure(procedure).enabled

    @staticmethod
    def load() -> "Config":
        """Load the config of this release, `<project>/config/config.json`, with the secrets that we may read.

        Raises:
            ConfigError: The file is missing, unreadable, no JSON, or not of this schema.
        """
        return load_file(Path(constants.PROJECT_DIR, "config", "config.json"))

    @staticmethod
    def load_template() -> "Config":
        """Load the template that a new node starts with, `<project>/config/config.template.json`.

        Raises:
            ConfigError: As for `load`.
        """
        return load_file(Path(constants.PROJECT_DIR, "config", "config.template.json"))

    @staticmethod
    def load_from_string(c: str) -> "Config":
        """Parse the JSON text of a config.

        Raises:
            ConfigError: The text is not valid JSON or not of this schema.
        """
        return _parse(Config, c)

    def dump(self) -> None:
        """Write the config to the release that it is for, `<ivy_root>/<software_version>/config/config.json`.

        Raises:
            OSError: The release does not exist or cannot be written.
        """
        _dump(self, self.general.software_version)

    def to_foreign_config(self) -> "ForeignConfig":
        """The same config in the form in which configs of any version are handled."""
        return ForeignConfig.model_validate(self.model_dump(mode="json"))


class ForeignGeneralConfig(Model):
    """What the section `general` must say in a config for any version."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    config_revision: int = pydantic.Field(ge=-1)
    software_version: Version


class ForeignConfig(Model):
    """Schema of a config for any version: what this version needs to know to hand it to that one."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    general: ForeignGeneralConfig

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Only what is known here: among the rest there are secrets, under names that another version gave them."""
        yield "general", self.general

    @property
    def system_identifier(self) -> Any:
        """What the platform calls the node; None where the config does not say."""
        return (self.general.model_extra or {}).get("system_identifier")

    def for_version(self, version: Version) -> "ForeignConfig":
        """The same config, but for another version."""
        general = self.general.model_copy(update={"software_version": version})
        return self.model_copy(update={"general": general})

    def section(self, name: str) -> dict[str, Any]:
        """A section other than `general`; empty where there is none."""
        section = (self.model_extra or {}).get(name)
        return section if isinstance(section, dict) else {}

    @staticmethod
    def load_from_string(c: str) -> "ForeignConfig":
        """Parse the JSON text of a config of any version.

        Raises:
            ConfigError: It is not valid JSON, or lacks `general.config_revision` or `general.software_version`.
        """
        return _parse(ForeignConfig, c)

    def dump(self) -> None:
        """As `Config.dump`."""
        _dump(self, self.general.software_version)


def destination(config: ForeignConfig) -> dict[str, Any] | None:
    """Where a config sends messages, without the secret that opens it: platform, broker, account, name of the node.

    None where it sends none.
    """
    backend = config.section("backend")
    connection = backend.get("mqtt_connection")
    if not isinstance(connection, dict):
        return None
    where = {name: connection.get(name) for name in ("host", "port", "client_id", "username")}
    return {"provider": backend.get("provider"), **where, "system_identifier": config.system_identifier}


def why_unknown(provider: str, identifier: str) -> str | None:
    """Why a platform cannot know a node by this name, whatever it acknowledges; None if it may.

    Not a matter of the schema: a node that has such a config still samples, and must be able to start.
    """
    if provider != "tenta" or _UUID.fullmatch(identifier):
        return None
    return (
        f"{identifier[:80]!r} is not a UUID in small letters, as all sensors of Tenta are: it drops all that comes"
    )


_AnyConfig = TypeVar("_AnyConfig", Config, ForeignConfig)


def load_file(path: Path) -> Config:
    """Load the config of a file, with the secrets beside it that we may read.

    Raises:
        ConfigError: As for `Config.load`.
    """
    try:
        return Config.load_from_string(_whole(path, path.read_text(encoding=secrets_file.ENCODING)))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: does not exist; start from config.template.json beside it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def is_usable(text: str) -> bool:
    """Whether a text is a config of this version."""
    try:
        Config.load_from_string(text)
    except ConfigError:
        return False
    return True


def _whole(path: Path, text: str) -> str:
    """With the secrets that are beside it, or that a service was handed."""
    sets = next(filter(None, map(secrets_file.load, secrets_file.places(path))), {})
    return secrets_file.whole(text, sets)


def _parse(model: type[_AnyConfig], text: str) -> _AnyConfig:
    try:
        return model.model_validate_json(text.removeprefix("\ufeff"))  # a byte order mark, by an editor
    except pydantic.ValidationError as error:
        raise ConfigError(describe(error)) from None  # its own text repeats input values: secrets, perhaps


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a text that somebody has written, as the `object_pairs_hook` of `json.loads`.

    Raises:
        ConfigError: It has a name twice. JSON would let one of the two count, unseen: a section that was pasted.
    """
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{json.dumps(name)} stands twice in one object, and one would count; remove one")
    return dict(pairs)


def check_names(text: str) -> None:
    """Raise `ConfigError` where a text that is a config has a name twice, see `once`."""
    json.loads(text.removeprefix("\ufeff"), object_pairs_hook=once)


def describe(error: pydantic.ValidationError) -> str:
    """One line for each bad field, `path.of.field: what is expected`, without the values found there."""
    problems = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        path = ".".join(str(step) for step in problem["loc"])
        text = "unknown field, remove it" if problem["type"] == "extra_forbidden" else problem["msg"]
        problems.append(f"{path}: {text}" if path else text)
    return "\n".join(problems)


def _dump(config: pydantic.BaseModel, version: Version) -> None:
    path = Path(constants.IVY_ROOT_DIR, version.as_identifier(), "config", "config.json")
    services = Path(constants.IVY_DATA_DIR)  # who may read it; it is root's
    if not secrets_file.is_known_to(path.parent.parent):
        return write_atomically(path, as_text(config), group_of=services)
    shown, taken = split_text(as_text(config))
    kept = [path.with_name(name) for name in ("config.previous.json", ACCEPTED)]
    secrets_file.write(path, shown, taken, kept, services)


def split_text(text: str) -> tuple[str, dict[str, Any]]:
    """The text of a config without its secrets, and these: see `secrets.split`. Not of one that is no JSON."""
    try:
        shown, taken = secrets.split(json.loads(text), Config)
    except (ValueError, RecursionError):
        return text, {}
    return (secrets_file.as_text(shown) if taken else text), taken


def lost_secrets(text: str) -> list[str]:
    """The fields that are `***` in a config that has its secrets: their values are not known."""
    return [path for path, value in secrets.values(split_text(text)[1]) if value == secrets.HIDDEN]


def require_secrets(config: Config, section: str) -> None:
    """See that all secrets of a section are known.

    Raises:
        LostSecretError: They are not.
    """
    if lost := [path for path in lost_secrets(as_text(config)) if path.startswith(f"{section}.")]:
        hint = (
            f"is {secrets.HIDDEN}, and {secrets_file.NAME} beside the config, where the value should be, is lost, "
            "or not for this user to read; to give the value again: sudo ivy config edit"
        )
        raise LostSecretError("\n".join(f"{path}: {hint}" for path in lost))


def as_text(config: pydantic.BaseModel) -> str:
    """The text of a config file."""
    return secrets_file.as_text(config.model_dump(mode="json"))
