"""`ivy.utils.storage.compressed`: older days take a tenth of the room, and nothing of them is lost on the way."""

import datetime
import gzip
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR, MESSAGE_ARCHIVE_DIR_LOCK, MessagingAgent
from ivy.utils.storage import archive, compressed
from tests.support.helpers import ARCHIVE_DIR
from tests.unit import archives
from tests.unit.archives import DAY, NOON, Ivy

DATE = datetime.date(2026, 11, 20)
PLAIN = Path(archive.file_of(MESSAGE_ARCHIVE_DIR, DATE))
PACKED = Path(f"{PLAIN}{compressed.SUFFIX}")


def at_once(_seconds: float) -> None:
    """Rest no more than a test has time for."""


def compress() -> None:
    """Compress the day."""
    compressed.compress(str(PLAIN), MESSAGE_ARCHIVE_DIR_LOCK, archive.LARGEST_DAY, at_once)


def add(*numbers: int) -> None:
    """Append samples to the day."""
    for number in numbers:
        archives.sample(NOON + number, number=number)


def numbers() -> list[float]:
    """The samples of the day."""
    return [item.timestamp - NOON for item in MessagingAgent.load_message_archive(DATE)]


def test_a_compressed_day_is_read_by_its_name_and_by_everybodys_tools() -> None:
    add(*range(1000))
    text = PLAIN.read_bytes()
    compress()
    assert os.listdir(ARCHIVE_DIR) == [PACKED.name]
    assert gzip.decompress(PACKED.read_bytes()) == text
    assert PACKED.stat().st_size < len(text) / 5
    assert numbers() == list(range(1000)) and archive.days(MESSAGE_ARCHIVE_DIR) == [DATE]
    assert PACKED.stat().st_mode & 0o777 == 0o660


def test_the_command_sees_no_difference(ivy: Ivy) -> None:
    add(1, 2)
    archives.sample(NOON + DAY, number=3)
    wanted = ("messages", "--since", "2026-11-20", "--json")
    before, table = ivy(*wanted), ivy(*wanted[:3], "--csv")
    compress()
    assert ivy(*wanted) == before and ivy(*wanted[:3], "--csv") == table and before[1].count("\n") == 3


def test_what_comes_later_is_read_after_it_and_joins_it() -> None:
    """As a clock that was set back does it."""
    for later in ([1, 2], [3], [4, 5]):
        add(*later)
        assert numbers() == list(range(1, later[-1] + 1))
        compress()
        assert numbers() == list(range(1, later[-1] + 1)) and not PLAIN.exists()


class Killed(BaseException):
    """As if the power went."""


@pytest.mark.parametrize("has_older", [False, True])
def test_killed_at_any_point_it_loses_nothing(has_older: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after each call that changes something, with what an earlier try has left lying about."""
    expected = [1, 2, 3] if has_older else [2, 3]
    for moment in range(100):
        for path in ARCHIVE_DIR.glob("*") if ARCHIVE_DIR.exists() else []:
            path.unlink()
        if has_older:
            add(1)
            compress()
        add(2, 3)
        Path(ARCHIVE_DIR, f".{PACKED.name}").write_bytes(b"what a kill has left" * 1000)
        if not _dies(moment, monkeypatch):
            assert moment >= 8  # it has been killed at so many
            return
        assert numbers() == expected, moment
        compress_if_there()
        assert numbers() == expected and sorted(os.listdir(ARCHIVE_DIR)) == [PACKED.name], moment
    raise AssertionError("it never ends")


def compress_if_there() -> None:
    """As the next round does it."""
    if PLAIN.exists():
        compress()


def _dies(moment: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Compress, until the power goes. Returns whether it did."""
    left = moment

    def deadly(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            for before in (True, False):
                left -= 1
                if left < 0:
                    raise Killed
                if before:
                    result = real(*arguments, **options)
            return result

        return call

    with monkeypatch.context() as patched:
        for place, name in ((os, "fsync"), (os, "unlink"), (os, "rename"), (os, "fstat")):
            patched.setattr(place, name, deadly(getattr(place, name)))
        patched.setattr(Path, "rename", deadly(Path.rename))
        patched.setattr(Path, "unlink", lambda *_arguments, **_options: None)  # nobody tidies up
        try:
            compress()
        except Killed:
            return True
    return False


def test_both_files_count_once_until_the_plain_one_is_gone() -> None:
    add(1, 2)
    text = PLAIN.read_bytes()
    compress()
    PLAIN.write_bytes(text)
    assert numbers() == [1, 2]
    compress()
    assert numbers() == [1, 2] and not PLAIN.exists()


def test_nothing_is_replaced_that_does_not_hold_all() -> None:
    add(1, 2)
    text = PLAIN.read_bytes()
    compress()
    damaged = bytearray(PACKED.read_bytes())
    damaged[20] ^= 0xFF  # its trailer still says that it holds the plain one
    PACKED.write_bytes(damaged)
    PLAIN.write_bytes(text)
    with pytest.raises(OSError):
        compress()
    assert PLAIN.read_bytes() == text and PACKED.read_bytes() == damaged
    assert numbers()[-2:] == [1, 2]


def test_a_day_that_grows_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    add(1)
    real = os.fsync

    def write_meanwhile(descriptor: int) -> None:
        real(descriptor)
        add(2)

    with monkeypatch.context() as patched, pytest.raises(TimeoutError):
        patched.setattr(os, "fsync", write_meanwhile)
        compress()
    assert numbers() == [1, 2] and os.listdir(ARCHIVE_DIR) == [PLAIN.name]
    compress()
    assert numbers() == [1, 2] and os.listdir(ARCHIVE_DIR) == [PACKED.name]


@pytest.mark.parametrize("cut", [3, 30, -5])
def test_damage_costs_what_is_behind_it_only(cut: int, capfd: pytest.CaptureFixture[str]) -> None:
    add(*range(100))
    compress()
    PACKED.write_bytes(PACKED.read_bytes()[:cut])
    add(100)
    found = numbers()
    assert found[-1] == 100 and found[:-1] == list(range(len(found) - 1))
    assert f"{PACKED}: left out the rest, it is damaged" in capfd.readouterr().err


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_in_its_place_is_left_out(make: Callable[[Path], None], ivy: Ivy) -> None:
    add(1)
    make(PACKED)
    assert numbers() == [1]
    status, output, _ = ivy("messages", "--date", "2026-11-20")
    assert status == 0 and output.endswith("number=1\n") and "root:" not in output
    with pytest.raises(OSError):
        compress()
    assert PLAIN.exists()


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_a_small_file_that_expands_without_end_takes_neither_memory_nor_time(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], end: bytes
) -> None:
    monkeypatch.setattr(archive, "LARGEST_DAY", 5_000_000)
    ARCHIVE_DIR.mkdir()
    packer = zlib.compressobj(wbits=31)
    with PACKED.open("wb") as file:
        for _ in range(20):
            file.write(packer.compress(b"\0" * 999_999 + end))
        file.write(packer.flush())
    tracemalloc.start()
    try:
        assert numbers() == []
        assert tracemalloc.get_traced_memory()[1] < 15_000_000  # of a line, the pieces too
    finally:
        tracemalloc.stop()
    assert "left out the rest" in capfd.readouterr().err


def test_it_takes_little_memory_and_rests_as_long_as_it_works() -> None:
    chance = random.Random(1)
    ARCHIVE_DIR.mkdir()
    with PLAIN.open("w") as file:
        for number in range(50_000):
            file.write(f'{NOON + number},"{{""variant"":""data"",""data"":{{""a"":{chance.random()}}}}}"\n')
    pauses: list[float] = []
    tracemalloc.start()
    try:
        compressed.compress(str(PLAIN), MESSAGE_ARCHIVE_DIR_LOCK, archive.LARGEST_DAY, pauses.append)
        assert tracemalloc.get_traced_memory()[1] < 1_500_000  # of 3.5 MB
    finally:
        tracemalloc.stop()
    assert len(pauses) > 50 and sum(pauses) > 0
