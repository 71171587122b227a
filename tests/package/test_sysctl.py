"""What the package sets of the kernel, tried by systemd's own program in a network of its own."""

import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SETTING = "net.ipv4.tcp_mtu_probing"
SYSTEMD_SYSCTL = "/usr/lib/systemd/systemd-sysctl"
# The directories of the machine are hidden by those of the test, in a name space for mounts.
_APPLY = f"""
mount --bind "$1" /etc/sysctl.d && mount --bind "$2" /usr/lib/sysctl.d || exit
echo 0 > /proc/sys/net/ipv4/tcp_mtu_probing
{SYSTEMD_SYSCTL} --prefix={SETTING}
cat /proc/sys/net/ipv4/tcp_mtu_probing
"""


def applied(directory: Path, of_admin: dict[str, str]) -> str:
    """What the kernel has after the package's file and those of an admin were read."""
    for name in ("admin", "package"):
        (directory / name).mkdir()
    for name, text in of_admin.items():
        (directory / "admin" / name).write_text(text)
    (directory / "package" / installed_as()).write_text((PROJECT / "debian" / "ivy.sysctl").read_text())
    places = [str(directory / "admin"), str(directory / "package")]
    command = ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c", _APPLY, "sh", *places]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def installed_as() -> str:
    """The name that the file has on a node."""
    rules = (PROJECT / "debian" / "rules").read_text()
    found = re.search(r"debian/ivy\.sysctl debian/ivy/usr/lib/sysctl\.d/(\S+\.conf)$", rules, re.MULTILINE)
    assert found, "it is not installed"
    return found[1]


def test_packets_become_smaller_where_large_ones_vanish(tmp_path: Path) -> None:
    assert applied(tmp_path, {}) == "1"


def test_an_admin_may_keep_it_off(tmp_path: Path) -> None:
    assert applied(tmp_path, {"99-own.conf": f"{SETTING} = 0\n"}) == "0"


def test_the_package_applies_it_at_once_as_a_boot_does() -> None:
    postinst = (PROJECT / "debian" / "ivy.postinst").read_text()
    assert f"{SYSTEMD_SYSCTL} --prefix={SETTING} || true" in postinst
