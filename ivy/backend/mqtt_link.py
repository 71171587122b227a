"""One MQTT connection that is remade whenever it breaks, of either version of MQTT. Knows neither paho nor TLS.

Knows nothing of messages and configs. paho's callbacks only enqueue events; its network thread is not used.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ivy.backend import reasons
from ivy.backend.delays import USUAL, Backoff
from ivy.backend.paho_client import LARGEST_PACKET, Client, FarTooLarge
from ivy.backend.protocol_choice import Protocol, ProtocolChoice
from ivy.backend.sockets import Opened, SocketOpener
from ivy.types.config import MQTTBrokerConfig, TLSConfig
from ivy.utils.host import clock

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_KEEPALIVE = 60
_SECONDS_UNTIL_STABLE = 10
_MOST_IN_FLIGHT = 65_535
"""Publications: more cannot be told apart, and a broker that names no number takes so many."""
_LARGEST_OF_MQTT = 268_435_455 + 5
_SHARE_OF_MQTT_5 = 1 / 3
"""Of the time for an answer, where another version is tried after it."""


@dataclasses.dataclass(frozen=True)
class Connected:
    """The broker accepted connection and subscriptions."""

    unchecked: str | None = None
    """Why the dates of its certificates were not checked; None if they were, or it has none."""


@dataclasses.dataclass(frozen=True)
class Disconnected:
    """The connection broke, or could not be made. What was not acknowledged must be published again."""

    reason: str
    seconds_to_next_try: float
    by_broker: bool = False
    """Whether the broker broke an established connection, for no reason that this side knows, or over a message."""
    code: int | None = None
    """What the broker's DISCONNECT said; None if there was none."""
    is_unknown: bool = False
    """Whether the broker refused the login itself: it does not know user name or password, or forbids them."""


@dataclasses.dataclass(frozen=True)
class Acknowledged:
    """The broker's PUBACK for what `publish` returned this token for. It need not mean that anybody has it."""

    token: int
    code: int = 0
    """See `reasons.fate`."""
    said: str = ""
    """What the broker added, in words."""


@dataclasses.dataclass(frozen=True)
class Received:
    """A publication on a subscribed topic."""

    topic: str
    payload: bytes


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """A publication that was not kept, as it is larger than what is taken."""

    size: int
    """Bytes, at least."""


Event = Connected | Disconnected | Acknowledged | Received | TooLarge
"""What a link has to tell."""


class MQTTLink:
    """Connects, reconnects with backoff, and subscribes with QoS 1 at every CONNACK; driven by calls of `wait`.

    All names, credentials and certificates are taken from the settings at each try, so a file that was missing
    may come later.

    A publication so large that it would not fit into memory breaks the connection. The next one subscribes only
    after a pause, each time a longer one, as the broker may have retained it: messages are sent meanwhile.
    """

    def __init__(
        self,
        settings: MQTTBrokerConfig,
        subscriptions: tuple[str, ...],
        backoff: Backoff | None = None,
        seconds_to_connect: float = USUAL.to_connect,
        largest_payload: int = LARGEST_PACKET,
    ) -> None:
        """Touches nothing.

        Args:
            largest_payload: Bytes of the largest publication that is handed on.
        """
        self.is_connected = False
        self._settings = settings
        self._subscriptions = subscriptions
        self._events: collections.deque[Event] = collections.deque()
        self._backoff = backoff or Backoff()
        self._seconds_to_connect = seconds_to_connect
        self._was_useful = False  # whether this connection has delivered anything
        self._of_no_use: set[int] = set()  # publications that deliver nothing
        self._broken_by_broker = False
        self._client: Client | None = None
        self._opener = SocketOpener(settings, seconds_to_connect)
        self._opened: Opened | None = None  # beneath the client
        self._choice = ProtocolChoice(settings.protocol)
        self._unacknowledged: set[int] = set()
        self._most_in_flight = _MOST_IN_FLIGHT
        self._aliases: dict[str, int] = {}  # topics that the broker knows by a number
        self._most_aliases = 0
        self._keepalive = _KEEPALIVE
        self.largest_packet = _LARGEST_OF_MQTT
        """Bytes of a packet that the broker takes."""
        self._opening: _Opening | None = None
        self._clock = clock.Watch()
        self._next_try = self._began = time.monotonic()  # the next try, and the last one
        self._changed = 0.0  # when the connection was begun or accepted, monotonic
        self._loss: str | None = None  # why the connection is no good, found in a callback
        self._was_refused = False  # whether that was the broker's word
        self._is_unknown = False  # and whether it was about user name or password
        self._was_silent = False  # or that it said nothing any more
        self._is_answered = False  # whether it understood the CONNECT
        self._largest_payload = largest_payload
        self._deafness = Backoff()  # how long not to subscribe after what was far too large
        self._listens_at = 0.0  # when to subscribe again, monotonic
        self._listens_since: float | None = None  # the SUBACK of this connection
        self._asked_to_listen = False

    @property
    def address(self) -> str:
        """The broker, `host:port`."""
        return f"{self._settings.host}:{self._settings.port}"

    @property
    def protocol(self) -> Protocol:
        """The version of MQTT that is spoken, or tried next."""
        return self._choice.current

    @property
    def room(self) -> int:
        """How many publications more the broker takes before it has acknowledged others."""
        return self._most_in_flight - len(self._unacknowledged)

    @property
    def bytes_carried(self) -> int:
        """Bytes that this connection has carried; what the other end has not confirmed is on its way yet."""
        return self._client.bytes_carried() if self._client is not None else 0

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
                Only topics of such publications are given a number, as others hardly come twice.

        Returns: The token that `Acknowledged` will carry.

        Raises:
            RuntimeError: There is no connection.
        """
        if self._client is None or not self.is_connected:
            raise RuntimeError("publish without a connection")
        token = self._client.send(*self._addressed(topic, payload, is_delivery=is_delivery))
        self._unacknowledged.add(token)
        if not is_delivery:
            self._of_no_use.add(token)
        return token

    def _addressed(self, topic: str, payload: bytes, *, is_delivery: bool) -> tuple[str, bytes, int | None]:
        """By the number alone, once the broker knows it: every byte of a topic is paid for."""
        if (alias := self._aliases.get(topic)) is not None:
            return "", payload, alias
        if not is_delivery or len(self._aliases) >= self._most_aliases:
            return topic, payload, None
        self._aliases[topic] = len(self._aliases) + 1
        return topic, payload, self._aliases[topic]

    def listen_unanswered(self, topic: str) -> None:
        """Subscribe to one topic more, and wait for no SUBACK: ThingsBoard gives none to who is not a device yet.

        Raises:
            RuntimeError: There is no connection.
        """
        if self._client is None or not self.is_connected:
            raise RuntimeError("subscribe without a connection")
        self._client.subscribe([(topic, 1)])

    def break_off(self, reason: str) -> None:
        """Give the connection up; another one will be made."""
        if self._client is not None:
            self._was_silent = True
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
            if self.is_connected:
                self._listen(self._client)
            most = self._seconds_to_answer()
            if not self.is_connected and now - self._changed > most:
                self._was_silent = self._loss is None
                self._loss = self._loss or f"no answer from {self.address} within {most:g} s"
            if self._opened is not None and self._opened.unchecked and clock.is_synchronised():
                self._loss = self._loss or "the clock is synchronised now, so the certificates are checked again"
            if self._loss is not None:
                self._lose_or_change(self._client, self._loss)
        elif now >= self._next_try or self._clock.has_changed():
            self._opening = _Opening(self._opener, self._make_client, self._settings)
            self._changed = self._began = now

    def _seconds_to_answer(self) -> float:
        shared = self._choice.may_change and not self._is_answered
        return self._seconds_to_connect * (_SHARE_OF_MQTT_5 if shared else 1)

    def _lose_or_change(self, client: Client, reason: str) -> None:
        """Give the connection up, or try the other version of MQTT first, if it may be for that."""
        in_words = client.connack_code is not None and _wants_other_version(client)
        if self._is_answered and not in_words:
            self._choice.ended()
        elif self._choice.not_accepted(in_words=in_words):
            self._drop_client()
            self._was_refused = self._was_silent = self._broken_by_broker = False
            self._next_try = time.monotonic()
            return
        self._lose(reason)

    def _take_over(self, opening: _Opening) -> None:
        if not opening.done.is_set():
            return
        opening.close()
        self._opening = None
        if opening.client is None:
            self._lose(opening.error)
        else:
            # The time to answer begins now: name look-up and dead addresses may have taken as long.
            self._client, self._opened, self._changed = opening.client, opening.opened, time.monotonic()

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

    def _read(self, client: Client) -> None:
        try:
            client.loop_read()
        except FarTooLarge as error:
            self._be_deaf(error.size)
        except Exception as error:  # paho's parser raises whatever a malformed packet leads it to
            self._loss = f"{self.address} does not speak MQTT: {type(error).__name__}: {error}"

    def _be_deaf(self, size: int) -> None:
        now = time.monotonic()
        held = self._listens_since is not None and now - self._listens_since > _SECONDS_UNTIL_STABLE
        pause = self._deafness.next_delay(useful=held, refused=True, lasted=0.0)
        self._listens_at = now + pause
        self._was_useful = True  # the broker is there, and takes messages
        self._loss = f"{self.address} sent a packet of {size} bytes; it is listened to again in {pause:.0f} s"
        self._events.append(TooLarge(size))

    def _listen(self, client: Client) -> None:
        """Subscribe, unless that is done or must wait."""
        if self._subscriptions and not self._asked_to_listen and time.monotonic() >= self._listens_at:
            client.subscribe([(topic, 1) for topic in self._subscriptions])
            self._asked_to_listen = True

    def _shortened(self, timeout: float) -> float:
        now = time.monotonic()
        if self._client is None and self._opening is None:
            return max(0.0, min(timeout, self._next_try - now))
        if self.is_connected and self._subscriptions and not self._asked_to_listen:
            return max(0.0, min(timeout, self._listens_at - now))
        return min(timeout, self._keepalive / 2)

    def _lose(self, reason: str) -> None:
        by_broker, self._broken_by_broker = self.is_connected and self._broken_by_broker, False
        now = time.monotonic()
        if self._opened is not None:
            self._opener.lost(self._opened.address, silent=self._was_silent)
        self._clock.has_changed()  # from here on is what counts
        code = self._client.disconnect_code if self._client is not None else None
        held = self.is_connected and now - self._changed > _SECONDS_UNTIL_STABLE
        # Two that have one client_id would throw each other out at each second, for a TLS handshake each time.
        useful = (held or self._was_useful) and code != reasons.TAKEN_OVER
        delay = self._backoff.next_delay(useful=useful, refused=self._was_refused, lasted=now - self._began)
        is_unknown = self._is_unknown
        self._was_useful = self._was_refused = self._was_silent = self._is_unknown = False
        self._drop_client()
        self._next_try = now + delay
        self._events.append(Disconnected(reason, delay, by_broker, code, is_unknown))

    def _drop_client(self) -> None:
        client, self._client, self._opened = self._client, None, None
        self.is_connected, self._is_answered, self._loss = False, False, None
        self._listens_since, self._asked_to_listen = None, False
        self._of_no_use.clear()
        self._unacknowledged.clear()
        self._aliases.clear()
        if client is not None:
            client.on_disconnect = None
            if (connection := client.socket()) is not None:
                connection.close()

    def _make_client(self, opened: Opened) -> Client:
        """A new client for each connection: paho would send again what it had in flight, window or not."""
        settings = self._settings
        client = Client(opened.connection, settings.client_id, self._choice.current)
        client.username_pw_set(settings.username, settings.password or None)  # empty: see `ivy.backend.entry`
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: Any, _data: Any, _flags: Any, code: Any, properties: Any) -> None:
        self._is_answered = True
        if code.is_failure:
            self._was_refused = True
            self._is_unknown = reasons.is_about_login(_reason_of(client))
            self._loss = f"{self.address} refused the connection: {_why_refused(client)}"
            return
        self._choice.accepted()
        self._take_terms(client, properties)
        self._listen(client)
        if not self._asked_to_listen:
            self._come_up()

    def _take_terms(self, client: Client, properties: Any) -> None:
        """What the broker allows over this connection; with MQTT 3.1.1 it cannot say."""
        self._most_in_flight = getattr(properties, "ReceiveMaximum", _MOST_IN_FLIGHT)
        self.largest_packet = getattr(properties, "MaximumPacketSize", _LARGEST_OF_MQTT)
        self._most_aliases = getattr(properties, "TopicAliasMaximum", 0)
        # To hear less of this side it may want; of a dead line we want to know ourselves.
        self._keepalive = min(_KEEPALIVE, getattr(properties, "ServerKeepAlive", 0) or _KEEPALIVE)
        client.keep_to(self._most_in_flight, self._keepalive)

    def _on_subscribe(self, client: Any, _data: Any, _mid: int, codes: list[Any], *_: Any) -> None:
        refused = {topic: code for topic, code in zip(self._subscriptions, codes, strict=False) if code.is_failure}
        if refused:
            self._was_refused = True
            why = reasons.of_subscription(next(iter(refused.values())).value)
            self._loss = f"{self.address} refused the subscription to {', '.join(refused)}: {why}"
            return
        self._listens_since = time.monotonic()
        if not self.is_connected:
            self._come_up()

    def _come_up(self) -> None:
        self.is_connected = True
        self._changed = time.monotonic()
        self._events.append(Connected(self._opened.unchecked if self._opened else None))

    def _on_disconnect(self, client: Any, _data: Any, _flags: Any, code: Any, *_: Any) -> None:
        self._was_silent, said = str(code) == "Keep alive timeout", client.disconnect_code
        over_a_message = not self._was_silent and reasons.may_be_over_a_message(said)
        # Reading may find it broken, and then writing once more.
        self._broken_by_broker |= self._loss is None and over_a_message
        if said:
            self._was_refused = not self.is_connected
            why = f"{self.address} ended the connection: {reasons.of_connection(said, client.said)}"
        elif client.connack_code is None:
            why = f"{self.address} closed the connection instead of an answer{_hint(self._settings.tls)}"
        elif _wants_other_version(client):
            self._was_refused = True
            why = f"{self.address} refused the connection: {_why_refused(client)}"
        else:
            why = f"the connection to {self.address} broke" + (": keep alive timeout" if self._was_silent else "")
        self._loss = self._loss or why

    def _on_publish(self, client: Any, _data: Any, mid: int, _code: Any, _properties: Any) -> None:
        code, said = (client.puback_code, client.said) if client.is_5 else (0, "")
        has_delivered = reasons.fate(code) is reasons.Fate.DELIVERED and mid not in self._of_no_use
        self._was_useful = self._was_useful or has_delivered
        self._unacknowledged.discard(mid)
        self._events.append(Acknowledged(mid, code, said))

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        if len(message.payload) > self._largest_payload:
            self._events.append(TooLarge(len(message.payload)))
            return
        with contextlib.suppress(UnicodeDecodeError):  # in the topic, so it is none of those subscribed to
            self._events.append(Received(message.topic, message.payload))


def _hint(tls: TLSConfig) -> str:
    """What may be the matter with a broker that ends a connection at its beginning, and says nothing."""
    if not tls.enabled:
        return " (does it want encryption? See tls.enabled, and port)"
    if tls.certificate_file is None:
        return " (does it want a certificate of this node? See tls.certificate_file)"
    return f" (does it refuse the certificate in {tls.certificate_file}?)"


def _wants_other_version(client: Client) -> bool:
    code = client.connack_code or 0
    return (code if client.is_5 and code != 1 else reasons.of_3_1_1(code)) == reasons.OTHER_VERSION


def _why_refused(client: Client) -> str:
    if _wants_other_version(client):
        spoken = "5" if client.is_5 else "3.1.1"
        return f"it does not speak MQTT {spoken} ({reasons.of_connection(reasons.OTHER_VERSION, client.said)})"
    return reasons.of_connection(_reason_of(client), client.said)


def _reason_of(client: Client) -> int:
    """What the CONNACK said, by the numbers of MQTT 5."""
    code = client.connack_code or 0
    return code if client.is_5 else reasons.of_3_1_1(code)


class _Opening:
    """A try to connect, in a thread, as name look-up and TLS handshake block. Waits for no CONNACK."""

    def __init__(
        self, opener: SocketOpener, make_client: Callable[[Opened], Client], settings: MQTTBrokerConfig
    ) -> None:
        self.done = threading.Event()
        self.client: Client | None = None
        self.opened: Opened | None = None
        self.error = ""
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._opener = opener
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
            self.opened = self._opener.open()
            client = self._make_client(self.opened)
            if error := client.begin(self._settings.host, self._settings.port, _KEEPALIVE):
                self.error = f"cannot connect to {address}: {error}{_hint(self._settings.tls)}"
            else:
                self.client = client
        except (OSError, ValueError) as error:  # network, name look-up, TLS, a missing or bad certificate file
            self.error = f"cannot connect to {address}: {error}"
        finally:
            os.eventfd_write(self._bell, 1)
            self.done.set()  # last: whoever sees it closes the bell
