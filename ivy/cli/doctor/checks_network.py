"""`ivy doctor`: the way to the broker and to the source of new versions. Names, TLS, login, tags, signatures."""

import datetime
import socket
import ssl
import time
from collections.abc import Iterator, Mapping

from ivy import overview
from ivy.cli.doctor.finding import Finding
from ivy.types import secrets
from ivy.types.config import BackendConfig, Config, MQTTBrokerConfig, UpdaterConfig
from ivy.utils.host.commands import CommandError
from ivy.utils.updates import signers, source
from ivy.utils.updates.errors import Rejected, Trouble
from ivy.utils.updates.releases import Releases

_SECONDS_TO_ANSWER = 20.0
_DAYS_TO_RENEW = 14
_SET_CLOCK = (
    "timedatectl set-ntp true; is there a time server that answers? If the clock is right, the broker's admin must"
    " renew the certificate"
)


def backend(config: Config) -> Iterator[Finding]:
    """Whether the broker can be reached and entered."""
    if config.backend is None:
        yield Finding("backend", "none is configured: messages are kept on this node")
        return
    broker = config.backend.mqtt_connection
    resolved = _resolve(broker.host)
    yield resolved
    if not resolved.ok:
        return
    if broker.tls.enabled:
        yield _tls(broker)
    yield _login(config.backend)


def updates(updater: UpdaterConfig | None) -> Iterator[Finding]:
    """Whether another version could be fetched, and would be believed."""
    if updater is None:
        yield Finding("updates", "updater is null: this node takes no other version")
        return
    yield _resolve(updater.provider_host.partition(":")[0])
    yield _repository(updater)
    yield signatures(updater)


def login(broker: MQTTBrokerConfig) -> str | None:
    """Try to log in at a broker. Whoever is logged in with the same names is thrown out.

    Returns: Why it is not possible; None if it is.
    """
    from ivy.backend import entry  # not at the top: with it comes paho

    outcome = entry.login(broker, _SECONDS_TO_ANSWER)
    return None if outcome.kind == "done" else outcome.text


def _resolve(host: str) -> Finding:
    try:
        addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None)})
    except (OSError, UnicodeError) as error:
        remedy = "is the name right? resolvectl query, or cat /etc/resolv.conf; is there a network: ip address"
        return Finding("dns", f"{host} has no address: {error}", remedy)
    return Finding("dns", f"{host} is {', '.join(addresses[:3])}")


def _tls(broker: MQTTBrokerConfig) -> Finding:
    from ivy.backend.sockets import SocketOpener

    try:
        opened = SocketOpener(broker, _SECONDS_TO_ANSWER).open()
    except (OSError, ValueError) as error:  # also ssl.SSLError, and certificate files that are not there
        remedy = "check backend.mqtt_connection.tls, its files, port, and the node's clock"
        return Finding("tls", f"{broker.host}:{broker.port}: {error}", remedy)
    with opened.connection as encrypted:
        if opened.unchecked:
            return Finding("tls", opened.unchecked, _SET_CLOCK)
        certificate = encrypted.getpeercert() if isinstance(encrypted, ssl.SSLSocket) else None
        return _expiry(certificate or {})


def _expiry(certificate: Mapping[str, object]) -> Finding:
    until = ssl.cert_time_to_seconds(str(certificate.get("notAfter", "Jan  1 00:00:00 2100 GMT")))
    date = datetime.datetime.fromtimestamp(until, datetime.UTC).date()
    if until - time.time() < _DAYS_TO_RENEW * 86_400:
        return Finding("tls", f"the broker's certificate ends on {date}", "the broker's admin must renew it")
    return Finding("tls", f"the broker's certificate is good until {date}")


def _login(backend: BackendConfig) -> Finding:
    """By the service's own word: another login would throw it out."""
    link = overview.link(backend, [])
    if link.connected and link.troubles:
        remedy = "start the server behind the broker, or check its rights and topics"
        return Finding("login", f"connected to {link.broker}, but {'; '.join(link.troubles)}", remedy)
    if link.connected and link.stuck_seconds is not None:
        said = (
            f"connected to {link.broker}, which has not acknowledged what was sent {link.stuck_seconds:.0f} s ago"
        )
        return Finding("login", said, "look at the broker's log; is it out of memory, or its disk full?")
    if link.connected:
        return Finding("login", f"the backend is connected to {link.broker}")
    if secrets.HIDDEN in (backend.mqtt_connection.username, backend.mqtt_connection.password):
        said = f"not tried, as user name or password is {secrets.HIDDEN}: who asks may not read it, or it was lost"
        return Finding("login", said, "sudo ivy doctor, which says more about secrets")
    reason = login(backend.mqtt_connection)
    if reason is None:
        return Finding("login", f"{link.broker} lets this node in; the backend will be back soon")
    return Finding("login", reason, "check backend.mqtt_connection: host, port, client_id, username, password, tls")


def _repository(updater: UpdaterConfig) -> Finding:
    try:
        tags = source.Source(updater, Releases().root).list_tags()
    except (Rejected, Trouble, CommandError, OSError, LookupError) as error:
        remedy = "check updater and the network; run this as root"
        return Finding("repository", str(error).replace("\n", "; "), remedy)
    if not tags:
        return Finding("repository", "it has no tag of the form v1.2.3", "tag a release")
    return Finding("repository", f"{len(tags)} versions can be fetched, the newest is {tags[-1]}")


def signatures(updater: UpdaterConfig) -> Finding:
    """Whether only versions of known people are believed."""
    path = source.ALLOWED_SIGNERS
    if not updater.require_signed_tags:
        remedy = f"set updater.require_signed_tags to true, and list the maintainers' keys in {path}"
        return Finding("signatures", "any tag is believed, whoever made it", remedy)
    try:
        have_keys = signers.lines_with_a_key(path.read_bytes())
    except OSError as error:
        remedy = f"list the maintainers' keys in {path}"
        return Finding("signatures", f"no version can be believed: {error}", remedy)
    if not have_keys:
        return Finding("signatures", f"{path} holds no key", "see ssh-keygen(1), ALLOWED SIGNERS")
    if bad := [number for number, has_key in have_keys.items() if not has_key]:
        remedy = "one key in each line, as ssh-keygen(1) says; is another glued to it, as the last line had no end?"
        return Finding("signatures", f"no version can be believed: {path}, line {bad[0]}, holds no key", remedy)
    return Finding("signatures", f"{len(have_keys)} keys may sign a version")
