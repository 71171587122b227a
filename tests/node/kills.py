"""Ways to kill a pass of the updater: at a system call, or while something runs for it; with the power or without.

What is persistent is told by `tests.support.strace`; what must hold afterwards by `tests.node.aftermath`.
"""

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from testbed.bed import Node

from tests.support import strace

UPDATER = "ivy-updater"
RECORD = "/var/log/ivy-pass.strace"
RESULT = "/var/log/ivy-pass.result"
DROP_IN = "/etc/systemd/system/ivy-updater.service.d/90-strace.conf"
TRACED = """\
[Service]
# strace is the main process, looks into another one, and is killed as that is.
NotifyAccess=all
CapabilityBoundingSet=CAP_SYS_PTRACE
SystemCallFilter=
ReadWritePaths=/var/log
ExecStart=
ExecStart={command} /usr/bin/ivy run updater
ExecStopPost=/bin/sh -c 'echo "$SERVICE_RESULT" >{result}'
"""
HOLD = "/etc/systemd/system/ivy_sandbox-{step}.service.d/90-hold.conf"
BEGUN = "/run/step-has-begun"
HELD = f"[Service]\nExecStartPost=+/bin/sh -c 'touch {BEGUN}; exec sleep infinity'\n"

Kill: TypeAlias = Callable[[Node], bool]
"""Boots a node, and kills the pass. Returns whether it was not over before."""


def record_pass(node: Node) -> list[strace.Call]:
    """Let a node boot and make its pass. Returns the calls of it."""
    _trace(node, strace.recording(RECORD, [*strace.PERSISTENT, "openat", "write"]))
    node.boot()
    _wait_for_end(node)
    _untrace(node)
    return strace.parse(node.path(RECORD).read_text())


def cut_at(call: strace.Call) -> Kill:
    """Boot, and cut the power when the pass makes a call."""

    def kill(node: Node) -> bool:
        _trace(node, strace.killing(call))
        node.boot()
        was_killed = _wait_for_end(node)
        node.cut()
        _untrace(node)
        return was_killed

    return kill


def kill_at(call: strace.Call) -> Kill:
    """Boot, and kill the pass alone when it makes a call; systemd starts another one."""

    def kill(node: Node) -> bool:
        _trace(node, strace.killing(call))
        node.boot()
        was_killed = _wait_for_end(node)
        _untrace(node)
        return was_killed

    return kill


def cut_during(step: str) -> Kill:
    """Boot, and cut the power when a transient unit has just begun a step."""

    def kill(node: Node) -> bool:
        _boot_into(node, step)
        node.cut()
        node.path(HOLD.format(step=step)).unlink()
        return True

    return kill


def kill_during(step: str) -> Kill:
    """Boot, and kill the pass alone while a transient unit makes a step that would never end."""

    def kill(node: Node) -> bool:
        _boot_into(node, step)
        node.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UPDATER])
        node.path(HOLD.format(step=step)).unlink()
        node.run(["systemctl", "daemon-reload"])
        return True

    return kill


def _boot_into(node: Node, step: str) -> None:
    hold = node.path("/") / HOLD.format(step=step).lstrip("/")
    hold.parent.mkdir()
    hold.write_text(HELD)
    node.boot()
    node.wait_for(lambda: node.path(BEGUN).exists(), 60, f"the step {step}")


def _trace(node: Node, command: list[str]) -> None:
    drop_in = node.path("/etc/systemd/system") / f"{UPDATER}.service.d" / "90-strace.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(TRACED.format(command=" ".join(command), result=RESULT))


def _untrace(node: Node) -> None:
    node.path(DROP_IN).unlink()
    if node.running:
        node.run(["systemctl", "daemon-reload"])


def _wait_for_end(node: Node) -> bool:
    """Wait for the end of a traced pass; systemd starts another one 5 s later. Returns whether it was killed."""
    result = node.path(RESULT)
    return node.wait_for(lambda: result.exists() and result.read_text(), 90, "the end of a pass") == "signal\n"


def choose(calls: Sequence[strace.Call], most: int) -> list[strace.Call]:
    """Some of the calls, evenly. What is done to one file after the other, the same each time, fills the rest."""
    frequent = {"lchown", "chmod", "unlinkat"}
    rare = [call for call in calls if call.name not in frequent]
    some = _evenly(rare, most)
    return some + _evenly([call for call in calls if call.name in frequent], most - len(some))


def _evenly(calls: Sequence[strace.Call], most: int) -> list[strace.Call]:
    """As many of the calls, from a random first one."""
    if len(calls) <= most:
        return list(calls)
    first = random.SystemRandom().random()
    return [calls[int((number + first) * len(calls) / most)] for number in range(most)]
