"""The beds' networks: a bridge and a /24 for each bed, a network namespace and a veth pair for each node.

There is no way out of a bed: no default route, no forwarding, no name server. What the nodes talk to listens
on the bridge's address.
"""

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.run import BedError, run

SUBNETS = 255
FIRST_NODE = 10  # 10.78.K.1 is the bridge; node 1 is 10.78.K.11
MOST_NODES = 240


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One process at a time; the lock is on the directory itself, so it leaves no file behind."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def choose_subnet(name: str, taken: set[int]) -> int:
    """The K of 10.78.K.0/24: the same one for the same name, as long as no other bed has it."""
    first = zlib.crc32(name.encode()) % SUBNETS
    for step in range(SUBNETS):
        number = (first + step) % SUBNETS
        if number not in taken and not Subnet(number).exists():
            return number
    raise BedError("all 255 test bed networks are taken", "Remove those no longer used: `testbed down`.")


def _exists(interface: str) -> bool:
    return Path("/sys/class/net", interface).exists()


@dataclass(frozen=True)
class Subnet:
    """The network of one bed."""

    number: int

    @property
    def bridge(self) -> str:
        return f"ivytb-{self.number}"

    @property
    def gateway(self) -> str:
        return f"10.78.{self.number}.1"

    @property
    def neighbour(self) -> str:
        return f"10.78.{self.number}.2"

    def exists(self) -> bool:
        return _exists(self.bridge)

    def up(self) -> None:
        if not self.exists():
            # A fixed one: else it is that of some node, and changes when that one comes or goes. The others would
            # go on talking to the old one for half a minute.
            hardware_address = f"02:69:76:79:00:{self.number:02x}"
            run(["ip", "link", "add", "name", self.bridge, "address", hardware_address, "type", "bridge"])
            for address in (self.gateway, self.neighbour):
                run(["ip", "address", "add", f"{address}/24", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])

    def down(self) -> None:
        if self.exists():
            run(["ip", "link", "delete", self.bridge])


@dataclass(frozen=True)
class Port:
    """The place of one node on its bed's network."""

    subnet: Subnet
    index: int

    @property
    def address(self) -> str:
        return f"10.78.{self.subnet.number}.{FIRST_NODE + self.index}"

    @property
    def namespace(self) -> str:
        return f"ivytb-{self.subnet.number}-{self.index}"

    @property
    def cable(self) -> str:
        """Our end of the veth pair; the node's end is its eth0. (15 characters are the kernel's limit.)"""
        return f"ivytb{self.subnet.number}n{self.index}"

    def plug(self) -> None:
        """Everything the node's network needs. Survives a power cut of the node, like the cable would."""
        if self._namespace_exists() and _exists(self.cable):
            return
        self.unplug()
        run(["ip", "netns", "add", self.namespace])
        node_end = ["peer", "name", "eth0", "netns", self.namespace]
        run(["ip", "link", "add", "name", self.cable, "type", "veth", *node_end])
        run(["ip", "link", "set", self.cable, "master", self.subnet.bridge, "up"])
        inside = ["ip", "-netns", self.namespace]
        run([*inside, "link", "set", "lo", "up"])
        run([*inside, "address", "add", f"{self.address}/24", "dev", "eth0"])
        run([*inside, "link", "set", "eth0", "up"])

    def unplug(self) -> None:
        if _exists(self.cable):
            run(["ip", "link", "delete", self.cable])
        if self._namespace_exists():
            run(["ip", "netns", "delete", self.namespace])

    def link(self, up: bool) -> None:
        """The carrier: what the node sees when the LTE stick loses its cell."""
        run(["ip", "link", "set", self.cable, "up" if up else "down"])

    def is_linked(self) -> bool:
        flags = Path("/sys/class/net", self.cable, "flags")
        return flags.exists() and bool(int(flags.read_text(), 16) & 1)

    def _namespace_exists(self) -> bool:
        return Path("/run/netns", self.namespace).exists()
