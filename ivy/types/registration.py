"""What a node needs to register at ThingsBoard: the form of the file in which a new node finds it.

Not for the exchange itself, which is `ivy.backend.entry`.
"""

import json
import os
from typing import Annotated, Literal

import pydantic

from ivy.types.config import ConfigError, MQTTBrokerConfig, Name, SecretName, TLSConfig, describe, once
from ivy.types.model import Model

NO_PASSWORD = "-"
"""Of who logs in with an access token: the platform does not look at it, and the config must say something."""

PORTS = {True: 8883, False: 1883}
"""Of a broker, with encryption and without."""


class Registration(Model):
    """Where to register, as whom, and with which device profile's key; strict and frozen."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    provider: Literal["thingsboard"] = "thingsboard"
    host: Name
    port: Annotated[int, pydantic.Field(ge=1, le=65535)] | None = None
    """None: 8883 with TLS, 1883 without."""
    tls: TLSConfig = TLSConfig(enabled=True)
    identifier: Name = pydantic.Field(default_factory=lambda: os.uname().nodename)
    """The node's name at the platform: by default, its host's."""
    client_id: Name | None = None
    provision_key: SecretName
    provision_secret: SecretName

    @staticmethod
    def parse(text: str) -> "Registration":
        """Read the text of a file.

        Raises:
            ConfigError: It is not JSON, or not of this form; the text names each bad field, and no value.
        """
        try:
            content = json.loads(text, object_pairs_hook=once)
        except json.JSONDecodeError as error:  # whose own text would be no more than this
            raise ConfigError(f"is not valid JSON: line {error.lineno}: {error.msg}") from None
        except ConfigError:
            raise
        except ValueError:
            raise ConfigError("is not valid JSON: a number of too many digits") from None
        except RecursionError:
            raise ConfigError("is not valid JSON: too deeply nested") from None
        try:
            return Registration.model_validate(content)
        except pydantic.ValidationError as error:
            raise ConfigError(describe(error)) from None

    def broker(self, token: str) -> MQTTBrokerConfig:
        """The connection of a node that has this access token."""
        return MQTTBrokerConfig(
            host=self.host,
            port=self.port or PORTS[self.tls.enabled],
            client_id=self.client_id or self.identifier,
            username=token,
            password=NO_PASSWORD,
            tls=self.tls,
        )
