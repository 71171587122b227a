"""All that can befall a node, each as a function that returns when the cause is over, though not its effects."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from testbed.bed import Node
from testbed.run import run

from tests.broker.platforms import MortalPlatform
from tests.node import damage, fake_clock, small_disk
from tests.node.conftest import unit_property
from tests.node.sampling import Sample, arrived, mark, sampled

LOSS = """
table inet loss {
    chain input { type filter hook input priority 0; numgen random mod 100 < 30 drop; }
    chain output { type filter hook output priority 0; numgen random mod 100 < 30 drop; }
}
"""
HALF_A_YEAR = 183 * 86400.0
FEW = 20  # publications, the last of which show whether the node sends

Cause = Callable[[], None]


@dataclass
class Faults:
    """Faults of one node and its platform.

    `excused` are the samples that no SQLite could read after the queue had been damaged.
    """

    node: Node
    platform: MortalPlatform
    chance: random.Random
    longest_stall: float
    """Seconds for which the platform stalls at least before it is killed."""
    excused: set[Sample] = field(default_factory=set)

    def __post_init__(self) -> None:
        procedures = ("fast-sampler", "dummy-procedure", "system-checks")
        self.services = [f"ivy-{name}" for name in (*procedures, self.platform.provider)]

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
        self.pause(self.longest_stall, 1.2 * self.longest_stall)
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

    def full_disk(self) -> None:
        before = self._troubles("ivy-fast-sampler", "(archive|queue)")
        with small_disk.filler(self.node) as file:

            def is_felt() -> bool:
                small_disk.fill(file)  # also what was kept in reserve
                return self._troubles("ivy-fast-sampler", "(archive|queue)") > before

            self.node.wait_for(is_felt, 30, "the disk to be full")
            # It looks at the bounds of the queue when it starts.
            self._run_in_node(["systemctl", "restart", "ivy-system-checks"])
            self.pause(0.5, 3)

    def full_disk_and_no_broker(self) -> None:
        """So there is something in the queue."""
        self.platform.stop()
        self.pause(0.5, 3)
        self.full_disk()
        self.platform.start()

    def full_disk_at_a_start(self) -> None:
        """Not even an empty queue can be opened then."""
        before = self._troubles("ivy-fast-sampler", "queue")
        self.node.run(["systemctl", "stop", "ivy.target", *self.services])
        with small_disk.filler(self.node) as file:
            small_disk.use_up_reserve(self.node)
            small_disk.fill(file)
            self.node.run(["systemctl", "start", "ivy.target"])
            self.node.wait_for(
                lambda: self._troubles("ivy-fast-sampler", "queue") > before, 30, "the queue not to be opened"
            )
            self.pause(0.5, 3)

    def _troubles(self, service: str, place: str) -> int:
        """How often a service said that a place takes no messages."""
        grep = f"--grep=the {place} takes no messages"
        command = ["journalctl", "--quiet", "--output=cat", f"--unit={service}", grep]
        return self.node.run(command, check=False).stdout.count("\n")

    def damaged_queue(self, do: Callable[[Node, random.Random], None]) -> None:
        """While there is something in it, and under the eyes of all services."""
        self.platform.stop()
        self.pause(1, 3)
        if self.chance.random() < 0.7:
            damage.checkpoint(self.node)
        with damage.frozen(self.node, self.services):
            waiting = sampled(self.node) - arrived(self.platform.samples()).keys() - self.excused
            before = damage.copy(self.node, "before")
            do(self.node, self.chance)
            after = damage.copy(self.node, "after")
        if missing := waiting - damage.readable(self.node, before):
            raise AssertionError(f"not in the queue, nor at the broker: {sorted(missing)[:10]}")
        self.excused |= waiting - damage.readable(self.node, after)
        self.platform.start()

    def pause(self, least: float, most: float) -> None:
        """Let a fault last: the random moment and length are what is tested, nothing is waited for."""
        time.sleep(self.chance.uniform(least, most))

    def cause(self, name: str, cause: Cause) -> None:
        """Cause one and see it over: faults that overlap would hide each other."""
        self.pause(0, 0.5)
        cause()
        since = mark(self.node)

        def is_over() -> bool:
            return bool(sampled(self.node, since) & arrived(self.platform.samples(-FEW)).keys())

        self.node.wait_for(is_over, 120, f"samples after {name}")
