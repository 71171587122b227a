"""The schema of `config/config.json`. Not for deciding about a new config: that is the updater's."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from ivy import constants
from ivy.files import write_atomically
from ivy.types.model import Model
from ivy.version import Version

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"]
Name = Annotated[str, pydantic.Field(min_length=1, max_length=512)]


class ConfigError(ValueError):
    """A config that cannot be used; the text names the file, every bad field, and what is expected there."""


class ConfigWarning(UserWarning):
    """A config that can be used, but says something other than its author means."""


class _Section(Model):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class GeneralConfig(_Section):
    """Which config this is, for which node and software."""

    config_revision: int = pydantic.Field(ge=-1, description="Number of this config; -1: none was ever received.")
    software_version: Version = pydantic.Field(description="The version of ivy that this config is for.")
    system_identifier: Name = pydantic.Field(description="The node's name at the backend.")


class LoggingVerbosityConfig(_Section):
    """The least important level that is shown at each place; null shows nothing there."""

    file_archive: LogLevel | None = pydantic.Field(description="The journal.")
    console_prints: LogLevel | None = pydantic.Field(description="The terminal, when run by hand.")
    message_sending: LogLevel | None = pydantic.Field(description="The backend.")


class UpdaterConfig(_Section):
    """Where new versions come from."""

    repository: str = pydantic.Field(
        pattern=r"[a-zA-Z0-9-]+/[a-zA-Z0-9-]+", description="Organisation and repository, e.g. `org/name`."
    )
    provider: Literal["github", "gitlab"] = pydantic.Field(description="What runs at that host.")
    provider_host: str = pydantic.Field(min_length=3, description="Where the repository is, e.g. `github.com`.")
    access_token: str | None = pydantic.Field(
        default=None, min_length=3, max_length=256, repr=False, description="For private repositories."
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
    username: Name = pydantic.Field(repr=False, description="To log in with; for ThingsBoard, the access token.")
    password: Name = pydantic.Field(repr=False, description="To log in with.")
    tls: TLSConfig = TLSConfig()


class BackendConfig(_Section):
    """Which platform gets the messages."""

    provider: Literal["tenta", "thingsboard"] = pydantic.Field(description="What the platform is.")
    mqtt_connection: MQTTBrokerConfig
    max_parallel_messages: int = pydantic.Field(
        default=50, ge=1, le=10_000, description="Messages sent and not acknowledged yet, at most."
    )
    max_drain_time: int = pydantic.Field(
        default=600, ge=0, le=7200, description="Seconds to go on sending what is queued when told to stop."
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


class MetricsConfig(_Section):
    """Figures about the node for a monitoring system at its site."""

    textfile_directory: str | None = pydantic.Field(
        default=None,
        pattern=r"^/",
        max_length=512,
        description="Where `ivy.prom` is written once a minute, for the textfile collector of Prometheus's"
        " node-exporter, e.g. /run/ivy; null: nowhere.",
    )


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
    dummy_procedure: DummyProcedureConfig
    system_checks: SystemChecksConfig

    @staticmethod
    def load() -> "Config":
        """Load the config of this release, `<project>/config/config.json`.

        Raises:
            ConfigError: The file is missing, unreadable, no JSON, or not of this schema.
        """
        return _load_file(Path(constants.PROJECT_DIR, "config", "config.json"))

    @staticmethod
    def load_template() -> "Config":
        """Load the template that a new node starts with, `<project>/config/config.template.json`.

        Raises:
            ConfigError: As for `load`.
        """
        return _load_file(Path(constants.PROJECT_DIR, "config", "config.template.json"))

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


_AnyConfig = TypeVar("_AnyConfig", Config, ForeignConfig)


def _load_file(path: Path) -> Config:
    try:
        return Config.load_from_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: does not exist; start from config.template.json beside it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _parse(model: type[_AnyConfig], text: str) -> _AnyConfig:
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise ConfigError(describe(error)) from None  # its own text repeats input values: secrets, perhaps


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
    # Root's, and for the services to read: it holds the broker's password.
    write_atomically(path, as_text(config), group_of=Path(constants.IVY_DATA_DIR))


def as_text(config: pydantic.BaseModel) -> str:
    """The text of a config file."""
    return json.dumps(config.model_dump(mode="json"), indent=4, ensure_ascii=False) + "\n"
