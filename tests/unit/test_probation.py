"""Whether a change is kept, by what systemd and the backend say about the services."""

import itertools
import os
import time
from pathlib import Path

import pytest

from ivy import constants
from ivy.types.link_report import LinkReport
from ivy.utils.host import busy
from ivy.utils.storage.last_sample import LAST_SAMPLE
from ivy.utils.updates.probation import Watch, failing, restarts, sending
from tests.support.helpers import Node, record_end
from tests.unit.offers import foreign
from tests.unit.procedures import say_busy

PROCEDURE, BACKEND = "ivy-wind.service", "ivy-tenta.service"
INVOCATION = "0123456789abcdef0123456789abcdef"
SECONDS = 30.0
LONG_AGO = 1.0  # seconds after the boot
NOW = 10**9  # so much later than the boot that it has only just begun
MICROSECONDS = 10**6
WAITS = {"ActiveState": "activating", "SubState": "auto-restart"}


@pytest.fixture(autouse=True)
def path(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake programs are found first."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    Path(constants.BACKEND_RUN_DIR).mkdir(exist_ok=True)
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


def report(connected: bool = True, invocation: str = INVOCATION, **more: object) -> None:
    """What the backend says of its connection; by default, that it has delivered something."""
    reason = None if connected else "refused"
    fields = {"has_delivered": connected, "broker": "b:1", "since": 1.0} | more
    LinkReport.model_validate(
        {**fields, "connected": connected, "reason": reason, "invocation": invocation}
    ).write()


@pytest.mark.parametrize("has_delivered", [True, None])  # None: a release that does not say
def test_what_runs_long_enough_and_delivers_is_good(node: Node, has_delivered: bool | None) -> None:
    report(has_delivered=has_delivered)
    assert look(node) == (None, None)
    [call] = [call for call in node.calls() if " show " in call]
    assert call.endswith(f"-- {PROCEDURE} {BACKEND}")


@pytest.mark.parametrize(
    ("changed", "failure"),
    [
        (
            {"ActiveState": "failed", "Result": "watchdog", "ExecMainCode": "2", "ExecMainStatus": "6"},
            "failed (watchdog, as it gave no sign of life, signal ABRT)",
        ),
        ({"ActiveState": "inactive", "SubState": "dead"}, "was stopped"),
        ({"NRestarts": "3", "Result": "success"}, "ended 3 times"),  # it runs again, and nobody has counted
        (
            {"NRestarts": "3", **WAITS, "Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "217"},
            "ended 3 times (exit status 217 (USER))",
        ),
        ({"NRestarts": "3", **WAITS, "ExecMainCode": "1", "ExecMainStatus": "0"}, "ended 3 times (exit status 0)"),
    ],
)
def test_what_has_failed_fails_at_once_with_its_journal(node: Node, changed: dict[str, str], failure: str) -> None:
    node.fake("systemd-analyze", {"*217": "printf 'NAME STATUS CLASS\\nUSER 217 systemd\\n'"})
    report()
    found, pending = look(node, block(PROCEDURE, **changed), block(BACKEND))
    assert found == f"{PROCEDURE} {failure}; its journal ends with:\nTraceback: the sensor is gone"
    assert pending is None


@pytest.mark.parametrize(("seconds_ago", "words"), [(2, " (signal SEGV)"), (200, "")])
def test_what_runs_again_ended_as_was_counted_meanwhile(node: Node, seconds_ago: int, words: str) -> None:
    """systemd knows of the run that has just begun that it is a success."""
    report()
    record_end(PROCEDURE, seconds_ago=seconds_ago, ending="signal:killed:SEGV")
    found, _ = look(node, block(PROCEDURE, NRestarts="3"), block(BACKEND), since=100)
    assert found is not None and found.startswith(f"{PROCEDURE} ended 3 times{words}; ")


YOUNG = {"ActiveEnterTimestampMonotonic": str(NOW * MICROSECONDS)}
AILMENTS = [
    ({"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}, "failed (exit-code)"),
    ({"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "1"}, "ended 1 times"),
    ({"ActiveState": "activating", "SubState": "auto-restart"}, "ended by itself"),
    ({"ActiveState": "activating", "SubState": "start", "NRestarts": "9"}, "ended 9 times"),
    ({"NRestarts": "3", **YOUNG}, "ended 3 times"),
    ({"LoadState": "not-found"}, "cannot be loaded"),
]


@pytest.mark.parametrize(("changed", "words"), AILMENTS)
def test_what_was_failing_before_decides_nothing(node: Node, changed: dict[str, str], words: str) -> None:
    report()
    shown = [block(PROCEDURE, **changed), block(BACKEND)]
    look(node, *shown)
    assert failing([PROCEDURE, BACKEND]) == {PROCEDURE: words}
    watch = Watch([PROCEDURE, BACKEND], BACKEND, SECONDS, 300, lambda text: None, failing_before=[PROCEDURE])
    assert watch.look() == (None, None)
    look(node, block(PROCEDURE, **changed), block(BACKEND, ActiveState="failed"))
    failure, _ = watch.look()
    assert failure is not None and failure.startswith(f"{BACKEND} failed")


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"NRestarts": "17"},  # it has run well for long since
        {"NRestarts": "2", **YOUNG},
        {"ActiveState": "activating", "SubState": "start"},
        {"ActiveState": "inactive", "SubState": "dead"},  # somebody has stopped it
    ],
)
def test_what_runs_before_must_run_afterwards(node: Node, changed: dict[str, str]) -> None:
    look(node, block(PROCEDURE, **changed), block(BACKEND))
    assert failing([PROCEDURE, BACKEND]) == {}


def test_restarts_of_long_ago_are_not_those_of_the_change(node: Node) -> None:
    report()
    look(node, block(PROCEDURE, NRestarts="17"), block(BACKEND))
    before = restarts([PROCEDURE, BACKEND])
    assert before == {PROCEDURE: 17, BACKEND: 0}
    watch = Watch([PROCEDURE, BACKEND], BACKEND, SECONDS, 300, lambda text: None, restarts_before=before)
    assert watch.look() == (None, None)
    look(node, block(PROCEDURE, NRestarts="20"), block(BACKEND))
    failure, _ = watch.look()
    assert failure is not None and failure.startswith(f"{PROCEDURE} ended 3 times")


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
    (lambda: report(invocation=""), "has said nothing of its connection"),
    (lambda: report(connected=False), "there is no connection: refused"),
    (lambda: report(has_delivered=False), "nothing was delivered: b:1 has acknowledged no message since"),
    (lambda: report(has_delivered=False, troubles=["t: nobody"]), "nothing was delivered: t: nobody"),
    (lambda: report(connected=False, invocation="of the run before"), "has said nothing of its connection"),
    (lambda: Path(constants.BACKEND_RUN_DIR, "link.json").write_text("{"), "has said nothing of its connection"),
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


def test_a_message_is_sent_once_where_only_that_is_missing(node: Node) -> None:
    """Procedures may sample once an hour."""
    (node.home / "shown").write_text("\n".join([block(PROCEDURE), block(BACKEND)]))
    node.fake("systemctl", {"show*": f"cat {node.home}/shown"})
    report(has_delivered=False)
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        report()

    watch = Watch([PROCEDURE, BACKEND], BACKEND, SECONDS, 300, print, ask=ask, seconds_between_looks=0.001)
    assert watch.run() is None
    assert asked == [1]


def test_without_a_backend_no_link_is_asked_for(node: Node) -> None:
    (node.home / "shown").write_text(block(PROCEDURE))
    node.fake("systemctl", {"show*": f"cat {node.home}/shown"})
    assert Watch([PROCEDURE], None, SECONDS, 300, print).look() == (None, None)


def sampled(at: float, rest: float | None = None) -> None:
    """Let the procedure have sampled then: seconds after the boot."""
    note = Path(f"{LAST_SAMPLE}wind")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()
    os.utime(note, (at - (rest or 0), at))


def test_what_must_send_data_again_and_sends_none_fails(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    report()
    look(node)
    monkeypatch.setattr(time, "clock_gettime", lambda _: 1000.0)
    shown = {"ActiveEnterTimestampMonotonic": str(900 * MICROSECONDS)}
    watch = Watch([PROCEDURE, BACKEND], BACKEND, SECONDS, 300, lambda _: None, must_send=[PROCEDURE])
    look(node, block(PROCEDURE, **shown), block(BACKEND))
    pending = f"{PROCEDURE} has sent no data since, and did before; if it may rest for long, let "
    pending += "procedures.wind.max_silent_seconds say so"
    assert watch.look() == (None, pending)
    sampled(899)  # by the run before
    assert watch.look() == (None, pending)
    watch.began -= 301
    assert watch.look() == (f"after 300 s {pending}", None)
    sampled(901)
    assert watch.look() == (None, None)


def test_of_others_no_data_is_asked(node: Node) -> None:
    report()
    assert look(node) == (None, None)


@pytest.mark.parametrize(
    ("age", "rest", "limit", "sends", "is_silent"),
    [
        (5, 10, None, 10, False),
        (19, 10, None, 10, False),
        (21, 10, None, None, True),
        (9, 0.1, None, 0.1, False),
        (11, 0.1, None, None, True),
        (3000, 3600, None, 3600, False),
        (5, None, None, None, False),  # one sample has no rhythm
        (5, None, 60, 60, False),
        (61, None, 60, None, True),
        (30, 10, 60, None, False),  # not silent yet, but it is not known that it still sends
        (61, 3600, 60, None, True),
    ],
)
def test_what_a_procedure_sent_before_a_change(
    monkeypatch: pytest.MonkeyPatch,
    age: float,
    rest: float | None,
    limit: int | None,
    sends: float | None,
    is_silent: bool,
) -> None:
    monkeypatch.setattr(time, "clock_gettime", lambda _: 10_000.0)
    sampled(10_000 - age, rest)
    config = foreign(procedures={"wind": {"max_silent_seconds": limit}})
    sent, silent = sending([PROCEDURE, BACKEND], config)
    assert sent == pytest.approx({} if sends is None else {PROCEDURE: sends})
    assert silent == ([PROCEDURE] if is_silent else [])


@pytest.mark.parametrize("limit", [None, 60])
def test_who_calibrates_is_not_silent_but_for_a_limit(limit: int | None) -> None:
    sampled(busy.now() - 100, rest=1)
    config = foreign(procedures={"wind": {"max_silent_seconds": limit}})
    assert sending([PROCEDURE], config) == ({}, [PROCEDURE])
    say_busy("wind", 600)
    assert sending([PROCEDURE], config) == ({}, [PROCEDURE] if limit else [])


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
