"""The plan of a card: what is where on it, and what Debian is told. That it boots is seen in tests/vm."""

import io
import re
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from card import assembly, layout, system
from card.layout import MIB, Layout

CARDS = [Layout("1.2.0", "rpi", "arm64"), Layout("1.2.0", "generic", "amd64"), Layout("1.2.0", "generic", "arm64")]
EPOCH = 1760000000


@pytest.fixture(params=CARDS, ids=lambda card: card.name)
def card(request: pytest.FixtureRequest) -> Layout:
    found: Layout = request.param
    return found


def test_no_partition_lies_on_another_and_the_data_can_grow(card: Layout) -> None:
    end = 0
    for partition in card.partitions:
        assert partition.start >= end and partition.start % (4 * MIB) == 0
        end = partition.start + partition.size
    assert card.partitions[-1] == card.data
    assert card.size >= end + 33 * layout.SECTOR  # the second copy of the table


def test_the_table_says_so(card: Layout) -> None:
    table = layout.partition_table(card)
    starts = [int(start) * layout.SECTOR for start in re.findall(r"start=(\d+)", table)]
    assert starts == [partition.start for partition in card.partitions]
    assert len(set(re.findall(r"uuid=(\S+),", table))) == 3


def test_ids_are_the_same_each_time_and_those_of_one_image_only() -> None:
    ids = {other.id_of(what) for other in CARDS for what in ("table", "partition root", "filesystem root")}
    assert len(ids) == 9
    again = Layout("1.2.0", "rpi", "arm64")
    assert again.partitions == CARDS[0].partitions
    assert Layout("1.2.1", "rpi", "arm64").root.filesystem_id != again.root.filesystem_id


def test_the_old_table_names_the_boot_partition_first() -> None:
    card = CARDS[0]
    entries = layout.hybrid_entries(card)
    assert len(entries) == 64
    found = [struct.unpack("<4xB3xII", entries[start : start + 16]) for start in (0, 16, 32, 48)]
    assert found[0] == (0x0C, card.boot.start // 512, card.boot.size // 512)
    assert found[1][:2] == (0xEE, 1)  # by this one everybody else knows that there is a GPT
    assert found[2:] == [(0, 0, 0), (0, 0, 0)]


def mounts(card: Layout) -> dict[str, set[str]]:
    lines = [line.split() for line in layout.fstab(card).splitlines()]
    return {line[1]: set(line[3].split(",")) for line in lines}


def test_only_root_reads_the_boot_partition_where_secrets_lie(card: Layout) -> None:
    assert "umask=0077" in mounts(card)["/boot/firmware"]


def test_a_lost_partition_does_not_keep_the_node_from_booting(card: Layout) -> None:
    for mount in ("/boot/firmware", "/var/lib/ivy"):
        assert {"nofail", "x-systemd.before=local-fs.target"} <= mounts(card)[mount]


def test_a_damaged_file_system_is_not_written_any_more(card: Layout) -> None:
    for mount in ("/", "/var/lib/ivy"):
        assert "errors=remount-ro" in mounts(card)[mount]


def test_the_root_is_checked_before_it_is_mounted_from_the_first_boot_on(card: Layout) -> None:
    """The initramfs has the program for that if it is told the type: where the card is made it cannot be found."""
    (types,) = re.findall(r"(?m)^FSTYPE=(\S+)$", system.files(card)["etc/initramfs-tools/conf.d/ivy-image"])
    root = next(line.split() for line in layout.fstab(card).splitlines() if line.split()[1] == "/")
    assert types == root[2] and root[5] == "1" and "fsck.repair=yes" in layout.KERNEL_OPTIONS
    made = assembly.mke2fs(card.root, "card.img", "root.tar", 64)
    assert made[made.index("-t") + 1] == types


def test_the_file_system_of_the_data_grows_after_its_partition(card: Layout) -> None:
    assert {"x-systemd.growfs", "x-systemd.after=systemd-repart.service"} <= mounts(card)["/var/lib/ivy"]
    kinds = [partition.type.lower() for partition in card.partitions]
    grown = re.findall(r"(?m)^Type=(\S+)", layout.repart_definition())
    assert grown == [card.data.type.lower()] and kinds.count(grown[0]) == 1


def test_grub_has_a_kernel_to_fall_back_to() -> None:
    config = layout.grub_config(CARDS[1])
    assert re.findall(r"linux (\S+)", config) == ["/vmlinuz", "/vmlinuz.old"]
    assert str(CARDS[1].root.filesystem_id) in config and "set fallback=1" in config


@pytest.mark.parametrize(("text", "size"), [("6G", 6144 * MIB), ("3000M", 3000 * MIB), ("4g", 4096 * MIB)])
def test_sizes(text: str, size: int) -> None:
    assert layout.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "4", "4T", "-4G", "4.5G", "²G", "100M"])
def test_what_is_no_size_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size such as|is less than"):
        layout.parse_size(text)


def test_files_are_named_after_the_board_and_an_unusual_architecture() -> None:
    assert [card.name for card in CARDS] == ["ivy-1.2.0-rpi", "ivy-1.2.0-generic", "ivy-1.2.0-generic-arm64"]


def test_nobody_comes_in_by_a_password(card: Layout) -> None:
    said = system.files(card)["etc/ssh/sshd_config.d/ivy-image.conf"].splitlines()
    assert {"PasswordAuthentication no", "KbdInteractiveAuthentication no"} <= set(said)
    assert not any("passwd" in hook for hook in system.finishing(card, EPOCH))


def test_what_makes_a_card_its_own_is_not_in_the_image(card: Layout) -> None:
    removed = " ".join(system.finishing(card, EPOCH))
    assert "/etc/ssh/ssh_host_*" in removed and "/var/lib/systemd/random-seed" in removed


def test_the_name_of_who_builds_is_not_in_the_image(card: Layout) -> None:
    (install,) = (hook for hook in system.finishing(card, EPOCH) if "apt-get install" in hook)
    assert install.startswith("unshare --uts") and install.index("hostname ivy-node;") < install.index("apt-get")


def test_each_card_has_a_kernel_and_the_pi_its_firmware(card: Layout) -> None:
    assert f"linux-image-{card.arch}" in system.packages(card)
    assert ("raspi-firmware" in system.packages(card)) == (card.board_name == "rpi")
    assert all(("non-free-firmware" in source) == (card.board_name == "rpi") for source in system.sources(card))


@pytest.mark.parametrize(
    ("mirror", "security"),
    [
        ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security"),
        (
            "[check-valid-until=no] http://mirror.example/debian/20261101",
            "[check-valid-until=no] http://mirror.example/debian-security/20261101",
        ),
        ("http://mirror.example/all", None),
    ],
)
def test_security_updates_are_looked_for_beside_the_mirror(
    mirror: str, security: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IVY_DEBIAN_MIRROR", mirror)
    monkeypatch.delenv("IVY_SUITE", raising=False)
    found = [source for source in system.sources(CARDS[1]) if "-security" in source]
    assert found == ([f"deb {security} trixie-security main"] if security else [])


def write_tar(path: Path, names: Mapping[str, bytes | None]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in names.items():
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid, entry.mtime = 7, 8, EPOCH
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            entry.pax_headers = {"SCHILY.xattr.user.kept": "yes"}
            tar.addfile(entry, io.BytesIO(content or b""))


def read_tar(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {entry.name: entry for entry in tar}


def test_one_tar_becomes_three_file_systems(tmp_path: Path) -> None:
    long_name = f"./var/lib/ivy/{'1' * 120}/manifest"
    names = {
        ".": None,
        "./boot/firmware": None,
        "./boot/firmware/EFI": None,
        "./boot/firmware/EFI/grub.cfg": b"grub",
        "./etc/fstab": b"mounts",
        "./var/lib/ivy": None,
        "./var/lib/ivy-node": None,
        long_name: b"manifest",
    }
    write_tar(tmp_path / "system.tar", names)
    root, data, boot = tmp_path / "root.tar", tmp_path / "data.tar", tmp_path / "boot"
    assembly.split(tmp_path / "system.tar", root, data, boot)
    assert set(read_tar(root)) == {".", "./boot/firmware", "./etc/fstab", "./var/lib/ivy", "./var/lib/ivy-node"}
    assert set(read_tar(data)) == {".", f"./{'1' * 120}/manifest"}
    assert (boot / "EFI/grub.cfg").read_bytes() == b"grub"
    assert (boot / "EFI/grub.cfg").stat().st_mtime == EPOCH
    for entry in [*read_tar(root).values(), *read_tar(data).values()]:
        assert (entry.uid, entry.gid, entry.mtime) == (7, 8, EPOCH)
        assert entry.pax_headers["SCHILY.xattr.user.kept"] == "yes"


def test_the_fat_is_filled_in_an_order_that_is_always_the_same(tmp_path: Path) -> None:
    for name in ("zero", "b/two", "b/one", "a/b/three"):
        (tmp_path / "boot" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "boot" / name).touch()
    commands = list(assembly.fat(CARDS[0].boot, "card.img", tmp_path / "boot"))
    place = "card.img@@4194304"
    assert commands[0][0] == "mkfs.vfat" and CARDS[0].boot.fat_serial in commands[0]
    assert commands[1:] == [
        ["mcopy", "-m", "-i", place, "boot/zero", "::."],
        ["mmd", "-i", place, "::a"],
        ["mmd", "-i", place, "::a/b"],
        ["mcopy", "-m", "-i", place, "boot/a/b/three", "::a/b"],
        ["mmd", "-i", place, "::b"],
        ["mcopy", "-m", "-i", place, "boot/b/one", "boot/b/two", "::b"],
    ]


def test_what_differs_between_two_of_an_image_is_known_by_name(tmp_path: Path) -> None:
    """Content, owner or time; and what only one of them has."""

    def tar(name: str, content: bytes, *, time: int = 1, more: str = "") -> Path:
        with tarfile.open(tmp_path / name, "w") as made:
            for entry, written in (("./same", b"same"), ("./file", content), *([(more, b"")] if more else [])):
                info = tarfile.TarInfo(entry)
                info.size, info.mtime = len(written), time if entry == "./file" else 1
                made.addfile(info, io.BytesIO(written))
        return tmp_path / name

    one = system.digests(tar("one.tar", b"content"))
    assert one == system.digests(tar("again.tar", b"content"))
    for other in (tar("other.tar", b"CONTENT"), tar("later.tar", b"content", time=2)):
        assert dict(one.items() ^ system.digests(other).items()).keys() == {"./file"}
    more = system.digests(tar("more.tar", b"content", more="./new"))
    assert dict(one.items() ^ more.items()).keys() == {"./new"}
