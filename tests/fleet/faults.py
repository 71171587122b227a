"""Links that go down and power that fails on nodes of a fleet, while something else goes on; and a bad release."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from testbed.bed import Node

from tests.support.releases import replace

GREETING = 'logger.info("Starting the random walk")'
CRASHES = replace("ivy/procedures/dummy_procedure.py", GREETING, 'raise RuntimeError("the sensor is not there")')
LOOK_SECONDS = 0.05
LONGEST_DARKNESS = 3.0
LONGEST_SILENCE = 6.0


class Weather:
    """Begins and ends with the block; then all nodes have power and link again. `counts` says what there was.

    The power of the first node fails as soon as `begin` says so, then all is random: one node at a time, so that
    each fault meets a node that works, or is coming back from the last.
    """

    def __init__(
        self, nodes: list[Node], chance: random.Random, seconds_between: float, begin: Callable[[], bool]
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._begin = begin
        self._nodes, self._chance = nodes, chance
        self._seconds_between = seconds_between
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="weather")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._begin() and not self._over.wait(LOOK_SECONDS):
                pass
            self._cut(self._nodes[0])
            while not self._over.wait(self._chance.uniform(0.3, 1.7) * self._seconds_between):
                self._strike(self._chance.choice(self._nodes))
        except BaseException as error:
            self._error = error

    def _strike(self, node: Node) -> None:
        if self._chance.random() < 0.5:
            self.counts["links down"] += 1
            node.link(False)
            self._over.wait(self._chance.uniform(0.5, LONGEST_SILENCE))
            node.link(True)
        else:
            self._cut(node)

    def _cut(self, node: Node) -> None:
        self.counts["power cuts"] += 1
        node.cut()
        self._over.wait(self._chance.uniform(0.0, LONGEST_DARKNESS))
        node.boot()
