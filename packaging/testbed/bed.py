"""A test bed: a network with real systemd nodes on it, all on this machine.

    with Bed("mine") as bed:
        node = bed.node("n1")
        node.boot()
        node.run(["systemctl", "status"])

A bed outlives the process that made it, unless it is used as a context manager. What the nodes talk to (see
`testbed.broker`) listens on `bed.address`.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed import network, overlay, roots
from testbed.emulation import architecture
from testbed.network import Subnet, choose_subnet, locked
from testbed.node import RECORD, Node, Snapshot
from testbed.run import BedError
from testbed.tools import STATE, VM_PACKAGES, ensure_tools, why_not
from testbed.vm import HARDWARE, Machine
from testbed.vm import RECORD as MACHINE_RECORD

__all__ = ["Bed", "BedError", "Machine", "Node", "Snapshot", "ensure_tools", "existing_beds", "why_not"]

INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
MANY = 8192
NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


def existing_beds() -> list[str]:
    return sorted(directory.name for directory in STATE.glob("*") if directory.is_dir())


def _check_name(kind: str, name: str) -> str:
    if not NAME.fullmatch(name):
        raise BedError(f"{name!r} cannot be the name of a {kind}", "Up to 20 letters, digits, dashes.")
    return name


class Bed:
    def __init__(self, name: str = "ivy") -> None:
        self.name = _check_name("bed", name)
        self.directory = STATE / name

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def exists(self) -> bool:
        return self._subnet_file.exists()

    @property
    def address(self) -> str:
        """The bridge's address: brokers and the like listen there; nodes know it by the name `gateway`."""
        return self._subnet.gateway

    @property
    def second_address(self) -> str:
        """Another one of the bridge, for servers that want the same port."""
        return self._subnet.neighbour

    @property
    def nodes(self) -> dict[str, Node]:
        """All nodes by name, booted or not."""
        records = sorted(self.directory.glob(f"nodes/*/{RECORD}"))
        nodes = [Node(self.name, self._subnet, record.parent) for record in records]
        return {node.name: node for node in sorted(nodes, key=lambda node: node.index)}

    @property
    def machines(self) -> dict[str, Machine]:
        """All machines with a kernel of their own, by name, with power or without."""
        records = sorted(self.directory.glob(f"machines/*/{MACHINE_RECORD}"))
        return {record.parent.name: Machine(self._subnet, record.parent) for record in records}

    def up(self) -> None:
        """The bridge; nodes come one by one. Nothing happens if it is there already."""
        ensure_tools()
        with locked(STATE.parent):
            if not self.exists():
                number = choose_subnet(self.name, _subnets_taken())
                self.directory.mkdir(parents=True, exist_ok=True)
                self._subnet_file.write_text(str(number))
            self._subnet.up()
            _allow_many_systemds()

    def down(self) -> None:
        """Everything goes: nodes with their disks, snapshots, network. Idempotent."""
        if not self.directory.exists():
            return
        for directory in self.directory.glob("nodes/*"):
            self._remove_node(directory)
        for machine in self.machines.values():
            machine.destroy()
        with locked(STATE.parent):
            if self.exists():
                self._subnet.down()
            overlay.remove_tree(self.directory)
            with contextlib.suppress(OSError):  # other beds are in there
                STATE.rmdir()

    def node(self, name: str, base: Snapshot | None = None) -> Node:
        """The node of that name; made if need be (not booted) with the disk of `base`, or a bare Debian."""
        directory = self.directory / "nodes" / _check_name("node", name)
        if (directory / RECORD).exists():
            return self._existing(directory, base)
        layers = base.layers if base else (roots.node_root(),)
        with locked(STATE.parent):
            return Node.create(self.name, self._subnet, directory, layers, self._free_index())

    def machine(self, name: str, image: Path, files: Mapping[str, bytes]) -> Machine:
        """A new machine with a kernel of its own, not booted; see `Machine.insert_card`. It has the architecture in
        which tests run, for which the image must be."""
        directory = self.directory / "machines" / _check_name("machine", name)
        if (arch := architecture()) not in HARDWARE:
            raise BedError(f"there are no machines of {arch}", f"IVY_ARCH names another: {', '.join(HARDWARE)}.")
        ensure_tools([*VM_PACKAGES, HARDWARE[arch].program])
        if directory.exists():
            raise BedError(f"there is a machine {name} already", "Choose another name.")
        with locked(STATE.parent):
            machine = Machine.create(self._subnet, directory, self._free_index(), arch)
        try:
            machine.insert_card(image, files)
        except BaseException:
            machine.destroy()
            raise
        return machine

    def _existing(self, directory: Path, base: Snapshot | None) -> Node:
        node = Node(self.name, self._subnet, directory)
        if base is not None and node.layers != base.layers:
            raise BedError(f"there is a node {node.name} already, with another disk", "Destroy it first.")
        return node

    def _remove_node(self, directory: Path) -> None:
        if (directory / RECORD).exists():
            Node(self.name, self._subnet, directory).destroy()
        else:
            overlay.remove_tree(directory)  # what an interrupted `node()` left

    def _free_index(self) -> int:
        taken = {node.index for node in self.nodes.values()} | {machine.index for machine in self.machines.values()}
        free = (index for index in range(1, network.MOST_NODES + 1) if index not in taken)
        if (index := next(free, None)) is None:
            raise BedError(f"the bed {self.name} is full", f"A bed takes {network.MOST_NODES} nodes.")
        return index

    @property
    def _subnet_file(self) -> Path:
        return self.directory / "subnet"

    @property
    def _subnet(self) -> Subnet:
        if not self.exists():
            raise BedError(f"the bed {self.name} is not up", "testbed up")
        return Subnet(int(self._subnet_file.read_text()))


def _allow_many_systemds() -> None:
    """All nodes share what the kernel allows one user, and the usual 128 are used up by about 15 systemds."""
    if int(INOTIFY_INSTANCES.read_text()) < MANY:
        INOTIFY_INSTANCES.write_text(str(MANY))


def _subnets_taken() -> set[int]:
    files: Sequence[Path] = list(STATE.glob("*/subnet"))
    return {int(file.read_text()) for file in files}
