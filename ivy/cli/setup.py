"""`ivy setup`: a config with a backend. Asks for what no option says, and tries the login before it applies it."""

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import Any

import pydantic

from ivy.cli import update
from ivy.cli.doctor import checks_network
from ivy.cli.main import refuse
from ivy.types.config import Config, ConfigError, ForeignConfig, MQTTBrokerConfig, as_text, describe
from ivy.utils.updates.releases import Releases

_PORTS = {True: 8883, False: 1883}


def run(arguments: argparse.Namespace) -> int:
    """Ask, try, apply. The exit status is that of `ivy config apply`, or 1 if the broker lets nobody in."""
    update.require_admin()
    try:
        identifier, backend = _backend(arguments)
        broker = MQTTBrokerConfig.model_validate(backend["mqtt_connection"])
        backend["mqtt_connection"] = broker.model_dump(mode="json")  # a port is a number, whoever typed it
    except pydantic.ValidationError as error:
        refuse(describe(error))
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"the password cannot be read: {error}")
    if not arguments.no_test:
        print(f"Trying to log in at {broker.host}:{broker.port} …", flush=True)
        if reason := checks_network.login(broker):
            refuse(f"nothing was changed: {reason}\nWith --no-test it is not tried.", 1)
        print("The broker lets this node in.")
    return update.apply_text(_with_backend(identifier, backend))


def _backend(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The node's name at the backend, and the config's section for that."""
    provider = _answer(arguments.provider, "--provider", "Backend, tenta or thingsboard", "tenta")
    identifier = _answer(arguments.identifier, "--identifier", "Name of this node there", os.uname().nodename)
    host = _answer(arguments.host, "--host", "Host of the broker")
    encrypted = _is_yes(_answer(arguments.tls, "--tls", "Encrypted, yes or no", "yes"))
    port = _answer(arguments.port, "--port", "Port", str(_PORTS[encrypted]))
    username = _answer(arguments.username, "--username", "User name, or access token", identifier)
    connection = {
        "host": host,
        "port": port,
        "client_id": arguments.client_id or identifier,
        "username": username,
        "password": _password(arguments.password_file),
        "tls": {"enabled": encrypted, "ca_file": arguments.ca_file},
    }
    return identifier, {"provider": provider, "mqtt_connection": connection}


def _answer(given: str | None, option: str, question: str, default: str = "") -> str:
    if given is not None:
        return given
    if not sys.stdin.isatty():
        if default:
            return default
        refuse(f"{option} is missing, and nobody is at the terminal to ask")
    proposal = f" [{default}]" if default else ""
    while not (answer := input(f"{question}{proposal}: ").strip() or default):
        pass
    return answer


def _password(file: str | None) -> str:
    """Not by an option: everybody can read the arguments of a process."""
    if file is not None:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return text.strip()
    if not sys.stdin.isatty():
        refuse("--password-file is missing, and nobody is at the terminal to ask")
    return getpass.getpass("Password (for an access token: leave it empty): ") or "-"


def _is_yes(answer: str) -> bool:
    if answer.lower() not in ("yes", "no", "y", "n"):
        refuse(f"--tls: must be yes or no, not {answer!r}")
    return answer.lower().startswith("y")


def _with_backend(identifier: str, backend: dict[str, Any]) -> str:
    """The active config, but for that; where it cannot be read, there is nothing to keep."""
    try:
        content = ForeignConfig.load_from_string(Releases().active_text()).model_dump(mode="json")
    except ConfigError:
        content = Config.load_template().model_dump(mode="json")
    content["general"]["system_identifier"] = identifier
    known = content.get("backend")
    content["backend"] = {**known, **backend} if isinstance(known, dict) else backend
    return as_text(ForeignConfig.model_validate(content))
