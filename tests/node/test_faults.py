"""Nothing is lost and little is sent twice, whatever dies or is cut off, at random moments while sampling."""

import random
import time
from collections.abc import Callable

import pytest
from testbed.bed import Node
from testbed.broker import Broker
from testbed.run import run

from tests.node.conftest import unit_property, use_tenta
from tests.node.recorder import Recorder
from tests.node.sampling import add_sampler, arrived, be_impatient, sampled

SERVICES = ["ivy-fast-sampler", "ivy-dummy-procedure", "ivy-system-checks", "ivy-tenta"]
TIMES_EACH = 10
TIMES_EACH_IN_A_SWEEP = 20
LOSS = """
table inet loss {
    chain input { type filter hook input priority 0; numgen random mod 100 < 30 drop; }
    chain output { type filter hook output priority 0; numgen random mod 100 < 30 drop; }
}
"""
WINDOW = 50  # max_parallel_messages
SEED = random.SystemRandom().randrange(10**6)

Fault = tuple[str, Callable[[], None]]


def faults(node: Node, broker: Broker, chance: random.Random, times: int) -> list[Fault]:
    """Each of them so many times, in random order."""

    def signal(name: str, service: str) -> Fault:
        def fault() -> None:
            old = unit_property(node, service, "MainPID")
            node.run(["systemctl", "kill", "--kill-whom=main", f"--signal={name}", service], check=False)
            node.wait_for(
                lambda: unit_property(node, service, "MainPID") not in (old, "0"), 60, f"{service} to be restarted"
            )

        return f"SIG{name} {service}", fault

    def run_in_node(*command: str) -> None:
        node.run(command, check=False)

    def power_cut() -> None:
        node.cut()
        node.boot()

    def broker_restart() -> None:
        broker.stop()
        pause(chance.uniform(0, 2))
        broker.start()

    def link_down() -> None:
        node.link(False)
        pause(chance.uniform(0.5, 3))
        node.link(True)

    def broker_stall() -> None:
        broker.pause()
        pause(chance.uniform(0.5, 5))
        broker.resume()

    def packet_loss() -> None:
        nft = ["ip", "netns", "exec", node.network_namespace, "nft"]
        run([*nft, LOSS])
        pause(chance.uniform(1, 5))
        run([*nft, "delete table inet loss"])

    each: list[Fault] = [
        *(signal(name, service) for name in ("KILL", "STOP") for service in SERVICES),
        ("power cut", power_cut),
        ("broker restart", broker_restart),
        # No faults, but moments at which a process closes the queue that others have open.
        ("clean restart", lambda: run_in_node("systemctl", "restart", "ivy-tenta")),
        ("look", lambda: run_in_node("ivy", "status")),
        ("broker stall", broker_stall),
        ("link down", link_down),
        ("packet loss", packet_loss),
    ]
    some = each * times
    chance.shuffle(some)
    return some


def test_no_sample_is_lost_whatever_fails(
    node: Node, broker: Broker, recorder: Recorder, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(SEED)
    be_impatient(node)
    # With log messages each service has the queue open twice.
    verbosity = {"file_archive": "DEBUG", "console_prints": "DEBUG", "message_sending": "INFO"}
    use_tenta(node, broker, logging_verbosity=verbosity)
    add_sampler(node)
    node.wait_for(lambda: arrived(recorder), 20, "the first samples")
    times = TIMES_EACH_IN_A_SWEEP if request.config.getoption("--sweep") else TIMES_EACH
    schedule = faults(node, broker, chance, times)
    print(f"seed {SEED}, {len(schedule)} faults")
    for name, fault in schedule:
        pause(chance.uniform(0, 0.5))
        fault()
        # The next one only when this one is over: faults that overlap would hide each other.
        after = time.time_ns()
        node.wait_for(lambda start=after: has_new(recorder, start), 90, f"samples after {name}")  # type: ignore[misc]
    node.run(["systemctl", "stop", "ivy-fast-sampler"])
    node.wait_for(lambda: sampled(node) <= set(arrived(recorder)), 60, "all samples at the broker")
    counts = arrived(recorder)
    duplicates = counts.total() - len(counts)
    print(f"{len(counts)} samples arrived, 0 of {len(sampled(node))} lost, {duplicates} duplicates")
    assert sampled(node) <= set(counts)
    assert duplicates <= len(schedule) * WINDOW
    assert not node.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout


def has_new(recorder: Recorder, since: int) -> bool:
    """Whether a sample taken later than a Unix time in nanoseconds has arrived."""
    return any(
        element["timestamp"] * 1e9 > since
        for element in recorder.latest("measurements")
        if "life" in element["value"]
    )


def pause(seconds: float) -> None:
    """Let the fault last: the random moment and length are what is tested, nothing is waited for."""
    time.sleep(seconds)
