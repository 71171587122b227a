"""`ivy setup`: a config with a backend. Asks for what no option says, and tries the login before it applies it."""

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import Any, get_args

import pydantic

from ivy import constants
from ivy.cli import registration, update
from ivy.cli.doctor import checks_network
from ivy.cli.main import refuse
from ivy.types import secrets
from ivy.types.config import Config, MQTTBrokerConfig, describe, why_unknown
from ivy.types.registration import NO_PASSWORD, PORTS, Registration
from ivy.types.secrets_file import ENCODING
from ivy.utils.updates.releases import Releases

_PROVIDERS: tuple[str, ...] = get_args(constants.Provider)
_CONNECTION = ("identifier", "host", "port", "tls", "ca-file", "client-id")
_LOGIN = ("username", "password-file", "no-test")
_KEY = ("provision-key", "provision-secret-file")


def run(arguments: argparse.Namespace) -> int:
    """Ask, try, apply. The exit status is that of `ivy config apply`, or 1 if the broker lets nobody in.

    A node that is to register does so instead of trying, see `ivy.cli.registration`.
    """
    update.require_admin()
    if arguments.provision_file is not None:
        _refuse_beside(arguments, "--provision-file", _CONNECTION + _LOGIN + _KEY)
        return registration.by_file(arguments.provision_file)
    update.refuse_beside_mistake()
    if arguments.provision_key is not None or arguments.provision_secret_file is not None:
        _refuse_beside(arguments, "--provision-key", _LOGIN)
        return registration.register(_registration(arguments), update.Wish.of(arguments))
    try:
        identifier, backend = _backend(arguments)
        known, _ = secrets.fill({"backend": backend}, Releases().known(), Config)
        broker = MQTTBrokerConfig.model_validate(known["backend"]["mqtt_connection"])
        backend["mqtt_connection"] = broker.model_dump(mode="json", exclude_unset=True)  # a port is a number
    except pydantic.ValidationError as error:
        refuse(describe(error))
    except secrets.UnknownSecretError as error:
        refuse(str(error))
    if why := why_unknown(backend["provider"], identifier):
        refuse(f"--identifier: {why}")
    if not arguments.no_test:
        print(f"Trying to log in at {broker.host}:{broker.port} …", flush=True)
        if reason := checks_network.login(broker):
            refuse(f"nothing was changed: {reason}\nWith --no-test it is not tried.", 1)
        print("The broker lets this node in.")
    return update.apply_backend(identifier, backend, update.Wish.of(arguments))


def _backend(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The node's name at the backend, and the config's section for that."""
    provider = _answer(arguments.provider, "--provider", f"Backend, {' or '.join(_PROVIDERS)}", _PROVIDERS[0])
    identifier = _identifier(arguments.identifier, provider)
    address = _address(arguments)
    username = _answer(arguments.username, "--username", "User name, or access token", identifier)
    login = {"client_id": arguments.client_id or identifier, "username": username}
    connection = {**address, **login, "password": _password(arguments.password_file)}
    return identifier, {"provider": provider, "mqtt_connection": connection}


def _address(arguments: argparse.Namespace) -> dict[str, Any]:
    """Where the broker is: `host`, `port` and `tls` of the config."""
    host = _answer(arguments.host, "--host", "Host of the broker")
    encrypted = _is_yes(_answer(arguments.tls, "--tls", "Encrypted, yes or no", "yes"))
    port = _answer(arguments.port, "--port", "Port", str(PORTS[encrypted]))
    # From where it is tried here, a service would not find it.
    authorities = arguments.ca_file and os.path.abspath(arguments.ca_file)
    return {"host": host, "port": port, "tls": {"enabled": encrypted, "ca_file": authorities}}


def _registration(arguments: argparse.Namespace) -> Registration:
    """What a node needs to register. Its name is not asked for, as the host has one."""
    if arguments.provider not in (None, "thingsboard"):
        refuse(f"--provider: only thingsboard registers nodes, {arguments.provider} does not")
    key = _answer(arguments.provision_key, "--provision-key", "Provision key of the device profile")
    secret = _secret(arguments.provision_secret_file, "--provision-secret-file", "Provision secret: ")
    more = {"identifier": arguments.identifier, "client_id": arguments.client_id}
    given = {name: value for name, value in more.items() if value is not None}
    try:
        return Registration.model_validate(
            {**_address(arguments), **given, "provision_key": key, "provision_secret": secret}
        )
    except pydantic.ValidationError as error:
        refuse(describe(error))


def _refuse_beside(arguments: argparse.Namespace, option: str, others: tuple[str, ...]) -> None:
    for other in others:
        if getattr(arguments, other.replace("-", "_")) not in (None, False):
            refuse(f"--{other} means nothing beside {option}")


def _identifier(given: str | None, provider: str) -> str:
    """The node's name; asked for until the platform can know it. Nothing is proposed that it does not."""
    proposal = os.uname().nodename
    if given is not None or not sys.stdin.isatty():
        return given or proposal
    if why_unknown(provider, proposal):
        proposal = ""
    while why := why_unknown(provider, name := _answer(None, "--identifier", "Name of this node there", proposal)):
        print(why)
    return name


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
    given = _secret(file, "--password-file", "Password (for an access token: leave it empty): ")
    return given if file is not None else given or NO_PASSWORD


def _secret(file: str | None, option: str, question: str) -> str:
    """Not by an option: everybody can read the arguments of a process. May be empty."""
    try:
        if file is not None:
            return (sys.stdin.read() if file == "-" else Path(file).read_text(encoding=ENCODING)).strip()
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{option}: {'standard input' if file == '-' else file} cannot be read: {error}")
    if not sys.stdin.isatty():
        refuse(f"{option} is missing, and nobody is at the terminal to ask")
    return getpass.getpass(question)


def _is_yes(answer: str) -> bool:
    if answer.lower() not in ("yes", "no", "y", "n"):
        refuse(f"--tls: must be yes or no, not {answer!r}")
    return answer.lower().startswith("y")
