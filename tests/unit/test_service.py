"""`ivy.service` and `ivy.utils.notify`: what a service and systemd say to each other."""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sdnotify

from ivy import constants
from ivy.types import secrets_file
from ivy.types.config import split_text
from ivy.types.messages import LogMessageBody
from ivy.utils import notify
from ivy.utils.host import signals
from ivy.utils.messaging_agent import MessagingAgent
from tests.support.helpers import BACKEND, Node, NotifySocket

PROCEDURE = """
from ivy import constants
constants.WATCHDOG_SECONDS = 0.2  # so that nobody waits for a quarter of a minute
from ivy import service
from ivy.utils import notify
def run(config, logger):
    {}
service.run_procedure(run, "example")
"""
NO_UNRAISABLE = """
import os, sys
sys.unraisablehook = lambda what: os._exit(3)
"""
BACKEND_CODE = """
from ivy import service
def run(config, logger, teardown_indicator):
    {}
service.run_backend(run, "example")
"""


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Status and error output of a process that ends."""
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors


@pytest.fixture(autouse=True)
def config_with_backend(node: Node) -> None:
    """A config with a backend, for messages to be queued."""
    node.write_config(backend=BACKEND)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_life_of_a_procedure(node: Node, notify_socket: NotifySocket, number: signal.Signals) -> None:
    process = node.start("-c", PROCEDURE.format("notify.status('working')\n    notify.sleep(1000)"))
    heard = notify_socket.until("STATUS=")
    assert set(heard[:-1]) == {"WATCHDOG=1", "READY=1"}
    assert heard[-1] == "STATUS=working"
    process.send_signal(number)
    assert "STOPPING=1" in notify_socket.until("STOPPING=1")
    assert ended(process) == (0, "")


def test_a_procedure_that_works_sends_heartbeats(node: Node, notify_socket: NotifySocket) -> None:
    node.start("-c", PROCEDURE.format("notify.sleep(1000)"))
    notify_socket.until("READY=1")
    assert [notify_socket.next() for _ in range(5)] == ["WATCHDOG=1"] * 5


def test_heartbeats_keep_up_with_an_impatient_unit(node: Node, notify_socket: NotifySocket) -> None:
    node.environment["WATCHDOG_USEC"] = "1200000"  # as an admin's drop-in may want it; four beats in that time
    node.start("-c", PROCEDURE.format("notify.status('resting'); notify.sleep(1000)"))
    notify_socket.until("STATUS=resting")
    assert [notify_socket.next(seconds=1.2) for _ in range(3)] == ["WATCHDOG=1"] * 3


def test_a_procedure_that_hangs_sends_none(node: Node, notify_socket: NotifySocket) -> None:
    process = node.start("-c", PROCEDURE.format("notify.status('hanging')\n    import time; time.sleep(1000)"))
    notify_socket.until("STATUS=hanging")
    assert notify_socket.next(seconds=1) == ""  # five times the patience of the watchdog
    assert process.poll() is None


def test_a_hung_procedure_shows_where_it_hangs(node: Node, notify_socket: NotifySocket) -> None:
    code = "notify.status('hanging')\n    import threading; threading.Event().wait()"
    process = node.start("-c", PROCEDURE.format(code))
    notify_socket.until("STATUS=hanging")
    process.send_signal(signal.SIGABRT)  # what the watchdog sends
    status, errors = ended(process)
    assert status == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in errors and " in run" in errors


def test_an_exception_ends_a_procedure_with_1_and_reaches_the_operator(
    node: Node, notify_socket: NotifySocket
) -> None:
    process = node.start("-c", PROCEDURE.format("raise ValueError('no sensor')"))
    assert notify_socket.until("STATUS=")[-1] == "STATUS=Failed: ValueError: no sensor"
    assert ended(process)[0] == 1
    agent = MessagingAgent()
    [item] = agent.get_n_latest_messages(10, [])
    agent.teardown()
    assert isinstance(item.message_body, LogMessageBody)
    assert item.message_body.subject == "example - EXCEPTION - ValueError: no sensor"
    assert "in run" in item.message_body.body


@pytest.mark.parametrize("code", [PROCEDURE, BACKEND_CODE])
def test_a_thread_that_dies_ends_the_service_and_reaches_the_operator(node: Node, code: str) -> None:
    work = (
        "import threading, time\n"
        "    def measure(): raise OSError('the sensor was pulled out')\n"
        "    threading.Thread(target=measure, name='sensor').start()\n"
        "    try: time.sleep(1000)\n"
        "    finally: print('safe', flush=True)"
    )
    process = node.start("-c", code.format(work))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert ("safe" in output) == (code == PROCEDURE)
    agent = MessagingAgent()
    [item] = agent.get_n_latest_messages(10, [])
    agent.teardown()
    assert isinstance(item.message_body, LogMessageBody)
    subject = "the thread 'sensor' died, OSError: the sensor was pulled out"
    assert item.message_body.subject == f"example - EXCEPTION - {subject}"
    assert "in measure" in item.message_body.body


def test_a_thread_that_dies_of_an_error_without_words_ends_the_service(node: Node) -> None:
    work = (
        "import threading, time\n"
        "    class Wordless(Exception): __str__ = lambda self: None\n"
        "    def measure(): raise Wordless\n"
        "    threading.Thread(target=measure, name='sensor').start()\n"
        "    time.sleep(1000)"
    )
    process = node.start("-c", PROCEDURE.format(work))
    process.communicate(timeout=60)
    assert process.returncode == 1
    agent = MessagingAgent()
    [item] = agent.get_n_latest_messages(10, [])
    agent.teardown()
    assert isinstance(item.message_body, LogMessageBody)
    assert item.message_body.subject == "example - EXCEPTION - the thread 'sensor' died, Wordless: without words"


def test_a_thread_that_dies_for_want_of_files_ends_the_service(node: Node) -> None:
    """As a library has left open one more with each sample. Its words are lost, but not in the journal."""
    work = (
        "import os, resource, threading, time\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "    def measure():\n"
        "        while True: os.dup(0)\n"
        "    threading.Thread(target=measure, name='sensor').start()\n"
        "    time.sleep(1000)"
    )
    process = node.start("-c", PROCEDURE.format(work))
    _, errors = ended(process)
    assert process.returncode == 1 and "Too many open files" in errors


def test_a_thread_may_end_by_itself(node: Node, notify_socket: NotifySocket) -> None:
    work = (
        "import sys, threading\n"
        "    thread = threading.Thread(target=sys.exit)\n"
        "    thread.start(); thread.join()\n"
        "    notify.status('working'); notify.sleep(1000)"
    )
    process = node.start("-c", PROCEDURE.format(work))
    notify_socket.until("STATUS=working")
    process.terminate()
    assert ended(process) == (0, "")


def test_what_a_stop_does_to_a_thread_is_no_trouble(node: Node, notify_socket: NotifySocket) -> None:
    work = (
        "import os, threading\n"
        "    reader, writer = os.pipe()\n"
        "    def measure(): os.read(reader, 1); raise OSError('the port was closed')\n"
        "    thread = threading.Thread(target=measure); thread.start()\n"
        "    try: notify.status('working'); notify.sleep(1000)\n"
        "    finally: os.write(writer, b'x'); thread.join()"
    )
    process = node.start("-c", PROCEDURE.format(work))
    notify_socket.until("STATUS=working")
    process.terminate()
    assert ended(process) == (0, "")


def test_a_stop_that_is_swallowed_comes_again(node: Node, notify_socket: NotifySocket) -> None:
    """Also where the loop calls nothing of ivy's; and not before it has had time for a teardown."""
    work = (
        "constants.SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN = 0.2\n"
        "    import time; tries = 0\n"
        "    try:\n"
        "        while tries < 2:\n"
        "            try: notify.status('working'); time.sleep(1000)\n"
        "            except: tries += 1\n"
        "    finally: print('safe', flush=True)"
    )
    process = node.start("-c", PROCEDURE.format(work))
    notify_socket.until("STATUS=working")
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "safe\n", "")


def test_a_teardown_is_not_disturbed(node: Node, notify_socket: NotifySocket) -> None:
    work = (
        "import signal\n"
        "    try: notify.status('working'); notify.sleep(1000)\n"
        "    finally:\n"
        "        try: raise KeyError\n"
        "        except KeyError: signal.raise_signal(signal.SIGTERM)\n"
        "        print('safe', flush=True)"
    )
    process = node.start("-c", PROCEDURE.format(work))
    notify_socket.until("STATUS=working")
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "safe\n", "")


def test_who_returns_when_told_to_stop_has_ended_well(node: Node, notify_socket: NotifySocket) -> None:
    work = "try: notify.status('working'); notify.sleep(1000)\n    except SystemExit: pass"
    process = node.start("-c", PROCEDURE.format(work))
    notify_socket.until("STATUS=working")
    process.terminate()
    assert ended(process) == (0, "")


def test_the_hardware_is_left_safe_and_the_operator_is_told_if_it_is_not(
    node: Node, notify_socket: NotifySocket
) -> None:
    """Systemd, which listens to the one that has ended, hears nothing."""
    code = """
from ivy import service
from ivy.utils import notify
def make_safe(config, logger):
    notify.sleep(0)
    {}
service.make_safe(make_safe, "example")
"""
    assert ended(node.start("-c", code.format("print(config.general.system_identifier)")))[0] == 0
    assert ended(node.start("-c", code.format("raise OSError('the valve is stuck')")))[0] == 1
    agent = MessagingAgent()
    [item] = agent.get_n_latest_messages(10, [])
    agent.teardown()
    assert isinstance(item.message_body, LogMessageBody)
    subject = "its hardware may not be safe, OSError: the valve is stuck"
    assert item.message_body.subject == f"example - EXCEPTION - {subject}"
    assert not notify_socket.next(seconds=0.01).startswith("WATCHDOG")


@pytest.mark.parametrize("code", [PROCEDURE, BACKEND_CODE])
def test_a_return_is_an_error(node: Node, code: str) -> None:
    process = node.start("-c", code.format("pass"))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "ended although" in output


@pytest.mark.parametrize("code", [PROCEDURE, BACKEND_CODE])
@pytest.mark.parametrize("config", ['{"general": ', '{"general": {"config_revision": "hidden"}}', None])
def test_a_config_error_ends_a_service_with_78_before_it_is_ready(
    node: Node, notify_socket: NotifySocket, code: str, config: str | None
) -> None:
    file = node.release / "config" / "config.json"
    file.write_text(config) if config else file.unlink()
    process = node.start("-c", code.format("raise SystemExit(99)"))
    first = notify_socket.next()
    assert first.startswith(f"STATUS=Config error: {file}: ")
    assert "\n" not in first and "hidden" not in first
    status, errors = ended(process)
    assert status == 78
    assert f"example - ERROR - config error, not starting: {file}: " in errors and "hidden" not in errors


@pytest.mark.parametrize("code", [PROCEDURE, BACKEND_CODE])
def test_with_a_config_that_was_accepted_a_service_runs_on_and_says_why(
    node: Node, notify_socket: NotifySocket, code: str
) -> None:
    file = node.release / "config" / "config.json"
    file.rename(file.with_name("config.accepted.json"))
    file.write_bytes(b"\0" * 851)
    process = node.start("-c", code.format("print(config.backend.provider, flush=True); notify.sleep(1000)"))
    notify_socket.until("READY=1")
    assert process.stdout is not None and process.stdout.readline() == "tenta\n"
    process.kill()
    _, errors = ended(process)
    assert f"example - ERROR - config error: {file}: Invalid JSON" in errors
    assert "the config that was accepted last is in use" in errors
    # The updater tells the operator, and comes for that.
    assert os.path.exists(constants.PENDING_CONFIG_FLAG) == (code == BACKEND_CODE)


def test_a_file_just_mistyped_does_not_hold_up_a_backend(
    node: Node, notify_socket: NotifySocket, tmp_path: Path
) -> None:
    """What it was handed are the secrets of the accepted one, and not of another that it has to wait for."""
    file = node.release / "config" / "config.json"
    shown, taken = split_text(file.read_text())
    file.with_name("config.accepted.json").write_text(shown)
    (tmp_path / "secrets.json").write_text(json.dumps({secrets_file.digest(shown): taken}))
    file.write_text(shown.replace(",", "", 1))
    node.environment["CREDENTIALS_DIRECTORY"] = str(tmp_path)
    work = "print(config.backend.mqtt_connection.password, flush=True); teardown_indicator.wait()"
    process = node.start("-c", BACKEND_CODE.format(work))
    notify_socket.until("READY=1")
    process.terminate()
    output, _ = process.communicate(timeout=240)
    assert (process.returncode, output) == (0, "hidden-password\n")


def test_a_warning_about_the_config_is_logged_and_no_more(node: Node, notify_socket: NotifySocket) -> None:
    updater = {"repository": "a/b", "provider": "github", "provider_host": "github.com"}
    node.write_config(updater={**updater, "source_conflict_behaviour": "reuse"})
    process = node.start("-c", PROCEDURE.format("notify.sleep(1000)"))
    notify_socket.until("READY=1")
    process.terminate()
    status, errors = ended(process)
    assert status == 0
    assert "example - WARNING - updater.source_conflict_behaviour has no effect" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_backend_ends_in_its_own_time(node: Node, notify_socket: NotifySocket, number: signal.Signals) -> None:
    work = "teardown_indicator.wait(); input(); print('drained', flush=True)"
    process = node.start("-c", BACKEND_CODE.format(work))
    notify_socket.until("READY=1")
    process.send_signal(number)
    notify_socket.until("STOPPING=1")
    assert process.poll() is None
    output, errors = process.communicate("go\n", timeout=60)
    assert (process.returncode, output, errors) == (0, "drained\n", "")
    assert notify_socket.until("STATUS=")[-1] == "STATUS=ended", "and not connected any more"


@pytest.mark.parametrize("step", [3, 5, 7, 9])
def test_sigterm_may_come_while_a_backend_looks_at_its_indicator(node: Node, step: int) -> None:
    """Python's own events deadlock if they are set while their lock is held."""
    work = (
        "import itertools, signal, sys; steps = itertools.count()\n"
        f"    trace = lambda *_: next(steps) == {step} and signal.raise_signal(signal.SIGTERM) or trace\n"
        "    sys.settrace(trace)\n"
        "    while not teardown_indicator.wait(0.01): pass"
    )
    assert ended(node.start("-c", BACKEND_CODE.format(work)))[0] == 0


def test_sigterm_wakes_a_backend_that_waits_for_messages(node: Node, notify_socket: NotifySocket) -> None:
    work = (
        "import select; from ivy.utils.storage.doorbell import Listener; listener = Listener()\n"
        "    from ivy.utils import notify; notify.status('waiting')\n"
        "    while not teardown_indicator.is_set(): select.select([listener], [], [], 10)"
    )
    # (Python runs handlers between its own steps: a signal in the instant before select() is dealt with after it.
    # A backend, too, then goes on until its next heartbeat.)
    process = node.start("-c", BACKEND_CODE.format(work))
    notify_socket.until("STATUS=waiting")
    process.terminate()
    assert ended(process)[0] == 0


def test_an_exception_ends_a_backend_with_1(node: Node) -> None:
    assert ended(node.start("-c", BACKEND_CODE.format("raise ValueError")))[0] == 1


def test_a_config_error_that_only_the_service_finds_ends_it_with_78(
    node: Node, notify_socket: NotifySocket
) -> None:
    code = "from ivy.types.config import ConfigError; raise ConfigError('general: is wrong')"
    process = node.start("-c", BACKEND_CODE.format(code))
    assert notify_socket.until("STATUS=")[-1] == "STATUS=Config error: general: is wrong"
    assert ended(process)[0] == 78


def test_an_exception_while_draining_is_an_error_too(node: Node, notify_socket: NotifySocket) -> None:
    process = node.start("-c", BACKEND_CODE.format("teardown_indicator.wait(); raise ValueError"))
    notify_socket.until("READY=1")
    process.terminate()
    assert ended(process)[0] == 1


def test_where_nobody_listens_nothing_fails(node: Node) -> None:
    """As when run by hand."""
    process = node.start(
        "-c", PROCEDURE.format("notify.status('x'); print('running', flush=True); notify.sleep(1000)")
    )
    assert process.stdout and process.stdout.readline() == "running\n"
    process.terminate()
    assert ended(process) == (0, "")


def test_where_nobody_listens_no_socket_is_opened(node: Node) -> None:
    """Python warns of one that is dropped, and pytest fails the tests of a release for it."""
    node.python(
        "-W", "error::ResourceWarning", "-c", f"{NO_UNRAISABLE}\nfrom ivy.utils import notify\nnotify.ready()"
    )


@contextlib.contextmanager
def notifying(socket: object) -> Iterator[None]:
    """As in a service that has just started, whose socket of the library is another."""
    notifier = object.__new__(sdnotify.SystemdNotifier)
    notifier.debug, notifier.socket = False, socket
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
            patched.setattr(sdnotify, "SystemdNotifier", lambda: notifier)
            importlib.reload(notify)
        yield
    finally:
        importlib.reload(notify)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What `notify` says, as systemd reads it."""
    said: list[str] = []

    class Socket:
        def settimeout(self, _seconds: float) -> None:
            pass

        def sendall(self, datagram: bytes) -> None:
            said.append(datagram.decode())

    with notifying(Socket()):
        yield said


@pytest.mark.usefixtures("own_stop_handlers")
def test_a_stop_signal_during_a_notification_is_not_lost() -> None:
    """The library swallows every exception, and with it the one by which a procedure ends."""

    class Socket:
        def settimeout(self, _seconds: float) -> None:
            pass

        def sendall(self, _text: bytes) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)  # as a library of a sensor might
    with notifying(Socket()), pytest.raises(SystemExit):
        notify.status("text")


NOTIFY_NOBODY = """
import contextlib, os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
    other.setblocking(False)
    other.connect(os.environ["NOTIFY_SOCKET"])
    while True:
        other.send(b"STATUS=another")
from ivy.utils import notify
notify.status("text")
print("went on", flush=True)
"""


def test_a_systemd_that_takes_nothing_stops_nobody(node: Node, notify_socket: NotifySocket) -> None:
    process = node.start("-c", NOTIFY_NOBODY)
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 20)[0], "it waits for ever"
    assert process.stdout.readline() == "went on\n"


def test_the_teardown_indicator_may_be_set_at_any_moment() -> None:
    """Python's own events deadlock if the signal comes while their lock is held."""
    for moment in range(200):
        event = signals.SignalEvent()
        left = moment

        def interrupt(*_: object) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                event.set()  # noqa: B023 (of this round)
            return interrupt

        sys.settrace(interrupt)
        try:
            event.wait(0)
            event.is_set()
            event.set()
        finally:
            sys.settrace(None)
        assert event.is_set() and event.wait(0) and event.wait()


def test_waiting_for_the_teardown_indicator_ends_in_time() -> None:
    event = signals.SignalEvent()
    assert not event.wait(0.01) and not event.is_set()


def test_nobody_sleeps_for_ever_past_a_signal_that_came_just_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler runs when the sleep is over, as Python looked for signals before that."""
    event = signals.SignalEvent()

    def sleep(_read: object, _write: object, _except: object, timeout: float | None) -> None:
        assert timeout is not None
        event.set()

    monkeypatch.setattr(select, "select", sleep)
    assert event.wait()


@pytest.mark.usefixtures("own_stop_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_deferred_signals_come_later_and_once(number: signal.Signals) -> None:
    got: list[int] = []
    signals.handle(lambda number, _: got.append(number))
    with signals.deferred():
        with signals.deferred():
            signal.raise_signal(number)
        assert got == []
    assert got == [number]
    signal.raise_signal(number)
    assert got == [number, number]


@pytest.mark.usefixtures("own_stop_handlers")
def test_what_a_deferred_signal_raises_is_the_end_of_the_others() -> None:
    def stop(number: int, _: object) -> None:
        got.append(number)
        with signals.deferred():  # as whoever tells systemd of it
            pass
        raise SystemExit

    got: list[int] = []
    signals.handle(stop)
    with pytest.raises(SystemExit), signals.deferred():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
    with signals.deferred():
        pass
    assert len(got) == 1


def test_a_status_is_one_short_line(said: list[str]) -> None:
    notify.status("a\nb" + "é" * 10_000)
    [line] = said
    assert line.startswith("STATUS=a bé") and len(line.encode()) < 4096  # systemd ignores what is longer


def test_heartbeats_are_as_many_as_needed(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(600):  # ten minutes of a busy loop
        notify.heartbeat()
        now += 1
    assert 600 / 60 * 2 <= len(said) <= 600 / 5


def test_a_long_sleep_is_cut_into_heartbeats(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    naps: list[float] = []

    def nap(seconds: float) -> None:
        nonlocal now
        now += seconds
        naps.append(seconds)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", nap)
    notify.sleep(7200)
    assert now == pytest.approx(7200) and max(naps) <= 60 / 2
    assert len(said) >= len(naps)


def test_the_startup_message_names_the_config(node: Node) -> None:
    status, _, errors = node.ivy("run", "updater")
    assert status == 0, errors
    agent = MessagingAgent()
    texts = [item.message_body.model_dump_json() for item in agent.get_n_latest_messages(10, [])]
    agent.teardown()
    [startup] = [text for text in texts if '"status":"startup"' in text]
    assert '"config_revision":3' in startup and "hidden" not in startup
