"""The disk that forgets: which writes are left after its power failed, by which road, and what else befalls it."""

import errno
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path

import pytest
from testbed import nbd
from testbed.forgetful_disk import SECTOR, Fate, ForgetfulDisk, Recording, Write, land
from testbed.waiting import wait_for

SIZE = 64 * SECTOR
SEEDS = range(40)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    return image


@pytest.fixture
def disk(image: Path) -> ForgetfulDisk:
    return ForgetfulDisk(image)


def sector(number: int, letter: bytes, count: int = 1) -> tuple[int, bytes]:
    """Offset and bytes."""
    return number * SECTOR, letter * (count * SECTOR)


def put(disk: ForgetfulDisk, number: int, letter: bytes, count: int = 1, *, durable: bool = False) -> None:
    disk.write(*sector(number, letter, count), durable=durable)


def letters(image: Path) -> str:
    """The letter of each sector, none of which is ever written in part."""
    content = image.read_bytes()
    sectors = [content[start : start + SECTOR] for start in range(0, SIZE, SECTOR)]
    assert all(len(set(each)) == 1 for each in sectors)
    return "".join(chr(each[0] or ord(".")) for each in sectors).rstrip(".")


def test_what_is_written_is_read(disk: ForgetfulDisk) -> None:
    put(disk, 1, b"a")
    put(disk, 1, b"b")
    assert disk.read(0, 3 * SECTOR) == bytes(SECTOR) + b"b" * SECTOR + bytes(SECTOR)


def test_what_is_flushed_is_left(disk: ForgetfulDisk, image: Path) -> None:
    put(disk, 0, b"a", 3)
    put(disk, 1, b"b")
    disk.flush()
    assert disk.fail_power(1, patience=0) == Fate(0, 0, 0)
    assert letters(image) == "aba"


def after(image: Path, seed: int, *writes: tuple[int, bytes, int, bool]) -> str:
    """What is left of some writes over three flushed sectors of `o`."""
    disk = ForgetfulDisk(image)
    put(disk, 0, b"o", 3)
    disk.flush()
    for number, letter, count, durable in writes:
        put(disk, number, letter, count, durable=durable)
    disk.fail_power(seed, patience=0)
    return letters(image)


def test_what_is_not_flushed_is_left_or_not_in_any_order(image: Path) -> None:
    found = {after(image, seed, (0, b"a", 1, False), (1, b"b", 1, False)) for seed in SEEDS}
    assert found == {"ooo", "aoo", "obo", "abo"}


def test_of_two_writes_the_later_one_wins_if_it_lands(image: Path) -> None:
    found = {after(image, seed, (0, b"a", 1, False), (0, b"b", 1, False)) for seed in SEEDS}
    assert found == {"ooo", "aoo", "boo"}


def test_a_write_may_be_torn_between_sectors_only(image: Path) -> None:
    found = {after(image, seed, (0, b"a", 3, False)) for seed in range(200)}
    assert found >= {"ooo", "aao", "oaa", "aoa", "aaa"}


def test_a_durable_write_is_left_as_it_is_and_brings_no_other(image: Path) -> None:
    found = {after(image, seed, (0, b"a", 1, False), (1, b"b", 2, True)) for seed in SEEDS}
    assert found == {"abb", "obb"}


def test_the_same_seed_leaves_the_same() -> None:
    writes = [Write(*sector(number, b"a", 3), False) for number in range(20)]

    def landed(seed: int) -> list[int]:
        offsets: list[int] = []
        land(writes, random.Random(seed), lambda offset, _: offsets.append(offset))
        return offsets

    assert landed(7) == landed(7) != landed(8)


def test_a_disk_that_fails_answers_nobody(disk: ForgetfulDisk, image: Path) -> None:
    put(disk, 0, b"a")
    fates: list[Fate] = []
    failing = threading.Thread(target=lambda: fates.append(disk.fail_power(1, patience=60)))
    failing.start()

    def is_failing() -> bool:
        try:
            disk.flush()
        except nbd.NoAnswer:
            return True
        return False

    wait_for(is_failing, 10, "flushes without an answer")
    failing.join()
    assert fates[0].unflushed <= 1
    for do in (disk.flush, lambda: put(disk, 0, b"b"), lambda: disk.read(0, 1)):
        with pytest.raises(nbd.NoAnswer):
            do()
    assert letters(image) in ("", "a")


@pytest.mark.parametrize(("reads", "writes"), [(True, False), (False, True), (True, True)])
def test_bad_sectors(disk: ForgetfulDisk, reads: bool, writes: bool) -> None:
    disk.break_sectors(2 * SECTOR, SECTOR, reads=reads, writes=writes)
    disk.read(0, 2 * SECTOR)
    put(disk, 0, b"a", 2)
    put(disk, 3, b"a")
    for fails, do in ((reads, lambda: disk.read(SECTOR, 2 * SECTOR)), (writes, lambda: put(disk, 1, b"b", 2))):
        if fails:
            with pytest.raises(OSError, match="bad sector"):
                do()
        else:
            do()
    disk.heal()
    put(disk, 2, b"c")
    assert disk.read(2 * SECTOR, 1) == b"c"


def test_a_disk_that_takes_no_more_writes(disk: ForgetfulDisk) -> None:
    put(disk, 0, b"a")
    disk.be_read_only()
    with pytest.raises(PermissionError):
        put(disk, 0, b"b")
    disk.flush()
    assert disk.read(0, 1) == b"a"
    disk.heal()
    put(disk, 0, b"b")


def test_the_disk_of_any_instant(disk: ForgetfulDisk, image: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    put(disk, 0, b"a")
    put(disk, 1, b"b")
    disk.record(tmp_path / "recording", witness)  # two writes wait for their flush
    disk.flush()
    witness.write_text("said")
    put(disk, 0, b"c")
    put(disk, 2, b"d", durable=True)
    assert disk.instant() == 5
    disk.flush()
    disk.stop_recording()
    put(disk, 3, b"e")
    recording = Recording(tmp_path / "recording")
    assert [each.said for each in recording.instants] == [0, 0, 0, 4, 4, 4]
    made = tmp_path / "made"

    def found(instant: int) -> set[str]:
        def make(seed: int) -> str:
            recording.make_disk(instant, seed, made)
            return letters(made)

        return {make(seed) for seed in range(16)}

    assert found(1) == {"", "a"}
    assert found(2) == {"", "a", ".b", "ab"}
    assert found(3) == {"ab"}
    assert found(5) == {"abd", "cbd"}
    assert found(6) == {"cbd"}


@pytest.fixture
def address(disk: ForgetfulDisk, tmp_path: Path) -> Generator[str, None, None]:
    """Where one client after the other is served."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "nbd"))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            nbd.serve(client, disk)

    server = threading.Thread(target=serve)
    server.start()
    yield str(tmp_path / "nbd")
    listener.shutdown(socket.SHUT_RDWR)
    server.join()
    listener.close()


class Client:
    """Speaks NBD as its documentation has it, with literals of its own."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address)
        self._file = self._socket.makefile("rb")
        assert self._file.read(18) == b"NBDMAGICIHAVEOPT\x00\x03"
        self._socket.sendall(b"\0\0\0\3")

    def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Returns kind and content of each reply."""
        self._socket.sendall(b"IHAVEOPT" + number.to_bytes(4) + len(data).to_bytes(4) + data)
        replies = [(-1, b"")]
        while replies[-1][0] in (-1, 3):
            assert self._file.read(12) == bytes.fromhex("0003e889045565a9") + number.to_bytes(4)
            kind, length = int.from_bytes(self._file.read(4)), int.from_bytes(self._file.read(4))
            replies.append((kind, self._file.read(length)))
        return replies[1:]

    def request(self, number: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> int:
        """Returns the error."""
        head = bytes.fromhex("25609513") + flags.to_bytes(2) + number.to_bytes(2) + b"<handle>"
        self._socket.sendall(head + offset.to_bytes(8) + (length or len(data)).to_bytes(4) + data)
        assert self._file.read(4) == bytes.fromhex("67446698")
        error = int.from_bytes(self._file.read(4))
        assert self._file.read(8) == b"<handle>"
        return error

    def read(self, length: int) -> bytes:
        return self._file.read(length)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def test_requests(address: str, disk: ForgetfulDisk, image: Path) -> None:
    client = Client(address)
    assert client.option(3) == [(2**31 + 1, b"")]  # a list of exports, which is not offered
    export = SIZE.to_bytes(8) + (0b1101).to_bytes(2)
    assert client.option(7, bytes(6)) == [(3, b"\0\0" + export), (1, b"")]
    assert client.request(1, SECTOR, data=b"a" * SECTOR) == 0
    assert client.request(0, SECTOR, 3) == 0
    assert client.read(3) == b"aaa"
    assert client.request(3) == 0
    assert client.request(1, 0, data=b"b" * SECTOR) == 0
    assert client.request(1, 2 * SECTOR, data=b"c" * SECTOR, flags=1) == 0
    disk.break_sectors(0, SECTOR, reads=True, writes=True)
    assert client.request(0, 0, 1) == errno.EIO
    disk.be_read_only()
    assert client.request(1, SECTOR, data=b"d") == errno.EPERM
    assert client.request(0, SIZE, 1) == errno.EINVAL
    assert client.request(4, 0, 1) == errno.EINVAL
    client.close()
    assert disk.fail_power(1, patience=0).unflushed == 2
    assert letters(image) in (".ac", "bac")


def test_clients_that_go_away(address: str) -> None:
    for option in (2, 6):
        client = Client(address)
        assert client.option(option, b"" if option == 2 else bytes(6))[-1] == (1, b"")
        client.close()
    client = Client(address)
    assert client.option(7, bytes(6))[-1] == (1, b"")
    client.close()


@pytest.mark.skipif(not shutil.which("nbdcopy"), reason="libnbd-bin is not installed; the test bed installs it")
def test_a_client_of_others(address: str, disk: ForgetfulDisk, tmp_path: Path) -> None:
    put(disk, 5, b"a")
    copy = tmp_path / "copy"
    subprocess.run(["nbdcopy", f"nbd+unix:///?socket={address}", copy], check=True, timeout=60)
    assert copy.read_bytes() == disk.read(0, SIZE)
