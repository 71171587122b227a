"""Four procedures with hardware, as a reader of ivy-procedure(7) writes them; and what they find on a node.

Their texts are in `procedures`: what stands there takes the place of what packaging/new-procedure wrote.
"""

import re
from pathlib import Path

from testbed.bed import Node

from tests.readme import hardware, lgpio

TEXTS = Path(__file__).with_name("procedures")
WRITTEN = {
    "co2": "--serial /dev/ttyUSB1 --gpio",
    "wind": "--serial /dev/ttyUSB2",
    "heated-box": "--gpio",
    "ups": "--gpio",
}
"""Their names, and with what packaging/new-procedure is called for them."""
HEATER = 17
"""The line of the heated box, as its section has it."""
DEBIAN_PACKAGE = "python3-lgpio"
_CONTROL = f"""\
Package: {DEBIAN_PACKAGE}
Version: 0
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: a chip that is a file
"""


def fill_in(tree: Path) -> list[str]:
    """Let all four do what they are for. Returns the files, from the checkout on, that linters are to see."""
    modules = [name.replace("-", "_") for name in WRITTEN]
    for module in modules:
        _copy(TEXTS / module / "procedure.py.in", tree / f"ivy/procedures/{module}.py")
        _copy(TEXTS / module / "test.py.in", tree / f"tests/unit/test_procedure_{module}.py")
        kind = "".join(word.capitalize() for word in module.split("_"))
        section = (TEXTS / module / "config.py.in").read_text()
        _put(tree / "ivy/types/config.py", rf"(?ms)^class {kind}Config\(.*?(?=^class )", section)
    _put(tree / "units/ivy-ups.service", r"(?s)\Z", (TEXTS / "ups/unit.in").read_text())
    _put(tree / "pyproject.toml", r"(?m)^debian = \[\]$", f'debian = ["{DEBIAN_PACKAGE}"]')
    tests = [f"tests/unit/test_procedure_{module}.py" for module in modules]
    return ["ivy/types/config.py", *(f"ivy/procedures/{module}.py" for module in modules), *tests]


def plug_in(node: Node) -> None:
    """Their hardware, and the Debian package by which they use it. A node that boots again has lost the first."""
    package = f"/root/{DEBIAN_PACKAGE}"
    for source, inside in (
        (hardware, "/root/hardware.py"),
        (lgpio, f"{package}/usr/lib/python3/dist-packages/lgpio.py"),
    ):
        node.path(inside).parent.mkdir(parents=True, exist_ok=True)
        node.path(inside).write_text(Path(str(source.__file__)).read_text())
    node.path(f"{package}/DEBIAN").mkdir()
    node.path(f"{package}/DEBIAN/control").write_text(_CONTROL)
    node.run(["dpkg-deb", "--build", package])
    node.run(["dpkg", "--install", f"{package}.deb"])
    node.run(["systemd-run", "--unit=hardware", "/usr/bin/python3", "/root/hardware.py"])
    is_there = ["test", "-c", hardware.WIND_PORT]
    node.wait_for(lambda: node.run(is_there, check=False).returncode == 0, 20, "the hardware")


def levels(node: Node, line: int) -> list[int]:
    """All that a line of the chip was set to."""
    pairs = [pair.split() for pair in node.run(["cat", hardware.CHIP]).stdout.splitlines()]
    return [int(value) for number, value in pairs if int(number) == line]


def level(node: Node, line: int) -> int:
    """What it was set to last; 0 if never."""
    return [0, *levels(node, line)][-1]


def set_level(node: Node, line: int, value: int) -> None:
    """Let a line of the chip, of those that are read, have another level."""
    node.run(["sh", "-c", f"echo {line} {value} >>{hardware.CHIP}"])


def _copy(source: Path, target: Path) -> None:
    if not target.is_file():
        raise ValueError(f"packaging/new-procedure wrote no {target}")
    target.write_text(source.read_text())


def _put(path: Path, place: str, text: str) -> None:
    written, count = re.subn(place, lambda _: text, path.read_text(), count=1)
    if not count:
        raise ValueError(f"{path} has no {place}")
    path.write_text(written)
