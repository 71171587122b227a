"""One MQTT connection that is remade whenever it breaks. The only module that knows paho and TLS.

Knows nothing of messages and configs. paho's callbacks only enqueue events; its network thread is not used.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from ivy.backend.delays import USUAL, Backoff
from ivy.types.config import MQTTBrokerConfig

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

# With dnspython, 3 MB, paho would look up SRV records, which ivy never asks for. Only paho takes it for missing.
# ssl, 2 MB, is needed without TLS too: paho names its errors when a socket of any kind has nothing to read.
_IS_NEW = sys.modules.setdefault("dns", None) is None  # type: ignore[arg-type]  # how Python says "not to be imported"
try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.reasoncodes import ReasonCode
finally:
    if _IS_NEW:
        del sys.modules["dns"]

_KEEPALIVE = 60
_SECONDS_UNTIL_STABLE = 10

# What MQTT 3.1.1 calls 4, 5 and 3, in paho's numbers: who reads "refused" should know whether to do something.
_REFUSALS = {
    134: "check client_id, username and password",
    135: "check client_id, username and password",
    136: "it is in trouble itself or limits the rate; nothing needs to be done here",
}


@dataclasses.dataclass(frozen=True)
class Connected:
    """The broker accepted connection and subscriptions."""


@dataclasses.dataclass(frozen=True)
class Disconnected:
    """The connection broke, or could not be made. What was not acknowledged must be published again."""

    reason: str
    seconds_to_next_try: float
    by_broker: bool = False
    """Whether the broker broke an established connection, for no reason that this side knows."""


@dataclasses.dataclass(frozen=True)
class Acknowledged:
    """The broker's PUBACK for what `publish` returned this token for."""

    token: int


@dataclasses.dataclass(frozen=True)
class Received:
    """A publication on a subscribed topic."""

    topic: str
    payload: bytes


Event = Connected | Disconnected | Acknowledged | Received
"""What a link has to tell."""


class MQTTLink:
    """Connects, reconnects with backoff, and subscribes with QoS 1 at every CONNACK; driven by calls of `wait`.

    All names, credentials and certificates are taken from the settings at each try, so a file that was missing
    may come later.
    """

    def __init__(
        self,
        settings: MQTTBrokerConfig,
        subscriptions: tuple[str, ...],
        backoff: Backoff | None = None,
        seconds_to_connect: float = USUAL.to_connect,
    ) -> None:
        self.is_connected = False
        self._settings = settings
        self._subscriptions = subscriptions
        self._events: collections.deque[Event] = collections.deque()
        self._backoff = backoff or Backoff()
        self._seconds_to_connect = seconds_to_connect
        self._was_useful = False  # whether this connection has delivered anything
        self._of_no_use: set[int] = set()  # publications that deliver nothing
        self._broken_by_broker = False
        self._client: paho.Client | None = None
        self._opening: _Opening | None = None
        self._next_try = self._began = time.monotonic()  # the next try, and the last one
        self._changed = 0.0  # when the connection was begun or accepted, monotonic
        self._loss: str | None = None  # why the connection is no good, found in a callback
        self._was_refused = False  # whether that was the broker's word

    @property
    def address(self) -> str:
        """The broker, `host:port`."""
        return f"{self._settings.host}:{self._settings.port}"

    def wait(self, wake: FileDescriptorLike, timeout: float) -> list[Event]:
        """Wait until the link has news, `wake` is readable, or so many seconds are over; return the news."""
        self._advance()
        self._select(wake, 0 if self._events else timeout)
        self._advance()
        events, self._events = list(self._events), collections.deque()
        return events

    def publish(self, topic: str, payload: bytes, *, is_delivery: bool = True) -> int:
        """Publish with QoS 1. If the link breaks before the PUBACK, nothing is sent again.

        Args:
            is_delivery: Whether its PUBACK proves the connection to be of use, so that the next try comes soon.

        Returns: The token that `Acknowledged` will carry.

        Raises:
            RuntimeError: There is no connection.
        """
        if self._client is None or not self.is_connected:
            raise RuntimeError("publish without a connection")
        token = self._client.publish(topic, payload, qos=1).mid
        if not is_delivery:
            self._of_no_use.add(token)
        return token

    def break_off(self, reason: str) -> None:
        """Give the connection up; another one will be made."""
        if self._client is not None:
            self._lose(reason)

    def close(self) -> None:
        """Disconnect politely, for good."""
        if self._client is not None and self.is_connected:
            self._client.disconnect()
        self._drop_client()

    def _advance(self) -> None:
        """Do what is due: begin a try, take over an opened connection, keep one alive, give one up."""
        now = time.monotonic()
        if self._opening is not None:
            self._take_over(self._opening)
        elif self._client is not None:
            self._client.loop_misc()
            if not self.is_connected and now - self._changed > self._seconds_to_connect:
                self._loss = self._loss or f"no answer from {self.address} within {self._seconds_to_connect:g} s"
            if self._loss is not None:
                self._lose(self._loss)
        elif now >= self._next_try:
            self._opening = _Opening(self._make_client, self._settings)
            self._changed = self._began = now

    def _take_over(self, opening: _Opening) -> None:
        if not opening.done.is_set():
            return
        opening.close()
        self._opening = None
        if opening.client is None:
            self._lose(opening.error)
        else:
            # The time to answer begins now: name look-up and dead addresses may have taken as long.
            self._client, self._changed = opening.client, time.monotonic()

    def _select(self, wake: FileDescriptorLike, timeout: float) -> None:
        client = self._client
        network: Any = client.socket() if client is not None else None
        readers = [wake, *filter(None, (self._opening, network))]
        writers = [network] if client is not None and network is not None and client.want_write() else []
        # What TLS has decrypted already, no select will announce.
        timeout = 0 if getattr(network, "pending", int)() else timeout
        readable, writable, _ = select.select(readers, writers, [], self._shortened(timeout))
        if client is not None and network is not None and (network in readable or timeout == 0):
            self._read(client)
        if client is not None and network in writable:
            client.loop_write()

    def _read(self, client: paho.Client) -> None:
        try:
            client.loop_read()
        except Exception as error:  # paho's parser raises whatever a malformed packet leads it to
            self._loss = f"{self.address} does not speak MQTT: {type(error).__name__}: {error}"

    def _shortened(self, timeout: float) -> float:
        if self._client is None and self._opening is None:
            return max(0.0, min(timeout, self._next_try - time.monotonic()))
        return timeout

    def _lose(self, reason: str) -> None:
        by_broker, self._broken_by_broker = self.is_connected and self._broken_by_broker, False
        now = time.monotonic()
        held = self.is_connected and now - self._changed > _SECONDS_UNTIL_STABLE
        delay = self._backoff.next_delay(
            useful=held or self._was_useful, refused=self._was_refused, lasted=now - self._began
        )
        self._was_useful = self._was_refused = False
        self._of_no_use.clear()
        self._drop_client()
        self._next_try = now + delay
        self._events.append(Disconnected(reason, delay, by_broker))

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        self.is_connected, self._loss = False, None
        if client is not None:
            client.on_disconnect = None
            if (connection := client.socket()) is not None:
                connection.close()

    def _make_client(self) -> paho.Client:
        """A new client for each connection: paho would send again what it had in flight, window or not."""
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=paho.MQTTv311,
            clean_session=True,
            reconnect_on_failure=False,  # it would, blocking, with an older MQTT
        )
        client.username_pw_set(settings.username, settings.password)
        client.max_inflight_messages_set(0)  # the forwarder keeps the window
        client.connect_timeout = self._seconds_to_connect
        if settings.tls.enabled:
            for path in filter(None, (settings.tls.ca_file, settings.tls.certificate_file, settings.tls.key_file)):
                open(path, "rb").close()  # its error names the file; that of tls_set does not
            client.tls_set(settings.tls.ca_file, settings.tls.certificate_file, settings.tls.key_file)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        if code.is_failure:
            hint = _REFUSALS.get(code.value)
            self._was_refused = True
            self._loss = f"{self.address} refused the connection: {code}" + (f" ({hint})" if hint else "")
        elif self._subscriptions:
            client.subscribe([(topic, 1) for topic in self._subscriptions])
        else:
            self._come_up()

    def _on_subscribe(self, _client: paho.Client, _data: Any, _mid: int, codes: list[ReasonCode], *_: Any) -> None:
        refused = [topic for topic, code in zip(self._subscriptions, codes, strict=False) if code.is_failure]
        if refused:
            self._was_refused = True
            self._loss = f"{self.address} refused the subscription to {', '.join(refused)}"
        else:
            self._come_up()

    def _come_up(self) -> None:
        self.is_connected = True
        self._changed = time.monotonic()
        self._events.append(Connected())

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, *_: Any) -> None:
        self._broken_by_broker = self._loss is None and str(code) != "Keep alive timeout"
        self._loss = self._loss or f"the connection to {self.address} broke: {code}"

    def _on_publish(self, _client: paho.Client, _data: Any, mid: int, _code: ReasonCode, _properties: Any) -> None:
        self._was_useful = self._was_useful or mid not in self._of_no_use
        self._events.append(Acknowledged(mid))

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        with contextlib.suppress(UnicodeDecodeError):  # in the topic, so it is none of those subscribed to
            self._events.append(Received(message.topic, message.payload))


class _Opening:
    """A try to connect, in a thread, as name look-up and TLS handshake block. Waits for no CONNACK."""

    def __init__(self, make_client: Any, settings: MQTTBrokerConfig) -> None:
        self.done = threading.Event()
        self.client: paho.Client | None = None
        self.error = ""
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._make_client = make_client
        self._settings = settings
        threading.Thread(target=self._open, daemon=True).start()

    def fileno(self) -> int:
        return self._bell

    def close(self) -> None:
        os.close(self._bell)

    def _open(self) -> None:
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            client: paho.Client = self._make_client()
            code = client.connect(self._settings.host, self._settings.port, _KEEPALIVE)
            if code == paho.MQTT_ERR_SUCCESS:
                self.client = client
            else:
                self.error = f"cannot connect to {address}: {paho.error_string(code)}"
        except (OSError, ValueError) as error:  # network, name look-up, TLS, a missing or bad certificate file
            self.error = f"cannot connect to {address}: {error}"
        finally:
            os.eventfd_write(self._bell, 1)
            self.done.set()  # last: whoever sees it closes the bell
