"""All that can befall a node, and how one sees that it is over."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from testbed.run import run

from tests.node import damage, fake_clock
from tests.node.storage_faults import StorageFaults
from tests.support.installed import unit_property
from tests.support.sampling import arrived, mark, sampled

LOSS = """
table inet loss {
    chain input { type filter hook input priority 0; numgen random mod 100 < 30 drop; }
    chain output { type filter hook output priority 0; numgen random mod 100 < 30 drop; }
}
"""
HALF_A_YEAR = 183 * 86400.0
FEW = 20  # publications, the last of which show whether the node sends

Cause = Callable[[], None]


@dataclass(kw_only=True)
class Faults(StorageFaults):
    """Faults of one node and its platform, each of which returns when its cause is over."""

    least_stall: float
    """Seconds for which the platform stalls at least before it is killed."""

    def kinds(self) -> dict[str, Cause]:
        """All of them by name."""
        signals = {
            f"SIG{name} {service}": self._signal(name, service)
            for name in ("KILL", "STOP")
            for service in self.services
        }
        return signals | {
            "power cut": self.power_cut,
            "broker restart": self.broker_restart,
            "broker killed": self.broker_killed,
            "broker stall": self.broker_stall,
            "broker stalled and killed": self.broker_stalled_and_killed,
            "link down": self.link_down,
            "packet loss": self.packet_loss,
            "clock a year ahead": lambda: self.clock_jump("+1y"),
            "clock a year behind": lambda: self.clock_jump("-1y"),
            "full disk": self.full_disk,
            "full disk and no broker": self.full_disk_and_no_broker,
            "full disk at a start": self.full_disk_at_a_start,
            "queue truncated": lambda: self.damaged_queue(damage.truncate),
            "queue overwritten": lambda: self.damaged_queue(damage.overwrite),
        }

    def moments(self) -> dict[str, Cause]:
        """No faults, but moments at which a process closes the queue that others have open."""
        restart = ["systemctl", "restart", f"ivy-{self.platform.provider}"]
        return {
            "clean restart": lambda: self._run_in_node(restart),
            "look": lambda: self._run_in_node(["ivy", "status"]),
        }

    def _run_in_node(self, command: list[str]) -> None:
        self.node.run(command, check=False)

    def _signal(self, name: str, service: str) -> Cause:
        def cause() -> None:
            old = unit_property(self.node, service, "MainPID")
            kill = ["systemctl", "kill", "--kill-whom=main", f"--signal={name}", service]
            self.node.run(kill, check=False)
            self.node.wait_for(
                lambda: unit_property(self.node, service, "MainPID") not in (old, "0"),
                60,
                f"{service} to be restarted",
            )

        return cause

    def power_cut(self) -> None:
        self.node.cut()
        self.node.boot()

    def broker_restart(self) -> None:
        self.platform.stop()
        self.pause(0, 2)
        self.platform.start()

    def broker_killed(self) -> None:
        self.platform.kill()
        self.pause(0, 2)
        self.platform.start()

    def broker_stall(self) -> None:
        self.platform.pause()
        self.pause(0.5, 5)
        self.platform.resume()

    def broker_stalled_and_killed(self) -> None:
        self.platform.pause()
        self.pause(self.least_stall, 1.2 * self.least_stall)
        self.platform.kill()
        self.platform.start()

    def link_down(self) -> None:
        self.node.link(False)
        self.pause(0.5, 3)
        self.node.link(True)

    def packet_loss(self) -> None:
        nft = ["ip", "netns", "exec", self.node.network_namespace, "nft"]
        run([*nft, LOSS])
        self.pause(1, 5)
        run([*nft, "delete table inet loss"])

    def clock_jump(self, offset: str) -> None:
        """There and back."""
        fake_clock.set_offset(self.node, offset)
        self.node.wait_for(lambda: any(self._jumped()), 60, f"samples of the time {offset}")
        self.pause(0, 1)
        fake_clock.set_offset(self.node, "+0")
        self.node.wait_for(lambda: self._jumped() and not any(self._jumped()), 60, "samples of the true time")

    def _jumped(self) -> list[bool]:
        """Of the newest samples, whether they are of another time than now."""
        times = [at for at, values in self.platform.samples(-FEW) if "life" in values]
        return [abs(at - time.time()) > HALF_A_YEAR for at in times]

    def cause(self, name: str, cause: Cause) -> None:
        """Cause one and see it over: faults that overlap would hide each other."""
        self.pause(0, 0.5)
        cause()
        since = mark(self.node)

        def is_over() -> bool:
            return bool(sampled(self.node, since) & arrived(self.platform.samples(-FEW)).keys())

        self.node.wait_for(is_over, 120, f"samples after {name}")
