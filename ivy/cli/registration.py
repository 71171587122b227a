"""`ivy setup` of a node that registers itself at ThingsBoard, by what options say or a file that a new node finds.

A token that works is never replaced. One that was asked for is kept until the config with it is accepted: a node
that loses its power, or the answer, in between finds in by it the next time.
"""

import contextlib
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic

from ivy import constants, overview
from ivy.backend import entry
from ivy.backend.entry import Outcome
from ivy.cli import update
from ivy.cli.main import refuse
from ivy.files import open_regular, remove, write_atomically
from ivy.types.config import BackendConfig, ConfigError
from ivy.types.registration import Registration
from ivy.types.secrets import HIDDEN
from ivy.types.secrets_file import ENCODING
from ivy.utils.host import rights
from ivy.utils.updates.releases import Releases

_MOST_BYTES = 65_536
_KEPT = "registration.json"
_BYTES_OF_TOKEN = 16


def by_file(name: str) -> int:
    """Register as a file says, and remove it when that is done: all of it is in the config then, or not needed.

    Returns: The exit status: that of `register`; 1, too, if the file could not be removed.
    """
    path = Path(os.path.realpath(name))  # it may be a link, to where a card's user can write
    try:
        wish = Registration.parse(_read(path))
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{name} cannot be read: {error}", constants.EXIT_CONFIG_ERROR)
    except ConfigError as error:
        lines = "\n".join(f"{name}: {line}" for line in str(error).splitlines())
        refuse(
            f"{lines}\nCorrect it; it is read again at the next boot, or by: ivy setup --provision-file {name}", 78
        )
    if (status := register(wish)) != 0:
        return status
    try:
        remove(str(path))
    except OSError as error:
        print(f"ivy: {name}, which holds a secret, cannot be removed: {error}; remove it", file=sys.stderr)
        return 1
    print(f"{name} was removed.")
    return 0


def _read(path: Path) -> str:
    """The file's text. From here on nobody else can read it, where its file system knows such a thing."""
    with os.fdopen(open_regular(str(path), most_bytes=_MOST_BYTES), "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            with contextlib.suppress(OSError):  # FAT has one mode for all files
                os.fchmod(file.fileno(), 0o600)
        return file.read(_MOST_BYTES).decode(ENCODING)


def register(wish: Registration, how: update.Wish = update.PATIENT) -> int:
    """Register this node, unless it is registered already, and use the config with its token.

    Returns: The exit status: 0 done, or nothing to do; 1 the platform says no, or the config was rejected; 75 it
        must be tried again; 130 interrupted.
    """
    releases = Releases()
    if (status := _keep_what_works(wish, releases)) is not None:
        if status == 0:
            _forget(releases)
        return status
    broker = wish.broker("none yet")
    print(f"Registering {wish.identifier} at {broker.host}:{broker.port} …", flush=True)
    outcome = _token(wish, releases)
    if outcome.kind != "done":
        print(f"ivy: nothing was changed: {outcome.text}", file=sys.stderr)
        return 1 if outcome.kind == "refused" else constants.EXIT_TRY_AGAIN
    print("The platform lets this node in.", flush=True)
    connection = wish.broker(outcome.text).model_dump(mode="json", exclude_unset=True)
    backend = {"provider": wish.provider, "mqtt_connection": connection}
    status = update.apply_backend(wish.identifier, backend, how)
    if status == 0:
        _forget(releases)
    return status


def _keep_what_works(wish: Registration, releases: Releases) -> int | None:
    """The exit status, if this node is known there, or nobody can tell; None if it must register."""
    is_on_trial = releases.previous() is not None  # asked first: by the next line it may have been undone
    active = releases.known()
    try:
        backend = BackendConfig.model_validate(active.get("backend"))
        name = active["general"]["system_identifier"]
    except (pydantic.ValidationError, AttributeError, LookupError, TypeError):
        return None
    broker = backend.mqtt_connection
    if backend.provider != wish.provider or broker.host != wish.host or broker.username == HIDDEN:
        return None
    is_connected = overview.link(backend, []).connected  # another login would throw the service out
    outcome = Outcome("done", "") if is_connected else _ask(lambda: entry.login(broker))
    if outcome.kind == "refused":
        print(f"{broker.host}:{broker.port} does not know this node's token any more.", flush=True)
        return None
    if outcome.kind == "away":
        print(f"ivy: nobody can tell whether the token that this node has works: {outcome.text}", file=sys.stderr)
        return constants.EXIT_TRY_AGAIN
    if name != wish.identifier:
        why = f"this node is registered at {broker.host} as {name}, and not once more as {wish.identifier}"
        remedy = "to rename it, rename the device at the platform, and general.system_identifier: ivy config edit"
        refuse(f"{why}; {remedy}", 1)
    if is_on_trial:  # as after a power cut: where that is undone, the token is needed again
        print("ivy: the config with this node's token is on trial", file=sys.stderr)
        return constants.EXIT_TRY_AGAIN
    print(f"{name} is registered at {broker.host}:{broker.port}, and its token works: nothing was changed.")
    return 0


def _token(wish: Registration, releases: Releases) -> Outcome:
    """A token by which the platform lets this node in: that of a try before, or a new one."""
    kept = _kept(wish, releases)
    if kept is not None:
        outcome = _ask(lambda: entry.login(wish.broker(kept)))
        if outcome.kind != "refused":
            return outcome._replace(text=kept) if outcome.kind == "done" else outcome
    token = kept or secrets.token_urlsafe(_BYTES_OF_TOKEN)
    write_atomically(releases.root / _KEPT, json.dumps({**_identity(wish), "token": token}), mode=0o600)
    broker = wish.broker(token)
    key, secret = str(wish.provision_key), str(wish.provision_secret)
    return _ask(lambda: entry.register(broker, wish.identifier, key, secret, token))


def _ask(work: Callable[[], Outcome]) -> Outcome:
    """Do it as who speaks to the broker later: what comes from there, root does not parse."""
    try:
        return Outcome(*rights.ask(work, constants.BACKEND_DIR))
    except rights.NoAnswer as error:
        return Outcome("away", str(error))


def _identity(wish: Registration) -> dict[str, Any]:
    """What a token is for."""
    return {"host": wish.host, "identifier": wish.identifier}


def _kept(wish: Registration, releases: Releases) -> str | None:
    """The token that a try before has asked for, under this name and at this host."""
    try:
        kept = json.loads((releases.root / _KEPT).read_bytes())
        token = kept.pop("token")
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None
    return token if kept == _identity(wish) and isinstance(token, str) and token else None


def _forget(releases: Releases) -> None:
    with contextlib.suppress(OSError):  # it is of no more use, and does no harm
        remove(str(releases.root / _KEPT))
