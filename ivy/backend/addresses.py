"""Which addresses a broker has, and in which order they are tried. Opens no connection."""

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

_NOT_IN_NAMES = re.compile(r"[\s:/@\[\]]")
_SECONDS_OF_USE = 60.0
"""An answer that came when nobody waited for it any more is as good as a new one for so long."""
_MOST_REMEMBERED = 64


class Address(NamedTuple):
    """One way to a broker: what a socket is made for, and connected to."""

    family: int
    place: tuple[Any, ...]

    def __str__(self) -> str:
        return str(self.place[0])


class Resolver:
    """Looks a name up, in a thread, as the system's resolver may take minutes and cannot be interrupted.

    In one at a time: whoever asks again waits for the look-up that is under way, and may have its answer.
    """

    def __init__(self) -> None:
        self._look_up: _LookUp | None = None

    def addresses(self, host: str, port: int, seconds: float) -> list[Address]:
        """The addresses of a host, the system's favourite first.

        Raises:
            OSError: It has none, or there was no answer in time.
            ValueError: It cannot be a host's name.
        """
        with contextlib.suppress(socket.gaierror):  # an address needs no thread
            return _ask(host, port, socket.AI_NUMERICHOST)
        if _NOT_IN_NAMES.search(host):  # else it is only unknown to every name server
            what = "a name or an address, without scheme, port, brackets or blanks"
            raise ValueError(f"host: must be {what}, not {host!r}")
        if self._look_up is None or self._look_up.is_of_no_use():
            self._look_up = _LookUp(host, port)
        if not self._look_up.done.wait(seconds):
            raise TimeoutError(f"no name server said within {seconds:g} s which address {host} has; see resolvectl")
        found, self._look_up = self._look_up, None
        if found.error is not None:
            raise found.error
        return found.addresses


class _LookUp:
    def __init__(self, host: str, port: int) -> None:
        self.done = threading.Event()
        self.addresses: list[Address] = []
        self.error: OSError | ValueError | None = None
        self._host, self._port = host, port
        self._ended = 0.0  # monotonic
        threading.Thread(target=self._run, daemon=True).start()

    def is_of_no_use(self) -> bool:
        """Whether it is over, and says nothing that is still worth knowing."""
        late = time.monotonic() - self._ended > _SECONDS_OF_USE
        return self.done.is_set() and (late or self.error is not None)

    def _run(self) -> None:
        try:
            self.addresses = _ask(self._host, self._port)
        except (OSError, ValueError) as error:
            self.error = error
        self._ended = time.monotonic()
        self.done.set()


def _ask(host: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(Address(family, place) for family, _, _, _, place in found))


class Order:
    """Who has failed is tried after those who have not, and who failed last is tried last.

    Among equals the families take turns: where one of them leads nowhere, as IPv6 does at many a site, the other
    one need not wait for all of its addresses.
    """

    def __init__(self) -> None:
        self._failures: dict[Address, int] = {}
        self._count = itertools.count(1)

    def failed(self, address: Address) -> None:
        """This one is of no use now."""
        self._failures.pop(address, None)
        self._failures[address] = next(self._count)
        if len(self._failures) > _MOST_REMEMBERED:
            del self._failures[next(iter(self._failures))]

    def of(self, addresses: Iterable[Address]) -> list[Address]:
        """These addresses in that order."""
        return sorted(_alternating(addresses), key=lambda address: self._failures.get(address, 0))


def _alternating(addresses: Iterable[Address]) -> list[Address]:
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]
