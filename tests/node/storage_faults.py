"""What can befall the place where a node keeps its messages."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from testbed.bed import Node

from tests.node import damage, small_disk
from tests.support.platforms import MortalPlatform
from tests.support.sampling import Sample, arrived, sampled

TROUBLE = "/run/ivy/queue-trouble"


@dataclass(kw_only=True)
class StorageFaults:
    """Each a method that returns when the cause is over, though not its effects.

    `excused` are the samples that no SQLite could read after the queue had been damaged.
    """

    node: Node
    platform: MortalPlatform
    chance: random.Random
    excused: set[Sample] = field(default_factory=set)

    def __post_init__(self) -> None:
        procedures = ("fast-sampler", "dummy-procedure", "system-checks")
        self.services = [f"ivy-{name}" for name in (*procedures, self.platform.provider)]

    def full_disk(self) -> None:
        before = self._troubles("(archive|queue)")
        with small_disk.filler(self.node) as file:

            def is_felt() -> bool:
                small_disk.fill(file)  # also what was kept in reserve
                return self._troubles("(archive|queue)") > before

            self.node.wait_for(is_felt, 30, "the disk to be full")
            # It looks at the bounds of the queue when it starts.
            self.node.run(["systemctl", "restart", "ivy-system-checks"], check=False)
            self.pause(0.5, 3)
        self._wait_for_the_disk()

    def full_disk_and_no_broker(self) -> None:
        """So there is something in the queue."""
        self.platform.stop()
        self.pause(0.5, 3)
        self.full_disk()
        self.platform.start()

    def full_disk_at_a_start(self) -> None:
        """Not even an empty queue can be opened then. A part of what SQLite makes beside it may have room."""
        before = self._troubles("queue")
        self.node.run(["systemctl", "stop", "ivy.target", *self.services])
        # Services that close it at the same moment leave the log there, and its room would be enough for samples.
        damage.checkpoint(self.node)
        with small_disk.filler(self.node) as file:
            small_disk.use_up_reserve(self.node)
            small_disk.fill(file)
            small_disk.give_back(file, 1024 * self.chance.randrange(40))
            self.node.run(["systemctl", "start", "ivy.target"])
            self.node.wait_for(lambda: self._troubles("queue") > before, 30, "the queue not to be opened")
            self.pause(0.5, 3)
        self._wait_for_the_disk()

    def _wait_for_the_disk(self) -> None:
        """Until then samples wait in memory: a power cut may take them, and trouble is not told again."""
        self.node.wait_for(lambda: not self.node.path(TROUBLE).exists(), 60, "the disk to be used again")

    def _troubles(self, place: str) -> int:
        """How often a service said that a place takes no messages: the first that finds it says so for all."""
        grep = f"--grep=the {place} takes no messages"
        command = ["journalctl", "--quiet", "--output=cat", "--unit=ivy-*", grep]
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
        # What is neither here nor there was taken by the broker just before it stopped: in the end, it must arrive.
        queued = waiting & damage.readable(self.node, before)
        self.excused |= queued - damage.readable(self.node, after)
        self.platform.start()

    def pause(self, least: float, most: float) -> None:
        """Let a fault last: the random moment and length are what is tested, nothing is waited for."""
        time.sleep(self.chance.uniform(least, most))
