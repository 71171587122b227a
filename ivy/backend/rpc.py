"""Answers remote calls: at once what the backend knows, and by root's answer what only root may do.

A call for root is a file that says what is wanted (`ivy.types.calls`), one for each method at a time. The unit
`ivy-call@METHOD.service` checks it again, does it, and leaves an answer. Who calls waits for some seconds only:
what takes longer is answered with "begun", and told by a log message when it is done. Nothing else is ever done.
"""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ivy import constants, files
from ivy.backend import flags
from ivy.backend.delays import USUAL, Delays
from ivy.backend.dialect import Publication, Request
from ivy.types import calls
from ivy.types.messages import LogMessageBody
from ivy.utils.functions import procedure_names
from ivy.utils.host import busy, hold
from ivy.utils.messaging_agent import MessagingAgent

_RESTARTS = "ivy-restart.path"
SECONDS_FOR_SYSTEMD = 2.0  # twice for a status: platforms wait 5 or 10 s for an answer
_SECONDS_UNTIL_LOST = 5.5 * 3600  # longer than the unit may take
_LARGEST_PACKET = calls.LARGEST_ANSWER + 2000

_Answer = dict[str, Any]


@dataclass
class _Pending:
    """A call that root is to answer."""

    token: str
    began: float
    """Monotonic."""
    topic: str | None
    """Where somebody waits; None after the time for that."""


class Calls:
    """The calls of one connection."""

    def __init__(
        self,
        status: Callable[[], _Answer],
        queue: MessagingAgent,
        provider: str,
        largest_packet: Callable[[], float] = lambda: _LARGEST_PACKET,
        delays: Delays = USUAL,
    ) -> None:
        """No call is under way.

        Args:
            status: Collects what `status` answers.
            queue: For the answers that come late.
            provider: The platform, which those name.
            largest_packet: How many bytes broker and platform take now.
            delays: How long to wait for what.
        """
        self._status = status
        self._queue = queue
        self._provider = provider
        self._largest_packet = largest_packet
        self._delays = delays
        self._pending: dict[str, _Pending] = {}
        self._next: dict[str, float] = {}  # when root may be asked again, monotonic
        self._next_look = 0.0

    def take(self, request: Request) -> list[Publication]:
        """Do what a call asks for, or ask root to do it. Returns the answer; none while root has not given one."""
        answer = self._answer(request)
        return [] if answer is None else [self._publication(request.answer_topic, answer)]

    def answers(self) -> list[Publication]:
        """What has come of the calls that root was asked to do, as far as somebody waits for it."""
        if not self._pending or self.seconds_until_due() > 0:
            return []
        found: list[Publication] = []
        now = time.monotonic()
        for method, call in list(self._pending.items()):
            answer = _answered(method, call.token)
            if answer is not None and call.topic is not None:
                del self._pending[method]
                found.append(self._publication(call.topic, answer))
            elif answer is not None:
                with contextlib.suppress(sqlite3.Error):  # else it is told when the queue takes something again
                    self._report(method, answer)
                    del self._pending[method]
            elif now - call.began >= _SECONDS_UNTIL_LOST:
                del self._pending[method]
            elif call.topic is not None and now - call.began >= self._delays.to_answer:
                said = f"begun: it takes longer than {self._delays.to_answer:.0f} s; a log message tells its result"
                found.append(self._publication(call.topic, calls.success(said)))
                call.topic = None
        is_awaited = any(call.topic is not None for call in self._pending.values())
        self._next_look = now + (self._delays.between_looks if is_awaited else self._delays.between_late_looks)
        return found

    def seconds_until_due(self) -> float:
        """How long there is nothing to look for; infinity while no call is under way."""
        return max(0.0, self._next_look - time.monotonic()) if self._pending else float("inf")

    def _answer(self, request: Request) -> _Answer | None:
        match request.method:
            case "list" | "help":
                return calls.success(calls.listing())
            case "ping":
                return calls.success("pong")
            case "status":
                return calls.success(self._status())
            case "restart":
                return _restart(request.params)
            case method if method in calls.BY_ROOT:
                try:
                    return self._ask(method, request)
                except calls.CallError as error:
                    return calls.failure(str(error))
        near = calls.did_you_mean(request.method, calls.METHODS)
        return calls.failure(f"there is no such method{near}; there are {', '.join(calls.METHODS)}")

    def _ask(self, method: str, request: Request) -> _Answer | None:
        """Ask root. Returns why that was not done; None if it was."""
        params = calls.checked(method, request.params)
        if method == "logs" and "name" in params and (known := _services()):
            calls.check_service(str(params["name"]), known)
        now = time.monotonic()
        flag = f"{constants.CALL_FLAG}{method}"
        if (call := self._pending.get(method)) is not None:
            return calls.failure(
                f"{method} is under way, since {now - call.began:.0f} s; ask again when it is done"
            )
        if (rest := self._next.get(method, 0.0) - now) > 0:
            return calls.failure(f"{method} was asked for just now; ask again in {rest:.1f} s")
        self._next[method] = now + self._delays.between_calls
        call = _Pending(os.urandom(8).hex(), now, request.answer_topic)
        asked = calls.Asked(token=call.token, params=params).model_dump_json()
        if os.path.lexists(flag):
            return calls.failure(f"{method} was asked for before, and systemd has not begun; ask again in a minute")
        trouble = _why_nobody_would_see(f"ivy-call@{method}.path", lambda: flags.ask(flag, asked))
        if trouble is not None:
            return calls.failure(trouble)
        self._pending[method] = call
        self._next_look = 0.0
        return None

    def _report(self, method: str, answer: _Answer) -> None:
        is_done = bool(answer.get("success"))
        said = answer.get("result" if is_done else "error")
        level: Literal["INFO", "ERROR"] = "INFO" if is_done else "ERROR"
        subject = f"{self._provider} - {level} - The remote call {method} {'is done' if is_done else 'failed'}"
        body = said if isinstance(said, str) else json.dumps(said, indent=1)
        self._queue.add_message(LogMessageBody(level=level, subject=subject, body=body))

    def _publication(self, topic: str, answer: _Answer) -> Publication:
        """An answer in its form; of one that is too large for the broker, as much as fits, and how much that is."""
        publication = Publication(topic, calls.encoded(answer))
        excess = publication.size - int(min(self._largest_packet(), _LARGEST_PACKET))
        if excess <= 0:
            return publication
        return Publication(topic, calls.encoded(calls.shortened(answer, len(publication.payload) - excess)))


def _services() -> list[str]:
    """Those that the release has units for; none where it cannot be read, and root says which there are."""
    from ivy.utils.host import units  # not at the top: it loads what a backend does without until somebody asks

    try:
        return units.services_in(os.path.join(constants.PROJECT_DIR, "units"))
    except OSError:
        return []


def _answered(method: str, token: str) -> _Answer | None:
    """What root has answered to a call, if it has."""
    try:
        text = files.read(os.path.join(constants.ANSWERS_DIR, method), 2 * calls.LARGEST_ANSWER)
        found = calls.Answered.model_validate_json(text)
    except (OSError, ValueError):
        return None
    return found.answer if found.token == token else None


def _restart(params: Any) -> _Answer:
    """Leave word for `ivy-restart.service`, which may do what this service may not, and checks the name again."""
    name = params.get("name") if isinstance(params, dict) else params
    known = procedure_names()
    if name not in known:
        near = calls.did_you_mean(name, known) if isinstance(name, str) else ""
        return calls.failure(
            f'"params" must be the name of a procedure, or {{"name": it}}{near}: {", ".join(known)}'
        )
    if (held := hold.refusal()) is not None:
        return calls.failure(held)
    if (seconds := _seconds_until_restart(name)) > 0:
        return calls.failure(f"{name} was restarted less than a minute ago; ask again in {seconds:.0f} s")
    flag = f"{constants.RESTART_FLAG}{name}"
    if not os.path.exists(flag):
        trouble = _why_nobody_would_see(_RESTARTS, lambda: flags.leave(flag))
        if trouble is not None:
            return calls.failure(trouble)
    if seconds := busy.seconds_left(name):
        return calls.success(
            f"{name} is restarted later: it is not to be disturbed until {busy.clock_time(seconds)}"
        )
    return calls.success(f"{name} is being restarted")


def _why_nobody_would_see(unit: str, leave: Callable[[], None]) -> str | None:
    """Leave word that a path unit is to see. Returns why that would be of no use; None if it was done."""
    from ivy.utils.host import commands, units  # as above

    try:
        state = units.show(unit, "ActiveState", timeout=SECONDS_FOR_SYSTEMD).get("ActiveState")
        if state not in ("active", "activating"):
            return f"nobody would see to it: {unit} is {state}"
        leave()
    except commands.CommandError as error:
        return f"it is not known whether anybody would see to it: {error}"
    except OSError as error:
        return f"no word could be left for systemd: {error.strerror}"
    return None


def _seconds_until_restart(name: str) -> float:
    """How long nobody restarts a procedure again; what root left of it tells, whoever asked for the last one."""
    try:
        last = float(files.read(os.path.join(constants.RESTARTED_DIR, name), most_bytes=100))
    except (OSError, ValueError):
        return 0.0
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - last
    return constants.SECONDS_BETWEEN_RESTARTS - age if age >= 0 else 0.0
