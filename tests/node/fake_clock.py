"""A clock that jumps, for all services of a node at once, while they run. The machine's own is never touched."""

from testbed.bed import Node

PACKAGE = "faketime"
OFFSET = "/etc/clock-offset"
# $LIB is for the dynamic linker. The clock that counts from the boot does not jump, as on a real machine.
DROP_IN = f"""\
[Service]
Environment=LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1
Environment=FAKETIME_TIMESTAMP_FILE={OFFSET} FAKETIME_CACHE_DURATION=1
Environment=FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1 FAKETIME_DISABLE_SHM=1
"""


def install(node: Node) -> None:
    """Services that are started from now on have that clock. It is right, to begin with."""
    node.run(["apt-get", "install", "--yes", PACKAGE])
    set_offset(node, "+0")
    drop_in = node.path("/etc/systemd/system") / "ivy-.service.d" / "95-clock.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(DROP_IN)
    node.run(["systemctl", "daemon-reload"])


def set_offset(node: Node, offset: str) -> None:
    """Let the clock jump to what is so far from the true time, e.g. `+1y`; within a second."""
    beside = node.path(f"{OFFSET}.new")
    beside.write_text(f"{offset}\n")
    beside.rename(node.path(OFFSET))
