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
# Of a service that ran already when a tmpfs was mounted on /var/lib/ivy, which hides its own mount of the data.
HIDDEN_DATA = """\
450 218 179:2 / / ro,nosuid,relatime shared:285 master:177 - ext4 /dev/mmcblk0p2 rw
509 450 0:65 / /run rw,nosuid,nodev shared:315 master:182 - tmpfs tmpfs rw
734 450 179:2 /var/lib/ivy/data /var/lib/ivy/data rw,nosuid,relatime shared:350 master:177 - ext4 /dev/mmcblk0p2 rw
250 450 0:82 / /var/lib/ivy rw,relatime shared:357 master:355 - tmpfs none rw
"""


def lost(table: str, *, is_machine: bool = True) -> str | None:
    return mounts.lost_on(DATA, table, is_machine=is_machine)


def mounted(kind: str, source: str, point: str, *, parent: int = 27, number: int = 90, options: str = "rw") -> str:
    return f"{number} {parent} 0:90 / {point} rw,relatime shared:90 - {kind} {source} {options}\n"


def test_a_card_keeps_what_is_stored() -> None:
    assert lost(CARD) is None


@pytest.mark.parametrize(
    ("kind", "source", "point", "expected"),
    [
        ("tmpfs", "tmpfs", DATA, "tmpfs"),
        ("tmpfs", "tmpfs", "/var", "tmpfs"),
        ("ramfs", "none", "/var/lib/ivy", "ramfs"),
        ("ext4", "/dev/zram1", "/var/lib/ivy", "ext4"),
        ("ext4", "/dev/mmcblk0p3", "/var/lib/ivy", None),
        ("tmpfs", "tmpfs", "/var/lib/ivy-other", None),
        ("tmpfs", "tmpfs", "/var/lib/ivy/data/run", None),
        ("tmpfs", "tmpfs", "/var/log", None),
    ],
)
def test_what_is_mounted_where_the_data_is(kind: str, source: str, point: str, expected: str | None) -> None:
    for is_machine in (True, False):
        assert lost(CARD + mounted(kind, source, point), is_machine=is_machine) == expected


def test_the_last_of_several_mounts_counts() -> None:
    below = mounted("tmpfs", "tmpfs", "/var/lib/ivy")
    above = mounted("ext4", "/dev/mmcblk0p3", "/var/lib/ivy", parent=90, number=91)
    assert lost(CARD + below + above) is None
    assert lost(CARD + above + below) is None, "their order in the table says nothing"
    assert lost(HIDDEN_DATA) == "tmpfs"


def test_the_overlay_of_raspi_config(tmp_path: Path) -> None:
    for table in (OVERLAYROOT.format(upper="/media/root-rw/overlay"), HIDDEN_UPPER):
        assert lost(table) == "overlay"
        partition = mounted("ext4", "/dev/mmcblk0p3", "/var/lib/ivy", parent=int(table.splitlines()[-1].split()[1]))
        assert lost(table + partition) is None, "the way out"


@pytest.mark.parametrize(
    ("kind", "source", "expected"), [("tmpfs", "tmpfs", "overlay"), ("ext4", "/dev/sda1", None)]
)
def test_an_overlay_is_what_its_changes_are_on(
    tmp_path: Path, kind: str, source: str, expected: str | None
) -> None:
    upper = tmp_path / "with space" / "upper"
    upper.mkdir(parents=True)
    root = str(tmp_path.parent)
    where = str(upper).replace(" ", r"\040")
    table = CARD + mounted(kind, source, root)
    table += mounted("overlay", "overlay", "/var/lib/ivy", number=91, options=f"rw,lowerdir=/a:/b,upperdir={where}")
    for is_machine in (True, False):
        assert lost(table, is_machine=is_machine) == expected


def test_nobody_can_tell_in_a_container() -> None:
    """Whose root is an overlay, as a rule, with the changes on a disk outside."""
    assert lost(HIDDEN_UPPER, is_machine=False) is None
    # A directory of the same name inside is not the one.
    same_name = HIDDEN_UPPER.replace("/upper/data", os.path.dirname(__file__))
    assert lost(same_name, is_machine=False) is None
    assert lost(same_name) == "overlay"


def test_an_overlay_that_takes_no_changes_loses_none() -> None:
    assert lost(CARD + mounted("overlay", "overlay", "/var", options="ro,lowerdir=/a:/b")) is None


@pytest.mark.parametrize("table", ["", "27 27 0:1 / /elsewhere rw - ext4 /dev/sda1 rw\n"])
def test_a_table_that_tells_nothing(table: str) -> None:
    assert lost(table) is None


def test_places_are_named(root_dir: Path) -> None:
    root = mounted("ext4", "/dev/sda1", "/", parent=1)
    assert mounts.lost_places(root) == []
    data = mounted("tmpfs", "tmpfs", constants.IVY_DATA_DIR, parent=90, number=91)
    assert mounts.lost_places(root + data) == [f"{constants.IVY_DATA_DIR} (tmpfs)"]
    all_of_it = mounted("tmpfs", "tmpfs", "/", parent=1)
    both = [f"{constants.IVY_DATA_DIR} (tmpfs)", f"{constants.IVY_ROOT_DIR} (tmpfs)"]
    assert mounts.lost_places(all_of_it) == both
    mounts.lost_places()  # of this machine, whatever it is
