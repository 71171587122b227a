"""How a connection to a broker is opened: whichever address answers first, encrypted, within a time for all of it.

Knows TCP and TLS, and no MQTT. All of it blocks, so it is for a thread.
"""

import collections
import dataclasses
import errno
import itertools
import os
import select
import socket
import ssl
import time
from collections.abc import Sequence

from ivy.backend import encryption
from ivy.backend.addresses import Address, Order, Resolver
from ivy.types.config import MQTTBrokerConfig

_SECONDS_AHEAD = 0.25
"""What one address has before the next one is tried, too; see RFC 8305."""
_MOST_ADDRESSES = 16
_MOST_NAMED = 4
_SMALL_SEGMENT = 536
"""Bytes of a TCP segment that every way carries."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A connection on which nothing was sent yet, but for TLS."""

    connection: socket.socket
    address: Address
    unchecked: str | None = None
    """Why the dates of certificates were not checked; None if they were, or there are none."""


class SocketOpener:
    """Opens connections to one broker, one at a time, and learns from those that were lost."""

    def __init__(self, settings: MQTTBrokerConfig, seconds: float) -> None:
        """Touches nothing.

        Args:
            seconds: What a try may take, from the name's look-up to the end of the TLS handshake.
        """
        self._settings = settings
        self._seconds = seconds
        self._resolver = Resolver()
        self._order = Order()
        self._is_small = False

    def open(self) -> Opened:
        """Connect to one of the broker's addresses.

        Raises:
            OSError: Name, network, TLS, or a certificate file; the error says which.
            ValueError: The name is none, or a certificate file is bad.
        """
        deadline = time.monotonic() + self._seconds
        settings = self._settings
        context = encryption.context(settings.tls) if settings.tls.enabled else None  # its files, before all else
        # Half of the time at most. What a slower name server says is there for the next try, which has all of it.
        found = self._resolver.addresses(settings.host, settings.port, self._seconds / 2)
        race = _Race(self._order.of(found)[:_MOST_ADDRESSES], self._is_small)
        try:
            connection, address = race.run(deadline, self._seconds)
        except OSError:
            self._is_small = False  # not even small packets came through: that was an outage
            raise
        finally:
            for slow in race.beaten:
                self._order.failed(slow)
        if context is None:
            return Opened(connection, address)
        try:
            return self._encrypted(connection, address, context, deadline)
        except TimeoutError:
            self.lost(address, silent=True)
            raise TimeoutError(errno.ETIMEDOUT, f"{address} did not end the TLS handshake in time") from None
        except OSError:
            self._order.failed(address)
            raise

    def lost(self, address: Address, *, silent: bool) -> None:
        """A connection to this address is over. The next try begins with the others.

        Args:
            silent: Whether this side ended it, as nothing came any more. Large packets may be what vanishes on the
                way, in either direction: the next connection has only small ones, both ways.
        """
        self._order.failed(address)
        self._is_small = silent

    def _encrypted(
        self, plain: socket.socket, address: Address, context: ssl.SSLContext, deadline: float
    ) -> Opened:
        host = self._settings.host
        try:
            return Opened(encryption.encrypt(plain, context, host, deadline), address)
        except ssl.SSLCertVerificationError as error:
            why = encryption.reason_to_ignore_dates(error, self._settings.tls)
            if why is None:
                raise
        encryption.ignore_dates(context)
        again, _ = _Race([address], self._is_small).run(deadline, self._seconds)
        return Opened(encryption.encrypt(again, context, host, deadline), address, why)


class _Race:
    """Tries to connect to several addresses, each a little later than the one before it. Without threads."""

    def __init__(self, addresses: Sequence[Address], small: bool) -> None:
        self._waiting = collections.deque(addresses)
        self._running: dict[socket.socket, Address] = {}
        self._errors: dict[Address, OSError] = {}
        self._winner: socket.socket | None = None
        self._is_small = small

    @property
    def beaten(self) -> list[Address]:
        """Which have failed, or were tried before the winner and have not answered."""
        silent = itertools.takewhile(lambda one: one[0] is not self._winner, self._running.items())
        return [*self._errors, *(address for _, address in silent)]

    def run(self, deadline: float, seconds: float) -> tuple[socket.socket, Address]:
        """The first one that answers.

        Args:
            deadline: When to give up, monotonic.
            seconds: How long that is in all, for the error's text.

        Raises:
            OSError: None of them does.
        """
        next_start = 0.0
        try:
            while self._waiting or self._running:
                now = time.monotonic()
                if now >= deadline:
                    break
                if self._waiting and (now >= next_start or not self._running):
                    self._start(self._waiting.popleft())
                    next_start = now + _SECONDS_AHEAD
                until = min(deadline, next_start) if self._waiting else deadline
                self._wait(max(0.0, until - now))
                if self._winner is not None:
                    return self._winner, self._running[self._winner]
        finally:
            for connection in self._running:
                if connection is not self._winner:
                    connection.close()
        raise self._error(seconds)

    def _start(self, address: Address) -> None:
        try:
            connection = socket.socket(address.family, socket.SOCK_STREAM)
        except OSError as error:  # a kernel without IPv6
            self._errors[address] = error
            return
        connection.setblocking(False)
        if self._is_small:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL_SEGMENT)
        self._running[connection] = address
        code = connection.connect_ex(address.place)
        if code not in (0, errno.EINPROGRESS):
            self._fail(connection, code)

    def _wait(self, seconds: float) -> None:
        if not self._running:
            return
        for connection in select.select([], list(self._running), [], seconds)[1]:
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                self._winner = connection
                return
            self._fail(connection, code)

    def _fail(self, connection: socket.socket, code: int) -> None:
        connection.close()
        self._errors[self._running.pop(connection)] = OSError(code, os.strerror(code))

    def _error(self, seconds: float) -> OSError:
        silent = TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s")
        errors = [*self._errors.items(), *((address, silent) for address in self._running.values())]
        if len(errors) == 1:
            return errors[0][1]
        named = [f"{address}: {error.strerror}" for address, error in errors[:_MOST_NAMED]]
        rest = [f"{len(errors) - _MOST_NAMED} more"] if len(errors) > _MOST_NAMED else []
        return OSError("; ".join([*named, *rest]) or "it has no address")
