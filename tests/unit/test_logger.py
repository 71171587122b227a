"""`ivy.utils.logger` and `ivy.utils.host.journal`: each line where its level is wanted, and never an exception."""

import contextlib
import datetime
import io
import os
import re
import socket
import subprocess
import sys
import time
from typing import Any, get_args

import pytest

from ivy import constants
from ivy.types.config import Config, LogLevel
from ivy.types.messages import LogMessageBody
from ivy.utils.host import journal
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from tests.support.helpers import ARCHIVE_DIR, BACKEND, Node, make_config, wait_until

LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC[+-]\d+(\.\d+)?"


def verbose(
    journal: LogLevel | None = None,
    console: LogLevel | None = None,
    messages: LogLevel | None = None,
    backend: dict[str, Any] | None = BACKEND,
) -> Config:
    """A config that shows these levels at these places."""
    verbosity = {"file_archive": journal, "console_prints": console, "message_sending": messages}
    return make_config(logging_verbosity=verbosity, backend=backend)


def queued() -> list[LogMessageBody]:
    """The log messages in the queue."""
    agent = MessagingAgent()
    bodies = [item.message_body for item in agent.get_n_latest_messages(100, [])]
    agent.teardown()
    return [body for body in bodies if isinstance(body, LogMessageBody)]


def log(logger: Logger, level: LogLevel) -> None:
    """Write a line of a level."""
    if level == "EXCEPTION":
        logger.exception(ValueError("bad"))
    else:
        getattr(logger, level.lower())("message")


def raised() -> Exception:
    """An exception with a traceback."""
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError as error:
        return error


def test_a_line_on_the_terminal(make_logger: type[Logger], capsys: pytest.CaptureFixture[str]) -> None:
    make_logger(verbose(console="DEBUG"), "origin").info("test message")
    assert re.fullmatch(STAMP + r" - origin           - INFO      - test message\n", capsys.readouterr().out)


def test_details_stand_below_their_line(make_logger: type[Logger], capsys: pytest.CaptureFixture[str]) -> None:
    make_logger(verbose(console="DEBUG"), "origin").warning("test message", details="test\ndetails\n")
    assert capsys.readouterr().out.splitlines()[1:] == [
        "--- details ----------------------------",
        "test",
        "details",
        "----------------------------------------",
    ]


def test_an_exception_on_the_terminal(make_logger: type[Logger], capsys: pytest.CaptureFixture[str]) -> None:
    make_logger(verbose(console="DEBUG"), "origin").exception(raised(), details="test details")
    first, *others = capsys.readouterr().out.splitlines()
    assert first.endswith(" - EXCEPTION - ZeroDivisionError: division by zero")
    assert others[:4] == [
        "--- exception details ------------------",
        "test details",
        "--- traceback --------------------------",
        "Traceback (most recent call last):",
    ]
    assert others[-2:] == ["ZeroDivisionError: division by zero", "----------------------------------------"]


def test_the_label_of_an_exception_stands_before_it(
    make_logger: type[Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    make_logger(verbose(console="DEBUG")).exception(raised(), label="dividing")
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith(" - dividing, ZeroDivisionError: division by zero")
    assert second == "--- traceback --------------------------"


@pytest.mark.parametrize("fill", ["-", "=", ".", "_"])
def test_a_horizontal_line(make_logger: type[Logger], capsys: pytest.CaptureFixture[str], fill: Any) -> None:
    make_logger(verbose(console="DEBUG", messages="DEBUG")).horizontal_line(fill)
    assert fill * 40 in capsys.readouterr().out
    assert queued() == []  # it says nothing to somebody far away


@pytest.mark.parametrize(
    ("hours", "shown"), [(0, "+0"), (2, "+2"), (-3.5, "-3.5"), (5.75, "+5.75"), (-11, "-11"), (14, "+14")]
)
def test_the_difference_to_utc(
    make_logger: type[Logger],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hours: float,
    shown: str,
) -> None:
    with monkeypatch.context() as patched:
        # POSIX counts to the west.
        patched.setenv("TZ", f"<here>{'-' if hours > 0 else ''}{datetime.timedelta(hours=abs(hours))}")
        time.tzset()
        make_logger(verbose(console="DEBUG")).info("message")
    time.tzset()
    assert f" UTC{shown} - " in capsys.readouterr().out


@pytest.mark.parametrize("least", [*LEVELS, None])
def test_levels_on_the_terminal(
    make_logger: type[Logger], capsys: pytest.CaptureFixture[str], least: LogLevel | None
) -> None:
    logger = make_logger(verbose(journal="DEBUG", console=least))
    for level in LEVELS:
        log(logger, level)
    shown = re.findall(rf"^{STAMP} - .* - (\w+) +- ", capsys.readouterr().out, re.MULTILINE)
    assert [match[-1] for match in shown] == list(LEVELS[LEVELS.index(least) :] if least else [])


@pytest.mark.parametrize("least", [*LEVELS, None])
def test_levels_in_the_queue(make_logger: type[Logger], least: LogLevel | None) -> None:
    logger = make_logger(verbose(messages=least))
    for level in LEVELS:
        log(logger, level)
    assert [body.level for body in queued()] == list(LEVELS[LEVELS.index(least) :] if least else [])


def test_a_message_says_who_and_what(make_logger: type[Logger]) -> None:
    make_logger(verbose(messages="DEBUG"), "origin").error("subject", details="more")
    [body] = queued()
    assert body.subject == "origin - ERROR - subject"
    assert body.body == "--- details ----------------------------\nmore"


def test_a_message_about_an_exception_has_its_traceback(make_logger: type[Logger]) -> None:
    make_logger(verbose(messages="DEBUG"), "origin").exception(raised(), label="dividing", details="more")
    [body] = queued()
    assert body.subject == "origin - EXCEPTION - dividing, ZeroDivisionError: division by zero"
    assert "more\n--- traceback --" in body.body and "in raised" in body.body


def test_without_a_backend_nothing_is_queued(make_logger: type[Logger]) -> None:
    """Nobody would ever take it out again."""
    make_logger(verbose(messages="DEBUG", backend=None)).error("subject")
    assert not os.path.exists(ACTIVE_QUEUE_FILE)


def test_trouble_with_the_backend_is_not_queued(
    make_logger: type[Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    logger = make_logger(verbose(console="DEBUG", messages="DEBUG"), "origin").without_messages()
    logger.error("no connection")
    assert not os.path.exists(ACTIVE_QUEUE_FILE)
    assert "origin           - ERROR     - no connection" in capsys.readouterr().out


def test_a_broken_queue_is_reported_and_no_more(node: Node) -> None:
    node.write_config(backend=BACKEND)
    code = """
import sqlite3
from ivy.types.config import *; from ivy.utils import logger

def fail():
    raise sqlite3.OperationalError("broken")

logger.MessagingAgent = fail
logger.Logger(Config.load()).error('the message itself')
"""
    process = node.start("-c", code)
    _, errors = process.communicate(timeout=80)
    assert process.returncode == 0
    assert "a log message could not be queued: OperationalError" in errors and "the message itself" in errors


def test_a_queue_that_can_be_used_again_is(make_logger: type[Logger], capsys: pytest.CaptureFixture[str]) -> None:
    logger = make_logger(verbose(messages="DEBUG"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("ivy.utils.logger.MessagingAgent")
        logger.error("first")
    logger.error("second")
    assert [body.subject for body in queued()] == ["test - ERROR - second"]
    assert "first" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "\udcff\udcfe", "\x1b[2J", "", "é\u2028", "x" * 1_000_000])
def test_any_text_is_logged(make_logger: type[Logger], capsys: pytest.CaptureFixture[str], text: str) -> None:
    logger = make_logger(verbose(console="DEBUG", messages="DEBUG"))
    logger.error(text, details=text)
    logger.exception(ValueError(text), label=text, details=text)
    assert len(queued()) == 2
    assert "\0" not in capsys.readouterr().out


def test_archive_and_queue_hold_the_same_line(make_logger: type[Logger]) -> None:
    make_logger(verbose(messages="DEBUG")).error("subject")
    [file] = ARCHIVE_DIR.iterdir()
    assert "subject" in file.read_text()


class FakeJournal:
    """A socket in the place of the journal's, which takes as much as that."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(journal.SOCKET)
        self.socket.setblocking(False)

    def __del__(self) -> None:
        self.socket.close()

    def entries(self) -> list[dict[str, str]]:
        """What it was sent and has not given out yet."""
        return list(iter(self._next, {}))

    def fill(self) -> None:
        """As when nobody reads any more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
            other.setblocking(False)
            other.connect(journal.SOCKET)
            while True:
                other.send(b"OTHER=1\n")

    def _next(self) -> dict[str, str]:
        try:
            text, files, _, _ = socket.recv_fds(self.socket, 100_000, 1)
        except BlockingIOError:
            return {}
        for file in files:
            text = os.pread(file, 10_000_000, 0)
            os.close(file)
        return self._parse(text)

    @staticmethod
    def _parse(text: bytes) -> dict[str, str]:
        """As the protocol has it: each field with its length, or with its value on the same line."""
        entry = {}
        while text:
            head, _, text = text.partition(b"\n")
            name, is_short, value = head.decode().partition("=")
            if not is_short:
                length = int.from_bytes(text[:8], "little")
                value, text = text[8 : 8 + length].decode(), text[8 + length + 1 :]
            entry[name] = value
        return entry


def attach(monkeypatch: pytest.MonkeyPatch) -> FakeJournal:
    """Connect standard error to the journal. (No fixture: between those and the test, pytest exchanges it.)"""
    monkeypatch.setattr(journal, "SOCKET", f"{constants.IVY_ROOT_DIR}/journal")
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    return FakeJournal()


def test_the_journal_is_known_by_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    attach(monkeypatch)
    assert journal.is_attached()
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")  # as inherited by a program whose output goes elsewhere
    assert not journal.is_attached()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not journal.is_attached()


@pytest.mark.parametrize(
    ("level", "priority"), [("DEBUG", 7), ("INFO", 6), ("WARNING", 4), ("ERROR", 3), ("EXCEPTION", 3)]
)
def test_the_fields_of_an_entry(
    make_logger: type[Logger], monkeypatch: pytest.MonkeyPatch, level: LogLevel, priority: int
) -> None:
    fake = attach(monkeypatch)
    log(make_logger(verbose(journal="DEBUG"), "system-checks"), level)
    [entry] = fake.entries()
    subject = entry.pop("MESSAGE").splitlines()[0]
    assert subject == ("ValueError: bad" if level == "EXCEPTION" else "message")
    assert entry == {
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": "ivy-system-checks",
        "IVY_LEVEL": level,
        "IVY_ORIGIN": "system-checks",
    }


def test_details_stand_in_the_same_entry(make_logger: type[Logger], monkeypatch: pytest.MonkeyPatch) -> None:
    fake = attach(monkeypatch)
    logger = make_logger(verbose(journal="DEBUG"))
    logger.info("subject", details="more")
    logger.exception(raised(), details="more")
    entries = fake.entries()
    assert entries[0]["MESSAGE"] == "subject\nmore"
    assert "more\n--- traceback --" in entries[1]["MESSAGE"]


@pytest.mark.parametrize("least", [*LEVELS, None])
def test_levels_in_the_journal(
    make_logger: type[Logger],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    least: LogLevel | None,
) -> None:
    fake = attach(monkeypatch)
    logger = make_logger(verbose(journal=least, console="DEBUG"))
    for level in LEVELS:
        log(logger, level)
    assert [entry["IVY_LEVEL"] for entry in fake.entries()] == list(LEVELS[LEVELS.index(least) :] if least else [])
    assert capfd.readouterr().out == ""  # a service has no terminal


def test_a_journal_that_restarts_loses_no_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    attach(monkeypatch).socket.close()
    journal.send("ERROR", "subject", "more")
    assert capfd.readouterr().err == "subject\nmore\n"


def test_an_entry_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = attach(monkeypatch)
    for size in (1, 63_000, 65_000, 1_000_000):
        journal.send("INFO", "x" * size, "more")
        assert [entry["MESSAGE"] for entry in fake.entries()] == ["x" * size + "\nmore"]


def test_a_journal_that_hangs_costs_a_second_and_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with journald stopped, whose socket is full."""
    fake = attach(monkeypatch)
    monkeypatch.setattr(journal, "PATIENCE", 0.1)
    fake.fill()
    began = time.monotonic()
    journal.send("INFO", "first")
    waited = time.monotonic() - began
    assert waited >= 0.1
    monkeypatch.setattr(journal, "PATIENCE", 600.0)  # that is not waited for any more
    for number in range(100):
        journal.send("INFO", str(number))
    fake.entries()
    journal.send("INFO", "back")
    journal.send("INFO", "again")
    said = [entry["MESSAGE"] for entry in fake.entries()]
    assert said == ["101 lines are missing here, as the journal took none", "back", "again"]


def test_nobody_waits_for_one_socket_of_the_journal_because_another_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is printed is taken, and entries are not: else each of them would cost a second again."""
    fake = attach(monkeypatch)
    fake.fill()
    monkeypatch.setattr(journal, "PATIENCE", 0.1)
    journal.send("INFO", "first")
    monkeypatch.setattr(journal, "PATIENCE", 600.0)
    taker, stream = socket.socketpair()
    with taker, stream, monkeypatch.context() as patched:
        status = os.fstat(stream.fileno())
        patched.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        kept = [os.dup(1), os.dup(2)]
        try:
            patched.setattr(sys, "stdout", sys.stdout)
            patched.setattr(sys, "stderr", sys.stderr)
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            journal.guard_streams()
            for number in range(3):
                print("printed", number)
                journal.send("INFO", str(number))
        finally:
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for descriptor in kept:
                os.close(descriptor)
        assert taker.recv(1000) == b"printed 0\nprinted 1\nprinted 2\n"
    fake.entries()
    journal.send("INFO", "back")
    assert fake.entries()[0]["MESSAGE"] == "4 lines are missing here, as the journal took none"


UNTIMED = """
import socket
socket.SO_SNDTIMEO = 9999  # no kernel knows it
from ivy.utils.host import journal
journal.guard_streams()
print("runs")
"""


def test_a_kernel_that_takes_no_such_limit_keeps_no_service_from_running(node: Node) -> None:
    """On a processor whose times are longer than its registers, each service ended as it began."""
    journals_end, services_end = socket.socketpair()
    with journals_end, services_end:
        status = os.fstat(services_end.fileno())
        node.environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        subprocess.run(
            [sys.executable, "-c", UNTIMED],
            stdout=services_end.fileno(),
            stderr=services_end.fileno(),
            cwd=node.home,
            env=node.environment,
            check=True,
        )
        assert journals_end.recv(1000) == b"runs\n"


PRINTS = """
import sys, time
from ivy.utils.host import journal
journal.PATIENCE = 1
journal.guard_streams()
for number in range(20_000):
    print("x" * 100)
    print("y" * 100, file=sys.stderr)
open("done", "w").close()
sys.stdin.read()
print("back")
raise ValueError("with a traceback")
"""


def test_a_journal_that_hangs_stops_nobody_who_prints(node: Node) -> None:
    """Standard output and error of a service are sockets that the same journal reads."""
    journals_end, services_end = socket.socketpair()
    with journals_end, services_end, contextlib.ExitStack() as stack:
        status = os.fstat(services_end.fileno())
        node.environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        service = subprocess.Popen(
            [sys.executable, "-c", PRINTS],
            stdin=subprocess.PIPE,
            stdout=services_end.fileno(),
            stderr=services_end.fileno(),
            cwd=node.home,
            env=node.environment,
        )
        stack.callback(service.wait)
        stack.callback(service.kill)
        services_end.close()
        wait_until((node.home / "done").exists)
        journals_end.settimeout(0.2)
        taken = received(journals_end)
        assert service.stdin is not None
        service.stdin.close()
        journals_end.settimeout(20)
        first, second, *_, last = received(journals_end).decode().strip().splitlines()
    assert taken.count(b"\n") < 2 * 20_000 - 1000
    assert re.fullmatch(r"\d+ lines are missing here, as the journal took none", first)
    assert (second, last) == ("back", "ValueError: with a traceback")


def received(stream: socket.socket) -> bytes:
    """All that comes until the end, or for as long as the stream waits."""
    found = b""
    with contextlib.suppress(TimeoutError):
        while some := stream.recv(1 << 16):
            found += some
    return found


def test_a_terminal_that_is_gone_ends_nothing(
    make_logger: type[Logger], agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    logger = make_logger(verbose(console="DEBUG", messages="DEBUG"))
    with monkeypatch.context() as patched:
        for terminal in (os.fdopen(writer, "w"), io.TextIOWrapper(io.BytesIO(), encoding="ascii")):
            patched.setattr(sys, "stdout", terminal)
            logger.info("20 \N{DEGREE SIGN}C")
            with contextlib.suppress(BrokenPipeError):
                terminal.close()
    assert len(agent.get_n_latest_messages(10, [])) == 2


class Wordless(Exception):
    """As some libraries have them."""

    def __str__(self) -> str:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_what_is_no_text_is_said_as_one(make_logger: type[Logger], level: str) -> None:
    logger: Any = make_logger(verbose(messages="DEBUG"), "origin")
    for said in (ValueError("no sensor"), 21.5, None, b"\xff"):
        getattr(logger, level)(said, said)
    assert [(body.subject.rpartition(" - ")[2], body.body[41:]) for body in queued()] == [
        ("no sensor", "no sensor"),
        ("21.5", "21.5"),
        ("None", ""),
        ("b'\\xff'", "b'\\xff'"),
    ]


@pytest.mark.parametrize(
    ("error", "subject"),
    [
        (Wordless(), "Wordless: without words"),
        ("the sensor is away", "str: the sensor is away"),
        (ValueError, "type: <class 'ValueError'>"),
    ],
)
def test_whatever_is_logged_for_an_exception_does_not_raise(
    make_logger: type[Logger], error: Any, subject: str
) -> None:
    make_logger(verbose(messages="DEBUG"), "origin").exception(error)
    assert [body.subject for body in queued()] == [f"origin - EXCEPTION - {subject}"]
