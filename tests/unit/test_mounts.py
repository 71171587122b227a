"""`ivy.utils.host.mounts`: what a boot loses, by tables of mounts as machines have them."""

import os
from pathlib import Path

import pytest

from ivy import constants
from ivy.utils.host import mounts

DATA = "/var/lib/ivy/data"

CARD = """\
27 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
28 27 0:6 / /dev rw,relatime shared:2 - devtmpfs udev rw
29 27 0:25 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=1000k,mode=755
31 27 179:1 / /boot/firmware rw,relatime shared:7 - vfat /dev/mmcblk0p1 rw
"""
# raspi-config since Bookworm: Debian's overlayroot, which leaves the tmpfs where it can be seen. What the initramfs
# has moved below the root is older than the root.
OVERLAYROOT = """\
24 28 179:2 / /media/root-ro ro,relatime shared:2 - ext4 /dev/mmcblk0p2 ro
25 28 0:23 / /media/root-rw rw,relatime shared:3 - tmpfs tmpfs-root rw
28 1 0:24 / / rw,relatime shared:1 - overlay overlayroot rw,lowerdir=/media/root-ro,upperdir={upper},workdir={upper}-workdir/_
29 28 0:25 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw
"""  # noqa: E501
# raspi-config before that: a script of its own, whose tmpfs stays behind in the initramfs.
HIDDEN_UPPER = """\
26 1 0:20 / / rw,noatime shared:1 - overlay overlay rw,lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work
29 26 0:25 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw
"""


def lost(table: str, number: int | str, *, is_machine: bool = True) -> str | None:
    return mounts.lost_on(str(number), table, is_machine=is_machine)


def mounted(kind: str, source: str, *, number: int | str = 90, options: str = "rw") -> str:
    return f"{number} 27 0:90 / {DATA} rw,relatime shared:90 - {kind} {source} {options}\n"


def test_a_card_keeps_what_is_stored() -> None:
    assert lost(CARD, 27) is None


@pytest.mark.parametrize(
    ("kind", "source", "expected"),
    [
        ("tmpfs", "tmpfs", "tmpfs"),
        ("ramfs", "none", "ramfs"),
        ("ext4", "/dev/zram1", "ext4"),
        ("ext4", "/dev/mmcblk0p3", None),
    ],
)
def test_what_is_mounted_where_the_data_is(kind: str, source: str, expected: str | None) -> None:
    for is_machine in (True, False):
        assert lost(CARD + mounted(kind, source), 90, is_machine=is_machine) == expected


def own_mount_of(path: Path) -> list[str]:
    table = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    [line] = [line for line in table if line.split()[0] == mounts.number_of(str(path))]
    return line.split()


def test_the_kernel_tells_where_a_path_leads(tmp_path: Path) -> None:
    assert own_mount_of(Path("/proc"))[4] == "/proc"
    (tmp_path / "link").symlink_to("/proc")
    assert own_mount_of(tmp_path / "link") == own_mount_of(Path("/proc"))
    assert mounts.number_of(str(tmp_path / "missing")) == mounts.number_of("") == ""


def test_a_path_that_is_hidden_is_where_it_begins_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def closed(path: str, flags: int) -> int:
        if Path(path) != tmp_path:
            raise PermissionError(path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", closed)
    number = mounts.number_of(str(tmp_path / "a" / "b"))
    assert number == mounts.number_of(str(tmp_path)) != ""


def test_the_overlay_of_raspi_config() -> None:
    for table, root in ((OVERLAYROOT.format(upper="/media/root-rw/overlay"), 28), (HIDDEN_UPPER, 26)):
        assert lost(table, root) == "overlay"
        assert lost(table + mounted("ext4", "/dev/mmcblk0p3"), 90) is None, "the way out"


@pytest.mark.parametrize(
    ("kind", "source", "expected"), [("tmpfs", "tmpfs", "overlay"), ("ext4", "/dev/sda1", None)]
)
def test_an_overlay_is_what_its_changes_are_on(
    tmp_path: Path, kind: str, source: str, expected: str | None
) -> None:
    upper = tmp_path / "with space" / "upper"
    upper.mkdir(parents=True)
    where = str(upper).replace(" ", r"\040")
    table = CARD + mounted(kind, source, number=mounts.number_of(str(tmp_path)))
    table += mounted("overlay", "overlay", number="new", options=f"rw,lowerdir=/a:/b,upperdir={where}")
    for is_machine in (True, False):
        assert lost(table, "new", is_machine=is_machine) == expected


def test_nobody_can_tell_in_a_container() -> None:
    """Whose root is an overlay, as a rule, with the changes on a disk outside."""
    assert lost(HIDDEN_UPPER, 26, is_machine=False) is None
    # A directory of the same name inside is not the one.
    here = os.path.dirname(__file__)
    root = mounts.number_of(here)
    same_name = mounted("overlay", "overlay", number=root, options=f"rw,lowerdir=/lower,upperdir={here}")
    assert lost(same_name, root, is_machine=False) is None
    assert lost(same_name, root) == "overlay"


def test_an_overlay_that_takes_no_changes_loses_none() -> None:
    assert lost(mounted("overlay", "overlay", options="ro,lowerdir=/a:/b"), 90) is None


def test_a_table_that_tells_nothing() -> None:
    assert lost("", 27) is lost(CARD, "") is None


def test_places_are_named(root_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: dict[str, str | None] = {}
    monkeypatch.setattr(mounts, "lost_on", lambda number, _: kinds.get(number))
    monkeypatch.setattr(mounts, "number_of", lambda path: path)
    assert mounts.lost_places() == []
    kinds[constants.IVY_DATA_DIR] = "tmpfs"
    assert mounts.lost_places() == [f"{constants.IVY_DATA_DIR} (tmpfs)"]
    kinds[constants.IVY_ROOT_DIR] = "overlay"
    both = [f"{constants.IVY_DATA_DIR} (tmpfs)", f"{constants.IVY_ROOT_DIR} (overlay)"]
    assert mounts.lost_places() == both
    monkeypatch.undo()
    mounts.lost_places()  # of this machine, whatever it is
