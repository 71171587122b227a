"""Whether a change is kept, by what systemd and the backend say about the services."""

import itertools
import time
from pathlib import Path

import pytest

from ivy import constants
from ivy.types.link_report import LinkReport
from ivy.utils.updates.probation import Watch
from tests.support.helpers import Node

PROCEDURE, BACKEND = "ivy-wind.service", "ivy-tenta.service"
INVOCATION = "0123456789abcdef0123456789abcdef"
SECONDS = 30.0
LONG_AGO = 1.0  # seconds after the boot
NOW = 10**9  # so much later than the boot that it has only just begun
MICROSECONDS = 10**6


@pytest.fixture(autouse=True)
def path(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake programs are found first."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    Path(constants.IVY_RUN_DIR).mkdir(exist_ok=True)
    node.fake("journalctl", {"*": "echo 'Traceback: the sensor is gone'"})


def block(unit: str, **changed: str) -> str:
    """What `systemctl show` says about a unit that runs well."""
    properties = {
        "Id": unit,
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "NRestarts": "0",
        "ActiveEnterTimestampMonotonic": str(int(LONG_AGO * MICROSECONDS)),
        "Result": "success",
        "InvocationID": INVOCATION,
        **changed,
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def look(
    node: Node, *blocks: str, most: float = 300, patient: bool = False, since: float = 0
) -> tuple[str | None, str | None]:
    """Look once at a procedure and a backend, `since` seconds after the activation."""
    (node.home / "shown").write_text("\n".join(blocks or (block(PROCEDURE), block(BACKEND))))
    node.fake("systemctl", {"show*": f"cat {node.home}/shown"})
    began = time.monotonic() - since
    services = [PROCEDURE, BACKEND]
    return Watch(services, BACKEND, SECONDS, most, lambda text: None, link_was_down=patient, began=began).look()


def report(connected: bool = True, invocation: str = INVOCATION) -> None:
    """What the backend says of its connection."""
    reason = None if connected else "refused"
    LinkReport(broker="b:1", connected=connected, since=1.0, reason=reason, invocation=invocation).write()


def test_what_runs_long_enough_and_is_connected_is_good(node: Node) -> None:
    report()
    assert look(node) == (None, None)
    [call] = [call for call in node.calls() if " show " in call]
    assert call.endswith(f"-- {PROCEDURE} {BACKEND}")


@pytest.mark.parametrize(
    ("changed", "failure"),
    [
        ({"ActiveState": "failed", "SubState": "failed", "Result": "watchdog"}, "failed (watchdog)"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "failed (success)"),
        ({"NRestarts": "3", "Result": "exit-code"}, "ended 3 times (exit-code)"),
        ({"NRestarts": "3", "ActiveState": "activating", "SubState": "auto-restart"}, "ended 3 times (success)"),
    ],
)
def test_what_has_failed_fails_at_once_with_its_journal(node: Node, changed: dict[str, str], failure: str) -> None:
    report()
    found, pending = look(node, block(PROCEDURE, **changed), block(BACKEND))
    assert found == f"{PROCEDURE} {failure}; its journal ends with:\nTraceback: the sensor is gone"
    assert pending is None


@pytest.mark.parametrize("state", ["not-found", "bad-setting", "error", "masked"])
def test_a_unit_that_cannot_be_loaded_fails_at_once(node: Node, state: str) -> None:
    found, _ = look(node, block(PROCEDURE, LoadState=state, ActiveState="inactive"), block(BACKEND))
    assert found == f"{PROCEDURE} cannot be loaded ({state})"


def test_a_unit_that_systemd_says_nothing_about_fails(node: Node) -> None:
    found, _ = look(node, block(BACKEND))
    assert found == f"{PROCEDURE} cannot be loaded (there is no such unit)"


@pytest.mark.parametrize(
    ("changed", "pending"),
    [
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "2"},
            "is activating (auto-restart)",
        ),
        ({"ActiveState": "activating", "SubState": "start"}, "is activating (start)"),
        ({"ActiveState": "deactivating", "SubState": "stop-sigterm"}, "is deactivating (stop-sigterm)"),
        ({"ActiveEnterTimestampMonotonic": str(NOW * MICROSECONDS)}, "has not run for 30 s yet"),
    ],
)
def test_what_may_still_be_good_is_waited_for_and_then_fails(
    node: Node, changed: dict[str, str], pending: str
) -> None:
    report()
    blocks = (block(PROCEDURE, **changed), block(BACKEND))
    assert look(node, *blocks) == (None, f"{PROCEDURE} {pending}")
    assert look(node, *blocks, since=301) == (f"after 300 s {PROCEDURE} {pending}", None)
    # A link that was down before is no excuse for that.
    assert look(node, *blocks, since=301, patient=True)[0] == f"after 300 s {PROCEDURE} {pending}"


NO_LINK = [
    (lambda: None, "has said nothing of its connection"),
    (lambda: report(invocation="of the run before"), "has said nothing of its connection"),
    (lambda: report(connected=False), "there is no connection: refused"),
    (lambda: report(connected=False, invocation="of the run before"), "has said nothing of its connection"),
    (lambda: Path(constants.IVY_RUN_DIR, "link.json").write_text("{"), "has said nothing of its connection"),
]


@pytest.mark.parametrize(("say", "pending"), NO_LINK)
def test_an_update_that_cuts_the_operator_off_fails(node: Node, say: object, pending: str) -> None:
    assert callable(say)
    say()
    failure, pending_since = look(node)
    assert failure is None and pending_since is not None and pending_since.endswith(pending)
    failure, _ = look(node, since=301)
    assert failure is not None and failure.startswith("after 300 s ") and failure.endswith(pending)


@pytest.mark.parametrize(("say", "pending"), NO_LINK)
def test_where_the_link_was_down_before_its_lack_proves_nothing_for_a_day(
    node: Node, say: object, pending: str
) -> None:
    assert callable(say)
    say()
    assert look(node, since=86_000, patient=True)[0] is None
    failure, _ = look(node, since=86_401, patient=True)
    assert failure is not None and failure.startswith("after 86400 s ")


def test_a_report_of_a_version_that_does_not_know_runs_counts(node: Node) -> None:
    report(invocation="")
    assert look(node) == (None, None)


def test_without_a_backend_no_link_is_asked_for(node: Node) -> None:
    (node.home / "shown").write_text(block(PROCEDURE))
    node.fake("systemctl", {"show*": f"cat {node.home}/shown"})
    assert Watch([PROCEDURE], None, SECONDS, 300, print).look() == (None, None)


def test_a_doubt_is_told_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = itertools.chain("a" * 9, "b" * 9, itertools.repeat(None))
    monkeypatch.setattr(Watch, "look", lambda self: (None, next(answers)))
    told: list[str] = []
    assert Watch([], None, 0, 1, told.append, seconds_between_looks=0.001, seconds_of_calm=0).run() is None
    assert told[1:] == ["Still waiting: a", "Still waiting: b"]


def test_that_services_need_some_time_is_no_news(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = itertools.chain("a" * 9, itertools.repeat(None))
    monkeypatch.setattr(Watch, "look", lambda self: (None, next(answers)))
    told: list[str] = []
    assert Watch([], None, 1, 1, told.append, seconds_between_looks=0.001).run() is None
    assert told == ["On probation: for 1 s all services must run well"]
