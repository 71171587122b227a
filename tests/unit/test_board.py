"""`ivy export` and `ivy import`: a node goes from one board to another, and nothing of it is lost or comes twice.

Both boards are this one: what it has is exported, then cleared, and it begins again.
"""

import contextlib
import io
import json
import os
import shutil
import sqlite3
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivy import constants
from ivy.cli import update
from ivy.cli.board import leave, package
from ivy.types.config import ForeignConfig, as_text
from ivy.types.messages import DataMessageBody, LogMessageBody, MessageQueueItem
from ivy.types.updates import Offer
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, LAST_MESSAGE_NOTE, MessagingAgent
from ivy.utils.state_interface import StateInterface
from ivy.utils.storage import archive, compressed, moving, written_order
from ivy.utils.updates import decisions, history, sandbox
from ivy.utils.updates.releases import Releases
from tests.support.helpers import ARCHIVE_DIR, BACKEND, CONFIG, DATA_DIR, Node
from tests.unit.archives import LONG_AGO, NOON, Ivy, sample, tree
from tests.unit.offers import foreign, offer

VERSION = constants.VERSION
STOP, START = "systemctl stop -- ivy.target", "systemctl start -- ivy.target"
ROOF = {**CONFIG, "general": {**CONFIG["general"], "config_revision": 7, "software_version": f"{VERSION}"}}
ROOF["general"]["system_identifier"] = "roof-2"
ROOF["backend"] = BACKEND
FRESH = {**ROOF, "general": {**ROOF["general"], "system_identifier": "raspberrypi", "config_revision": 0}}
FRESH["backend"] = None


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The admin's directory."""
    directory = tmp_path / "etc" / "ivy"
    directory.mkdir(parents=True)
    monkeypatch.setattr(leave, "ETC", directory)
    return directory


def install(config: dict[str, Any]) -> None:
    """Let a board run with a config, and know nothing else."""
    root = Path(constants.IVY_ROOT_DIR)
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    DATA_DIR.mkdir()
    release = Releases().directory(VERSION)
    (release / "config").mkdir(parents=True)
    (release / "units").mkdir()
    (release / "units" / "ivy-owners.service").touch()  # it keeps secrets beside its config
    Releases().write_config(VERSION, json.dumps(config))
    Releases().activate(VERSION)


@pytest.fixture
def ivy_as_root(
    node: Node, ivy_of_node: Ivy, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs the command as root, on a board without systemd."""
    node.fake("systemctl", {})
    monkeypatch.setattr(sandbox, "stop_all", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # these are the tests' own
    if os.geteuid() != 0:  # all is this user's then, as it is root's otherwise
        monkeypatch.setattr(update, "require_admin", lambda: None)
    yield ivy_of_node


def queue(*bodies: DataMessageBody | LogMessageBody) -> None:
    agent = MessagingAgent()
    for body in bodies:
        agent.add_message(body)
    agent.teardown()


def data(**values: float) -> DataMessageBody:
    return DataMessageBody(data=dict(values))


def queued() -> list[MessageQueueItem]:
    agent = MessagingAgent()
    found = agent.get_n_latest_messages(1000)
    agent.teardown()
    return found


def values(items: list[Any]) -> list[dict[str, Any]]:
    bodies = [item.message_body for item in items]
    return [body.data for body in bodies if isinstance(body, DataMessageBody)]


def archived() -> list[dict[str, Any]]:
    days = archive.days(str(ARCHIVE_DIR))
    return values([item for day in days for item in archive.read(f"{ARCHIVE_DIR}/{day}.csv")])


@pytest.fixture
def exported(ivy_as_root: Ivy, tmp_path: Path, etc: Path) -> Path:
    """A file of a node that has run for days, with secrets."""
    install(ROOF)
    (etc / "allowed_signers").write_text("somebody\n")
    sample(LONG_AGO, old=1)
    queue(data(t=1), data(t=2))
    with StateInterface.update() as state:
        state.procedures["wind"] = {"offset": 3}
    decisions.record(offer(7), None, foreign(6))
    file = tmp_path / "roof-2.tar"
    status, _, errors = ivy_as_root("export", str(file), "--secrets")
    assert (status, errors) == (0, "Exported with 2 days of the archive\n")
    assert file.stat().st_mode & 0o777 == 0o600
    return file


def active() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Releases().active_text())
    return found


def test_a_board_becomes_the_node(ivy_as_root: Ivy, exported: Path, node: Node, etc: Path) -> None:
    install(FRESH)
    (etc / "allowed_signers").unlink()
    queue(data(own=1))
    with StateInterface.update() as state:
        state.procedures["rain"] = {"sum": 1}
    status, output, errors = ivy_as_root("import", str(exported))
    assert (status, errors) == (0, "")
    assert "Imported roof-2: 2 days of the archive, 2 messages that wait" in output
    assert values(queued()) == [{"t": 1}, {"t": 2}, {"own": 1}]
    assert archived() == [{"old": 1}, {"t": 1}, {"t": 2}, {"own": 1}]
    assert active() == json.loads(as_text(ForeignConfig.model_validate(ROOF)))
    assert StateInterface.load().procedures == {"wind": {"offset": 3}, "rain": {"sum": 1}}
    assert [each.revision for each in history.load().decisions] == [7]
    before = history.load().last_good
    assert before is not None and before.general.config_revision == 0  # `ivy rollback` leads there
    assert (etc / "allowed_signers").read_text() == "somebody\n"
    calls = node.calls()
    assert calls.index(STOP) < calls.index(START)
    assert not list(Path(constants.IVY_ROOT_DIR).glob(".import*"))


def test_done_again_nothing_comes_twice(ivy_as_root: Ivy, exported: Path) -> None:
    install(FRESH)
    queue(data(own=1))
    assert ivy_as_root("import", str(exported))[0] == 0
    before = (values(queued()), archived())
    status, output, _ = ivy_as_root("import", str(exported))
    assert status == 0 and "what was queued had come before" in output
    assert (values(queued()), archived()) == before


@pytest.mark.parametrize("step", ["_write_files", "_write_history", "_take_queue"])
def test_interrupted_and_done_again_nothing_is_lost(
    ivy_as_root: Ivy, exported: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from ivy.cli.board import arrive

    install(FRESH)
    queue(data(own=1))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(arrive, step, interrupt)
        assert ivy_as_root("import", str(exported))[0] == 130
    assert values(queued()) == [{"own": 1}]
    assert ivy_as_root("import", str(exported))[0] == 0
    assert values(queued()) == [{"t": 1}, {"t": 2}, {"own": 1}]
    assert archived() == [{"old": 1}, {"t": 1}, {"t": 2}, {"own": 1}]


def test_numbers_are_not_given_twice_and_those_set_aside_come_too(
    ivy_as_root: Ivy, tmp_path: Path, etc: Path
) -> None:
    install(ROOF)
    agent = MessagingAgent()
    for number in range(3):
        agent.add_message(data(t=number))
    agent.store.set_aside({2: "refused"}, 0.0)
    agent.teardown()
    assert ivy_as_root("export", str(tmp_path / "x.tar"), "--secrets")[0] == 0
    install(FRESH)
    queue(data(own=1), data(own=2))
    agent = MessagingAgent()
    agent.remove_messages([1])
    agent.teardown()
    assert ivy_as_root("import", str(tmp_path / "x.tar"))[0] == 0
    assert values(queued()) == [{"t": 0}, {"t": 2}, {"own": 2}]
    numbers = [item.identifier for item in queued()]
    assert min(numbers) > 2 and numbers == sorted(numbers)
    with contextlib.closing(sqlite3.connect(ACTIVE_QUEUE_FILE)) as database:
        assert database.execute("SELECT internal_id, reason FROM POISON").fetchall() == [(3, "refused")]


def test_without_secrets_there_are_none_in_it(ivy_as_root: Ivy, tmp_path: Path, etc: Path) -> None:
    install(ROOF)
    (etc / "key.pem").write_text("hidden-key")
    (etc / "key.pem").chmod(0o600)
    with_key = json.loads(json.dumps(ROOF))
    with_key["backend"]["mqtt_connection"]["tls"] = {"ca_file": f"{etc}/key.pem"}
    Releases().write_config(VERSION, json.dumps(with_key))
    with history.update() as known:
        known.last_good = ForeignConfig.model_validate(ROOF)
        known.former_connections = [ForeignConfig.model_validate(ROOF)]
    decisions.record(Offer(identifier="x", config=ForeignConfig.model_validate(ROOF)), None, foreign(6))
    file = tmp_path / "x.tar"
    status, _, errors = ivy_as_root("export", str(file))
    assert status == 0 and "without secrets" in errors
    assert b"hidden" not in file.read_bytes()
    install(FRESH)
    before = tree(Path(constants.IVY_ROOT_DIR, f"{VERSION}"))
    status, _, errors = ivy_as_root("import", str(file))
    assert status == 1 and "nothing was changed" in errors and "Export with --secrets" in errors
    assert tree(Path(constants.IVY_ROOT_DIR, f"{VERSION}")) == before and values(queued()) == []


def test_a_board_with_the_secrets_needs_none(ivy_as_root: Ivy, tmp_path: Path) -> None:
    install(ROOF)
    assert ivy_as_root("export", str(tmp_path / "x.tar"))[0] == 0
    install({**ROOF, "logging_verbosity": {**ROOF["logging_verbosity"], "message_sending": "ERROR"}})
    assert ivy_as_root("import", str(tmp_path / "x.tar"))[0] == 0
    assert active()["backend"]["mqtt_connection"]["password"] == "hidden-password"
    assert active()["logging_verbosity"]["message_sending"] == "WARNING"


def test_another_nodes_name_is_asked_about(ivy_as_root: Ivy, exported: Path) -> None:
    other = {**ROOF, "general": {**ROOF["general"], "system_identifier": "roof-7"}}
    install(other)
    queue(data(own=1))
    status, _, errors = ivy_as_root("import", str(exported))
    assert status == 1 and "it is of roof-2, and this node is roof-7" in errors and "--yes" in errors
    assert active()["general"]["system_identifier"] == "roof-7"
    assert values(queued()) == [{"own": 1}]
    assert ivy_as_root("import", str(exported), "--yes")[0] == 0
    assert active()["general"]["system_identifier"] == "roof-2"


def rewritten(file: Path, change: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]) -> bytes:
    """Its bytes with other entries."""
    raw = io.BytesIO()
    with tarfile.open(file) as old, tarfile.open(fileobj=raw, mode="w") as new:
        for entry in old:
            content = old.extractfile(entry)
            assert content is not None
            for changed, text in change(entry, content.read()):
                changed.size = len(text) if changed.isreg() else 0
                new.addfile(changed, io.BytesIO(text))
    return raw.getvalue()


def beside(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[..., Any]:
    added = tarfile.TarInfo(name)
    added.type, added.linkname = kind, link

    def change(entry: tarfile.TarInfo, text: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        return [(entry, text), (added, b"x")] if entry.name == "board.json" else [(entry, text)]

    return change


def replacing(name: str, old: bytes, new: bytes) -> Callable[..., Any]:
    return lambda entry, text: [(entry, text.replace(old, new) if entry.name == name else text)]


def without(name: str) -> Callable[..., Any]:
    return lambda entry, text: [] if entry.name == name else [(entry, text)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (beside("../../etc/passwd"), "which version"),
        (beside("/etc/passwd"), "which version"),
        (beside("messages/../../x.csv"), "which version"),
        (beside("etc/.."), "which version"),
        (beside("messages/2026-01-01.csv", tarfile.SYMTYPE, "/etc/passwd"), "which version"),
        (beside("messages/2026-01-01.csv", tarfile.LNKTYPE, "board.json"), "which version"),
        (beside("messages/2026-01-01.csv", tarfile.FIFOTYPE), "which version"),
        (beside("messages/2026-01-01.csv"), "it is damaged: messages/2026-01-01.csv"),
        (beside("board.json"), "comes twice"),
        (beside("a-new-one.json"), "which version"),
        (replacing("board.json", b'"form": 1', b'"form": 2'), "a newer version than"),
        (replacing("config.json", b"roof-2", b"roof-3"), "it is damaged: config.json"),
        (without("checksums.json"), "its end is missing"),
        (without("queue.sqlite3"), "it is damaged: queue.sqlite3"),
        (without("board.json"), "it is not an export of a node"),
    ],
)
def test_what_does_not_fit_is_refused(
    ivy_as_root: Ivy, exported: Path, change: Callable[..., Any], said: str, node: Node
) -> None:
    install(FRESH)
    queue(data(own=1))
    exported.write_bytes(rewritten(exported, change))
    status, output, errors = ivy_as_root("import", str(exported))
    assert (status, output) == (1, "") and said in errors and "nothing was changed" in errors
    assert active()["general"]["system_identifier"] == "raspberrypi"
    assert archived() == [{"own": 1}] and values(queued()) == [{"own": 1}]
    assert STOP not in node.calls()
    assert not list(Path(constants.IVY_ROOT_DIR).glob(".import*"))


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_refused(ivy_as_root: Ivy, exported: Path, share: float) -> None:
    whole = exported.read_bytes()
    with tarfile.open(exported) as tar:
        end = max(entry.offset_data for entry in tar)  # behind it there is padding
    exported.write_bytes(whole[: int(end * share)])
    install(FRESH)
    status, _, errors = ivy_as_root("import", str(exported))
    assert status == 1 and "nothing was changed" in errors
    assert active()["general"]["system_identifier"] == "raspberrypi"


def test_noise_is_refused(ivy_as_root: Ivy, tmp_path: Path) -> None:
    install(FRESH)
    (tmp_path / "x").write_bytes(os.urandom(10_000))
    status, _, errors = ivy_as_root("import", str(tmp_path / "x"))
    assert status == 1 and "not an export of a node" in errors


def test_a_config_that_is_none_for_this_version_is_refused(ivy_as_root: Ivy, tmp_path: Path) -> None:
    install({**ROOF, "flux": {"rate": 1}})
    assert ivy_as_root("export", str(tmp_path / "x.tar"), "--secrets")[0] == 0
    install(FRESH)
    status, _, errors = ivy_as_root("import", str(tmp_path / "x.tar"))
    assert status == 1 and "flux: unknown field" in errors and "does not fit" in errors


def test_a_file_that_is_there_is_not_replaced(ivy_as_root: Ivy, exported: Path) -> None:
    before = exported.read_bytes()
    status, _, errors = ivy_as_root("export", str(exported))
    assert status == 2 and "exists already" in errors and exported.read_bytes() == before


def test_wrong_use(ivy_as_root: Ivy, exported: Path) -> None:
    for wrong in (["import"], ["import", str(exported), "--from", "/mnt"], ["export"]):
        assert ivy_as_root(*wrong)[0] == 2


def test_what_comes_while_it_is_taken_is_in_neither(tmp_path: Path, agent: MessagingAgent) -> None:
    """Of queue and archive, as they were in one instant."""
    from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR_LOCK
    from ivy.utils.storage.turns import Turns

    agent.add_message(data(t=1))
    copy = str(tmp_path / "copy")

    class Intruder(Turns):
        """When the lock was given back, somebody adds a message at once."""

        def take(self, patience: float) -> Any:
            @contextlib.contextmanager
            def both() -> Iterator[Any]:
                with super(Intruder, self).take(patience) as turn:
                    yield turn
                agent.add_message(data(t=2))

            return both()

    sizes = moving.take(
        ACTIVE_QUEUE_FILE, str(ARCHIVE_DIR), Intruder(MESSAGE_ARCHIVE_DIR_LOCK, LAST_MESSAGE_NOTE), copy
    )
    [(name, size)] = sizes.items()
    now = (ARCHIVE_DIR / name).read_bytes()
    assert now[:size].count(b"\n") == 2 < now.count(b"\n")  # the first is the header
    with contextlib.closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT COUNT(*) FROM QUEUE").fetchone() == (1,)
    assert len(agent.get_n_latest_messages(9)) == 2


def card_of(tmp_path: Path, etc: Path) -> Path:
    """A card of this board, whose power fails now."""
    card = tmp_path / "card"
    shutil.copytree(constants.IVY_ROOT_DIR, card / "var/lib/ivy", symlinks=True)
    shutil.copytree(etc, card / Path(*etc.parts[1:]))
    return card


def test_a_board_becomes_the_node_of_a_card(ivy_as_root: Ivy, tmp_path: Path, etc: Path) -> None:
    install(ROOF)
    (etc / "allowed_signers").write_text("somebody\n")
    sample(LONG_AGO, old=1)
    agent = MessagingAgent()
    agent.add_message(data(t=1))
    agent.add_message(data(t=2))
    for path in ARCHIVE_DIR.glob("*.csv"):
        if f"{path}".endswith("2023-11-14.csv"):
            continue
        path.write_text(path.read_text().replace('"t"":2', '"t'))  # as a power cut leaves it
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:-1]) + lines[-1][:20])
    card = card_of(tmp_path, etc)
    agent.teardown()
    before = tree(card)
    install(FRESH)
    (etc / "allowed_signers").unlink()
    queue(data(own=1))
    status, output, errors = ivy_as_root("import", "--from", str(card))
    assert status == 0, errors
    assert "2 messages that wait" in output
    assert values(queued()) == [{"t": 1}, {"t": 2}, {"own": 1}]
    assert sorted(map(str, archived())) == sorted(map(str, [{"old": 1}, {"t": 1}, {"t": 2}, {"own": 1}]))
    assert active()["backend"]["mqtt_connection"]["password"] == "hidden-password"
    assert (etc / "allowed_signers").read_text() == "somebody\n"
    assert tree(card) == before
    assert "had come before" in ivy_as_root("import", "--from", str(card))[1]
    assert len(queued()) == len({item.identifier for item in queued()}) and values(queued()).count({"t": 1}) == 1


def test_a_damaged_queue_of_a_card_is_salvaged(ivy_as_root: Ivy, tmp_path: Path, etc: Path) -> None:
    install(ROOF)
    queue(data(t=1))
    card = card_of(tmp_path, etc)
    damaged = card / "var/lib/ivy/data" / Path(ACTIVE_QUEUE_FILE).name
    damaged.write_bytes(b"noise" * 3000)
    install(FRESH)
    queue(data(own=1))
    status, output, errors = ivy_as_root("import", "--from", str(card))
    assert status == 0, errors
    assert "a damaged queue" in output and values(queued()) == [{"own": 1}]
    [aside] = DATA_DIR.glob("active-message-queue.sqlite3.aside-*[0-9]")
    assert aside.read_bytes() == damaged.read_bytes()


def test_days_of_both_are_each_line_once(tmp_path: Path) -> None:
    other = tmp_path / "other"
    sample(NOON, a=1)
    sample(NOON + 1, a=2)
    shutil.copytree(ARCHIVE_DIR, other)
    sample(NOON + 2, own=1)
    path = ARCHIVE_DIR / "2026-11-20.csv"
    with path.open("a") as file:
        file.write('12345,"torn')
    lock = str(tmp_path / "lock")
    compressed.compress(str(path), lock, 10**9, lambda _: None)
    for _ in range(2):
        assert moving.put_days_before(str(other), str(ARCHIVE_DIR))
        assert archived() == [{"a": 1}, {"a": 2}, {"own": 1}]
        assert [entry.name for entry in ARCHIVE_DIR.iterdir()] == [path.name]
    assert path.read_text().endswith("\n")


def test_days_that_came_go_first(tmp_path: Path) -> None:
    """Whatever their names say: the other board's clock was as wrong as this one's."""
    sample(NOON, own=1)
    [own] = written_order.update(str(ARCHIVE_DIR))
    sample(NOON - 90_000, b=1)
    sample(0.0, a=1)
    days = [day for day in archive.days(str(ARCHIVE_DIR)) if day != own]
    text = json.dumps({"days": [{"day": f"{day}", "size": 0} for day in reversed(days)]}).encode()
    written_order.put_before(str(ARCHIVE_DIR), days, text)
    assert written_order.update(str(ARCHIVE_DIR)) == [*reversed(days), own]


def test_only_root_may(ivy: Ivy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in (["export", "x"], ["import", "x"]):
        status, _, errors = ivy(*command)
        assert status == 2 and "sudo" in errors


def test_an_export_to_standard_output_is_one_file(
    ivy_as_root: Ivy, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Output:
        buffer = io.BytesIO()

        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> int:
            raise AssertionError(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", Output())
    with leave.output("-") as file:
        file.write(exported.read_bytes())
    (tmp_path / "x").mkdir()
    assert package.read(io.BytesIO(Output.buffer.getvalue()), tmp_path / "x").board.system_identifier == "roof-2"
