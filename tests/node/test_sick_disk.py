"""A disk that takes nothing silences no node: everything arrives meanwhile, and is in the archive afterwards."""

import contextlib
import csv
import io
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import pytest
from testbed.bed import Bed, Node

from tests.node import small_disk
from tests.node.sampling_node import prepare
from tests.support.platforms import MortalPlatform, TentaPlatform
from tests.support.sampling import Sample, arrived, sampled

DATA = small_disk.DATA
SECONDS, SECONDS_IN_A_SWEEP = 8, 60
SECONDS_TO_TELL = 5 * 3  # where the machine is three times slower
TOLD = "they wait in memory"
HOLD = f"""
import fcntl
file = open("{DATA}/messages.lock", "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""
HOLD_DATABASE = f"""
import sqlite3
database = sqlite3.connect("{DATA}/active-message-queue.sqlite3", isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
input()
"""


@pytest.fixture
def platform(bed: Bed, tmp_path: Path) -> Generator[TentaPlatform, None, None]:
    """A platform that can go away."""
    platform = TentaPlatform(tmp_path / "broker", 1883, bed.address)
    yield platform
    platform.close()


@contextlib.contextmanager
def full(node: Node) -> Generator[None, None, None]:
    """A disk without any room, the ballast file's included."""
    with small_disk.filler(node) as file:

        def is_felt() -> bool:
            small_disk.fill(file)
            return _trouble(node)

        node.wait_for(is_felt, 30, "the disk to be full")
        yield


@contextlib.contextmanager
def of_somebody_else(node: Node) -> Generator[None, None, None]:
    """As of a partition that was kept, for services that are started then."""
    node.run(["chown", "-R", "4242:4242", DATA])
    node.run(["chmod", "-R", "go-rwx", DATA])
    node.run(["systemctl", "restart", "ivy-fast-sampler"])
    yield
    node.run(["systemctl", "restart", "ivy-owners"])


@contextlib.contextmanager
def held(node: Node, code: str) -> Generator[None, None, None]:
    """A lock that somebody does not give back."""
    holder = node.popen(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    yield
    holder.communicate("\n")


CAUSES: dict[str, Callable[[Node], contextlib.AbstractContextManager[None]]] = {
    "full": full,
    "of somebody else": of_somebody_else,
    "lock of the writers": lambda node: held(node, HOLD),
    "lock of the database": lambda node: held(node, HOLD_DATABASE),
}


def _trouble(node: Node) -> bool:
    return node.path("/run/ivy/queue-trouble").exists()


def _reports(platform: TentaPlatform) -> int:
    return sum(TOLD in text for text in platform.logs())


def _is_told(platform: TentaPlatform, before: int) -> bool:
    return _reports(platform) > before


def _has(platform: TentaPlatform, samples: set[Sample]) -> bool:
    return samples <= arrived(platform.samples()).keys()


def _archived(node: Node) -> list[Sample]:
    text = "".join(path.read_text() for path in sorted((node.path(DATA) / "messages").glob("*.csv")))
    bodies = [json.loads(row[1]) for row in csv.reader(io.StringIO(text)) if len(row) == 2 and row[1][:1] == "{"]
    data = [body["data"] for body in bodies if body["variant"] == "data" and "life" in body["data"]]
    return [(int(each["life"]), int(each["number"])) for each in data]


def test_each_trouble_with_the_link_up_and_down(
    node: Node, platform: MortalPlatform, request: pytest.FixtureRequest
) -> None:
    assert isinstance(platform, TentaPlatform)
    seconds = SECONDS_IN_A_SWEEP if request.config.getoption("--sweep") else SECONDS
    prepare(node, platform)
    for name, cause in CAUSES.items():
        for is_linked in (True, False):
            # What waits in a queue that cannot be read then is sent afterwards only.
            node.wait_for(partial(_has, platform, sampled(node)), 60, f"before {name}: the samples")
            before = _reports(platform)
            if not is_linked:
                platform.stop()
            with cause(node):
                node.wait_for(lambda: _trouble(node), 20, f"{name}: the trouble to be noted")
                status = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)
                assert any("takes no messages" in problem for problem in status["problems"]), (
                    name,
                    status["problems"],
                )
                if is_linked:
                    node.wait_for(partial(_is_told, platform, before), SECONDS_TO_TELL, f"{name}: the report")
                time.sleep(seconds)  # how long it lasts is what is tested
                if is_linked:
                    node.wait_for(partial(_has, platform, sampled(node)), 30, f"{name}: the samples")
            if not is_linked:
                platform.start()
            node.wait_for(lambda: not _trouble(node), 40, f"{name}: the end of the trouble")
    node.run(["systemctl", "stop", "ivy-fast-sampler"])
    wanted = sampled(node)
    node.wait_for(partial(_has, platform, wanted), 60, "all samples at the broker")
    found = _archived(node)
    assert wanted <= set(found)
    for life in {life for life, _ in found}:
        numbers = list(dict.fromkeys(number for other, number in found if other == life))
        assert numbers == sorted(numbers), f"the order of {life}"
    assert len(found) - len(set(found)) <= 200
    said = node.journal("--unit=ivy-tenta", "--grep=the queue cannot be used", "--output=cat").splitlines()
    assert max(Counter(said).values(), default=0) <= 3, "a trouble that comes and goes is said once"
    platform.check()


@pytest.mark.thorough
def test_a_file_system_that_the_kernel_gives_up(node: Node, platform: MortalPlatform) -> None:
    """It is read-only from then on, until somebody looks after it; sampling and sending are not."""
    assert isinstance(platform, TentaPlatform)
    prepare(node, platform)
    small_disk.fail(node)
    node.wait_for(lambda: _reports(platform) > 0, SECONDS_TO_TELL, "the report")
    node.run(["systemctl", "restart", "ivy-fast-sampler"])
    time.sleep(SECONDS)
    node.wait_for(partial(_has, platform, sampled(node)), 30, "the samples")
    doctor = json.loads(node.run(["ivy", "doctor", "--json"], check=False).stdout)
    texts = [finding["text"] for finding in doctor if not finding["ok"]]
    # Of what the kernel does after an error, not every version says that it is read-only.
    assert any("takes no messages" in text for text in texts), texts
