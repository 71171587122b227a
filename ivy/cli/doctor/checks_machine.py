"""`ivy doctor`: whether the machine comes back by itself, which the package ivy-node sees to.

Tells, and finds no fault: not every machine is to do that.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ivy.cli.doctor.finding import Finding
from ivy.types.config import Config
from ivy.utils.host import commands, units

_SECONDS_TO_ANSWER = 30


def machine(config: Config | None, root: Path = Path("/")) -> Iterator[Finding]:
    """What the machine does by itself: for each whether that is on, off, or impossible here.

    Args:
        config: With the limits of the link.
        root: Where devices and the kernel's settings are.
    """
    if not (root / "usr/lib/ivy-node").exists():
        yield Finding("machine", "the package ivy-node is not installed, which lets a machine come back by itself")
    looks = _property("ivy-lost.timer", "ActiveState") == "active"
    answers = {
        "a hang is ended by a watchdog": _watchdog(root),
        "a crash of systemd leads to a reboot": _on(_setting("system.conf", "CrashAction") == "reboot"),
        "a panic of the kernel leads to a reboot": _panic(root / "proc/sys/kernel"),
        "tasks that hang are named in the journal": _hung_tasks(root / "proc/sys/kernel/hung_task_timeout_secs"),
        "the journal is bounded": _journal(),
        "a boot that ends in a shell is made again": _on(
            "ivy-try-again.timer" in _property("emergency.service", "Wants").split()
        ),
        "a link that is away is repaired": _link(config) if looks else "off",
        "a disk that takes nothing is checked": _on(looks),
        "a system that cannot be read leads to a reboot": _on(
            _property("ivy-programs.timer", "ActiveState") == "active"
        ),
    }
    for what, answer in answers.items():
        yield Finding("machine", f"{what}: {answer}")


def _on(is_on: bool) -> str:
    return "on" if is_on else "off"


def _watchdog(root: Path) -> str:
    if not (root / "dev/watchdog").exists():
        return "impossible here, as there is no /dev/watchdog"
    found = _ask("systemctl", "show", "--value", "--property=RuntimeWatchdogUSec").strip()  # the manager's
    return "off" if found in ("", "0", "infinity") else f"on, after {found}"


def _panic(settings: Path) -> str:
    seconds, oops = _number(settings / "panic"), _number(settings / "panic_on_oops")
    if not seconds:
        return "off"
    return f"on, after {abs(seconds)} s" + ("" if oops else ", but not after an oops")


def _hung_tasks(setting: Path) -> str:
    seconds = _number(setting)
    if seconds is None:
        return "impossible here, as this kernel does not look for them"
    return f"on, after {seconds} s" if seconds else "off"


def _journal() -> str:
    limit = _setting("journald.conf", "SystemMaxUse")
    return f"on, by {limit}" if limit else "off, but for systemd's own bound"


def _link(config: Config | None) -> str:
    if config is None or config.backend is None:
        return "off, as there is no backend"
    repair, reboot = config.node.hours_until_repair, config.node.hours_until_reboot
    limits = [
        f"{what} after {hours:g} h"
        for what, hours in (("/etc/ivy/repair.d", repair), ("a reboot", reboot))
        if hours is not None
    ]
    return f"on, {', '.join(limits)}" if limits else "off by config"


def _property(unit: str, name: str) -> str:
    try:
        return units.show(unit, name).get(name, "")
    except commands.CommandError:
        return ""


def _setting(file: str, name: str) -> str:
    """The last value that systemd's configuration gives to a setting; empty if none does."""
    found = re.findall(rf"(?m)^{name}=(.*)$", _ask("systemd-analyze", "cat-config", f"systemd/{file}"))
    return str(found[-1]).strip() if found else ""


def _ask(*command: str) -> str:
    try:
        return commands.run(command, timeout=_SECONDS_TO_ANSWER)
    except commands.CommandError:
        return ""


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
