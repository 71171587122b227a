"""`ivy.utils.state_interface`: one writer at a time, never half a file, and going on when it is damaged."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy import files
from ivy.types.state import State
from ivy.utils import state_interface
from ivy.utils.state_interface import BACKEND_STATE_FILE, STATE_FILE, STATE_FILE_LOCK, StateInterface
from tests.support.helpers import Node, all_go, make_config, wait_until

FILE = Path(STATE_FILE)


def test_where_it_is(data_dir: Path) -> None:
    assert (f"{data_dir}/state.json", f"{data_dir}/state.lock") == (STATE_FILE, STATE_FILE_LOCK)


def test_without_a_file_all_is_unknown() -> None:
    state = StateInterface.load()
    assert state.system.last_boot_time is None and state.system.last_5_min_load is None
    assert state.pending_configs == []


def test_a_change_is_loaded_again() -> None:
    foreign = make_config().to_foreign_config()
    with StateInterface.update() as state:
        state.system.last_5_min_load = 12.5
        state.pending_configs.append(foreign)
    loaded = StateInterface.load()
    assert loaded.system.last_5_min_load == 12.5 and loaded.pending_configs == [foreign]


COUNT = """
from ivy.utils.state_interface import StateInterface
print("ready", flush=True)
input()
for _ in range(25):
    with StateInterface.update() as state:
        state.counter = getattr(state, "counter", 0) + 1
"""


@pytest.mark.slow
def test_no_update_of_many_processes_is_lost(node: Node) -> None:
    processes = [node.start("-c", COUNT) for _ in range(6)]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    all_go(processes)
    assert StateInterface.load().model_dump()["counter"] == 6 * 25


HOLD = """
from ivy.utils.state_interface import StateInterface
with StateInterface.update() as state:
    state.system.last_5_min_load = 99
    print("in the body", flush=True)
    input()
"""


def test_the_lock_is_held_across_the_body(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = node.start("-c", HOLD)
    assert holder.stdout and holder.stdout.readline() == "in the body\n"
    assert state_interface.SECONDS_TO_WAIT == 6
    monkeypatch.setattr(state_interface, "SECONDS_TO_WAIT", 0.05)
    with pytest.raises(TimeoutError):
        StateInterface.load()
    with pytest.raises(TimeoutError), StateInterface.update():
        pytest.fail("the body was entered without the lock")


def test_killed_in_the_body_the_old_content_stands(node: Node) -> None:
    with StateInterface.update() as state:
        state.system.last_5_min_load = 1
    holder = node.start("-c", HOLD)
    assert holder.stdout and holder.stdout.readline() == "in the body\n"
    holder.kill()
    holder.wait()
    assert StateInterface.load().system.last_5_min_load == 1


def test_an_exception_in_the_body_changes_nothing() -> None:
    with StateInterface.update() as state:
        state.system.last_5_min_load = 1
    before = FILE.read_bytes()
    with pytest.raises(RuntimeError), StateInterface.update() as state:
        state.system.last_5_min_load = 2
        raise RuntimeError
    assert FILE.read_bytes() == before
    assert StateInterface.load().system.last_5_min_load == 1  # and the lock is free


def test_nothing_is_written_where_nothing_changed() -> None:
    """A card bears only so many writes."""
    with StateInterface.update() as state:
        state.system.last_5_min_load = 1
    before = FILE.stat()
    with StateInterface.update() as state:
        state.system.last_5_min_load = 1
    assert FILE.stat().st_ino == before.st_ino and FILE.stat().st_mtime_ns == before.st_mtime_ns


def test_readers_never_see_a_part() -> None:
    with StateInterface.update() as state:
        state.system.last_5_min_load = 1
    with FILE.open() as reader:
        with StateInterface.update() as state:
            state.system.last_5_min_load = 2
        assert State.model_validate_json(reader.read()).system.last_5_min_load == 1


def test_values_of_the_wrong_type_never_reach_the_file() -> None:
    with pytest.raises(ValueError), StateInterface.update() as state:
        state.system.last_5_min_load = "high"  # type: ignore[assignment]
    assert not FILE.exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe\x00",
        b"",
        b'{"system": {"last_5_min_load": 12.',
        b'{"system": "fine"}',
        b'{"pending_configs": [{"general": {}}]}',
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\0" * 50_000_000,
        b'{"system": {"last_5_min_load": 1' + b"0" * 10_000 + b"}}",
    ],
    ids=["encoding", "empty", "truncated", "schema", "offer", "list", "null", "deep", "huge", "number"],
)
def test_a_damaged_file_is_moved_aside_and_reported(damage: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    FILE.write_bytes(damage)
    assert StateInterface.load() == State()
    [aside] = FILE.parent.glob("state.json.damaged-*")
    assert aside.read_bytes() == damage
    assert f"{STATE_FILE} is damaged: moved to {aside}" in capfd.readouterr().err
    with StateInterface.update() as state:
        state.system.last_5_min_load = 3
    assert StateInterface.load().system.last_5_min_load == 3


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN, errno.EBADMSG])
def test_a_file_that_the_disk_cannot_read_any_more_is_moved_aside(
    number: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Else whatever needs it would wait for ever, and only the disk can tell that."""
    FILE.write_text("{}")
    sick, read = FILE.stat().st_ino, files.read

    def read_sectors(path: str) -> bytes:
        if os.stat(path).st_ino == sick:
            raise OSError(number, os.strerror(number), path)
        return read(path)

    monkeypatch.setattr(files, "read", read_sectors)
    with StateInterface.update() as state:
        state.system.last_5_min_load = 3
    [aside] = FILE.parent.glob("state.json.damaged-*")
    assert aside.stat().st_ino == sick
    assert f"{STATE_FILE} is damaged: moved to {aside}" in capfd.readouterr().err
    assert StateInterface.load().system.last_5_min_load == 3


def test_a_file_that_cannot_be_read_for_another_reason_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    FILE.write_text("{}")

    def read(path: str) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(files, "read", read)
    with pytest.raises(PermissionError):
        StateInterface.load()
    assert FILE.exists() and not list(FILE.parent.glob("*.damaged-*"))


def test_the_report_of_damage_has_no_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    FILE.write_text('{"pending_configs": [{"general": {"config_revision": "hidden"}, "password": "hidden"}]}')
    StateInterface.load()
    assert "hidden" not in capfd.readouterr().err


def test_an_update_starts_from_nothing_where_the_file_is_damaged() -> None:
    FILE.write_bytes(b"\xff")
    with StateInterface.update() as state:
        state.system.last_5_min_load = 3
    assert StateInterface.load().system.last_5_min_load == 3


def test_sampling_goes_on_when_the_state_is_damaged(node: Node) -> None:
    node.write_config()
    FILE.write_bytes(b"\xff")
    node.start("-m", "ivy", "run", "system-checks")
    archive = FILE.parent / "messages"
    wait_until(lambda: archive.is_dir() and any('"data"' in file.read_text() for file in archive.iterdir()))


def test_fields_of_other_versions_are_kept() -> None:
    FILE.write_text(json.dumps({"new": {"a": [1]}, "system": {"uptime": 3}, "pending_configs": []}))
    with StateInterface.update() as state:
        state.system.last_5_min_load = 3
    content = json.loads(FILE.read_text())
    assert content["new"] == {"a": [1]} and content["system"]["uptime"] == 3
    assert content["system"]["last_5_min_load"] == 3


def test_secrets_in_pending_configs_are_not_for_others() -> None:
    with StateInterface.update() as state:
        state.pending_configs.append(make_config().to_foreign_config())
    assert os.stat(BACKEND_STATE_FILE).st_mode & 0o007 == 0


def test_a_procedure_neither_sees_nor_changes_pending_configs() -> None:
    """Whatever it writes into its own file: only backends can write the other one."""
    FILE.write_text(json.dumps({"pending_configs": [make_config().to_foreign_config().model_dump(mode="json")]}))
    assert StateInterface.load().pending_configs == []
    with StateInterface.update() as state:
        assert state.pending_configs == []
        state.system.last_5_min_load = 3
    assert json.loads(FILE.read_text())["pending_configs"] == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_in_its_place_is_moved_aside(make: Callable[[Path], object]) -> None:
    make(FILE)
    with StateInterface.update() as state:
        state.system.last_5_min_load = 1.5
    [aside] = FILE.parent.glob("state.json.damaged-*")
    assert not aside.is_file() or aside.is_symlink()
    assert FILE.is_file() and not FILE.is_symlink()
    assert StateInterface.load().system.last_5_min_load == 1.5
