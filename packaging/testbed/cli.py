"""The `testbed` command: a bed on the command line. See README.md.

Only words and exit statuses are made here; everything else is `testbed.bed`.
"""

import argparse
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias, TypeVar

from testbed.bed import Bed, BedError, Machine, Node, existing_beds, why_not
from testbed.broker import OPERATOR, Broker, sensor_of
from testbed.emulation import architecture
from testbed.git_server import GitServer, map_hosts
from testbed.package_index import PackageIndex
from testbed.roots import PROJECT
from testbed.run import progress

Command: TypeAlias = Callable[[Bed, argparse.Namespace], int]
T = TypeVar("T")

FAILED = 1
PASSWORD = "testbed"
REPOSITORY = "you/ivy"
THINGSBOARD_PORT = 1884  # beside a broker
BOOTING_AT_ONCE = 4
RANGE = re.compile(r"\d+:\d+")
ABOUT = "Real systemd nodes (Debian 13, or another) in containers: try a fleet before touching a roof."
VM = "a machine with a kernel of its own, from the image of a card, under qemu"
MORE = """\
The nodes outlive the command; `testbed down` removes them without a trace.
IVY_TESTBED=NAME selects one of several beds that know nothing of each other (default: ivy).
Exit status: 0 done, 1 failed, 2 wrong use; `exec` passes on that of the program.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        return _fail("the test bed needs root: try again with sudo")
    try:
        status: int = options.command(Bed(os.environ.get("IVY_TESTBED", "ivy")), options)
        return status
    except BedError as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    progress(message)
    return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="testbed", description=ABOUT, epilog=MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(command: Command, help: str) -> argparse.ArgumentParser:
        name = command.__name__.removeprefix("_").replace("_", "-")
        added: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
        added.set_defaults(command=command)
        return added

    up = add(_up, "boot nodes n1 to nN, as far as they do not run yet, and list them")
    up.add_argument("count", metavar="N", type=_count, nargs="?", default=1)
    up.add_argument("--suite", metavar="NAME", help="the Debian of nodes that are made now; default: trixie")
    _add_node(execute := add(_exec, "run a program in a node"))
    execute.add_argument("program", metavar="CMD")
    execute.add_argument("argv", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    _add_node(add(_shell, "open a shell in a node"))
    _add_node(logs := add(_logs, "show a node's journal, also without power; arguments are journalctl's"))
    logs.add_argument("argv", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    _add_node(copy := add(_copy, "copy a file or a directory into a node"))
    copy.add_argument("source", metavar="SOURCE")
    copy.add_argument("inside", metavar="INSIDE")
    cut = add(_cut, "power cut: everything in the node dies at once, the disk keeps what was written")
    cut.add_argument(
        "--forget", action="store_true", help="but for a share of what was not flushed; see the command disk"
    )
    cut.add_argument("--seed", metavar="N", type=int, help="the same share of the same writes; printed each time")
    _add_node(cut)
    _add_node(disk := add(_disk, "give a node a disk that can forget what was not flushed, or let that fall ill"))
    disk.add_argument(
        "state",
        choices=["forgetful", "bad", "read-only", "healthy"],
        help="forgetful: powers the node off and copies it to such a disk, which all others here are for. "
        "bad: bad sectors. read-only: writes fail. healthy: neither.",
    )
    place = "what is bad: a file of the node's, or bytes of its disk"
    disk.add_argument("place", metavar="FILE|START:LENGTH", nargs="?", help=place)
    disk.add_argument("--on", choices=["read", "write"], help="what fails there; default: both")
    _add_node(add(_boot, "boot a node again"))
    _add_node(link := add(_link, "plug a node's network cable in (up) or out (down)"))
    link.add_argument("state", choices=["down", "up"])
    add(_broker, "run an MQTT broker for the nodes (and `operator`, who sees everything) until Ctrl-C")
    git = add(_git_server, "run a git server, which the nodes take for GitHub and GitLab, until Ctrl-C")
    git.add_argument(
        "repositories", metavar="OWNER/NAME", nargs="*", help=f"made if need be; default: {REPOSITORY}"
    )
    index = add(_index, "run an index of Python packages, which the nodes' pip asks, until Ctrl-C")
    index.add_argument("directory", metavar="DIRECTORY", type=Path, help="of wheels; new ones are seen at once")
    platform = add(_platform, "run a strict stand-in for a platform, for one node, until Ctrl-C")
    platform.add_argument("platform", choices=["thingsboard"])
    platform.add_argument("node", metavar="NODE", nargs="?", default="n1", help="its name is its access token")
    _add_vm(commands.add_parser("vm", help=VM, description=VM))
    add(_list, "list the nodes")
    add(_down, "remove all nodes, their disks and their network")
    return parser


def _add_vm(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(command: Command, help: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(command.__name__[4:], help=help, description=help)
        added.set_defaults(command=command)
        added.add_argument("machine", metavar="MACHINE")
        return added

    up = add(_vm_up, "boot a machine; one that is new gets a card")
    up.add_argument("--image", type=Path, help="of its card; default: what packaging/image --board generic made")
    up.add_argument("--put", metavar="FILE", type=Path, action="append", default=[], help="on the FAT of its card")
    up.add_argument("--snapshot", metavar="NAME", help="go on where it was at `vm save`")
    execute = add(_vm_exec, "run a program in it")
    execute.add_argument("program", metavar="CMD")
    execute.add_argument("argv", metavar="ARGUMENT", nargs=argparse.REMAINDER)
    add(_vm_cut, "power cut: what its kernel had not written is lost")
    add(_vm_logs, "show what its console said")
    save = add(_vm_save, "keep memory and disk as they are now")
    save.add_argument("snapshot", metavar="NAME")
    add(_vm_watchdog, "freeze PID 1, wait until the watchdog bites and the machine is back, and print the times")


def _add_node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of nodes")
    return int(text)


def _up(bed: Bed, options: argparse.Namespace) -> int:
    if reason := why_not():
        return _fail(f"nodes cannot boot here: {reason}")
    bed.up()
    if options.suite:
        os.environ["IVY_SUITE"] = options.suite
    nodes = [bed.node(f"n{number}") for number in range(1, options.count + 1)]
    with ThreadPoolExecutor(BOOTING_AT_ONCE) as pool:
        list(pool.map(Node.boot, nodes))
    return _list(bed, options)


def _list(bed: Bed, options: argparse.Namespace) -> int:
    for node in bed.nodes.values() if bed.exists() else []:
        power = "running" if node.running else "no power"
        link = "" if node.is_linked() or not node.running else ", no link"
        print(f"{node.name}\t{node.address}\t{power}{link}")
    if others := [name for name in existing_beds() if name != bed.name]:
        progress(f"other beds (select one by IVY_TESTBED=NAME): {', '.join(others)}")
    return 0


def _exec(bed: Bed, options: argparse.Namespace) -> int:
    _find(bed, options).become([options.program, *options.argv])


def _shell(bed: Bed, options: argparse.Namespace) -> int:
    _find(bed, options).become(["bash", "--login"])


def _logs(bed: Bed, options: argparse.Namespace) -> int:
    _find(bed, options).become_journal(options.argv)


def _copy(bed: Bed, options: argparse.Namespace) -> int:
    if not Path(options.source).exists():
        raise BedError(f"there is no {options.source}")
    _find(bed, options).copy_in(options.source, options.inside)
    return 0


def _cut(bed: Bed, options: argparse.Namespace) -> int:
    node = _find(bed, options)
    if options.forget:
        seed, fate = node.forget(options.seed)
        of_them = f"{fate.landed} landed, {fate.torn} of them torn"
        print(f"seed {seed}: of {fate.unflushed} writes that were not flushed, {of_them}")
    else:
        node.cut()
    return 0


def _disk(bed: Bed, options: argparse.Namespace) -> int:
    node = _find(bed, options)
    how = {"reads": options.on != "write", "writes": options.on != "read"}
    match options.state, options.place:
        case "forgetful", None:
            node.be_forgetful()
        case "read-only", None:
            node.disk.be_read_only()
        case "healthy", None:
            node.disk.heal()
        case "bad", str(place) if place.startswith("/"):
            node.break_file(place, **how)
        case "bad", str(place) if RANGE.fullmatch(place):
            start, length = map(int, place.split(":"))
            node.disk.break_sectors([(start, length)], **how)
        case _:
            raise BedError("a place is told for what is bad, and for nothing else", "See testbed disk --help")
    return 0


def _boot(bed: Bed, options: argparse.Namespace) -> int:
    bed.up()
    _find(bed, options).boot()
    return 0


def _link(bed: Bed, options: argparse.Namespace) -> int:
    _find(bed, options).link(options.state == "up")
    return 0


def _broker(bed: Bed, options: argparse.Namespace) -> int:
    sensors = {name: sensor_of(name) for name in bed.nodes}
    users = dict.fromkeys([OPERATOR, *sensors, *sensors.values()], PASSWORD)
    with Broker(bed.address, users=users, directory=bed.directory / "broker"):
        print(f"{bed.address}:1883, users: {', '.join(users)}; password: {PASSWORD}", flush=True)
        print(
            "".join(f"{name} as a sensor of Tenta: {sensor}\n" for name, sensor in sensors.items()),
            end="",
            flush=True,
        )
        listen = f"mosquitto_sub -h {bed.address} -u {OPERATOR} -P {PASSWORD} -t '#'"
        progress(f"Nodes wait until somebody listens: {listen}")
        return _until_interrupted("the broker")


def _git_server(bed: Bed, options: argparse.Namespace) -> int:
    names = options.repositories or [REPOSITORY]
    with GitServer(bed.address, directory=bed.directory / "git", public=names) as server:
        for node in _running(bed):
            map_hosts(node, server)
        for name in names:
            print(f"https://github.com/{name}, for the nodes; to push there: {server.repository(name)}", flush=True)
        progress("Nodes that are booted later do not know it: run this again")
        return _until_interrupted("the git server")


def _index(bed: Bed, options: argparse.Namespace) -> int:
    with PackageIndex(bed.address, options.directory) as index:
        for node in _running(bed):
            index.let_use(node)
        print(index.url, flush=True)
        progress("Nodes that are booted later do not know it: run this again")
        return _until_interrupted("the index")


def _platform(bed: Bed, options: argparse.Namespace) -> int:
    """Ends as it does."""
    where = f"--host gateway --port {THINGSBOARD_PORT} --tls no --username {options.node}"
    progress(f"On the node, with any password: ivy setup --provider thingsboard {where}")
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'packaging'}"}
    python = PROJECT / ".venv" / "bin" / "python"
    if not python.exists():
        raise BedError(f"there is no {python}", "It has the stand-in's libraries; packaging/test makes it.")
    arguments = ["-m", "testbed.thingsboard", bed.address, str(THINGSBOARD_PORT), options.node]
    os.execve(python, [str(python), *arguments], environment)


def _running(bed: Bed) -> list[Node]:
    return [node for node in bed.nodes.values() if node.running]


def _until_interrupted(what: str) -> int:
    progress(f"Ctrl-C ends {what}")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    return 0


def _vm_up(bed: Bed, options: argparse.Namespace) -> int:
    bed.up()
    machine = bed.machines.get(options.machine)
    if machine is None:
        board = "generic" if (arch := architecture()) == "amd64" else f"generic-{arch}"
        image = options.image or next(iter(sorted((PROJECT / "dist").glob(f"ivy-*-{board}.img.xz"))), None)
        if image is None:
            raise BedError("there is no image", f"Make one: packaging/image --board generic --arch {arch}")
        files = {path.name: path.read_bytes() for path in options.put}
        machine = bed.machine(options.machine, image, files)
    machine.boot(options.snapshot)
    print(f"{machine.name}\t{machine.address}")
    return 0


def _vm_exec(bed: Bed, options: argparse.Namespace) -> int:
    _find_machine(bed, options).become([options.program, *options.argv])


def _vm_cut(bed: Bed, options: argparse.Namespace) -> int:
    _find_machine(bed, options).cut()
    return 0


def _vm_logs(bed: Bed, options: argparse.Namespace) -> int:
    print(_find_machine(bed, options).console.read_text(errors="replace"), end="")
    return 0


def _vm_save(bed: Bed, options: argparse.Namespace) -> int:
    _find_machine(bed, options).save(options.snapshot)
    return 0


def _vm_watchdog(bed: Bed, options: argparse.Namespace) -> int:
    machine = _find_machine(bed, options)
    before, began = machine.boot_id(), time.monotonic()
    event = machine.freeze_until_reset()
    progress(f"{event} after {time.monotonic() - began:.0f} s")
    machine.wait_booted(but_not=before)
    progress(f"booted again after {time.monotonic() - began:.0f} s")
    return 0


def _find_machine(bed: Bed, options: argparse.Namespace) -> Machine:
    return _called(bed, "machine", options.machine, bed.machines if bed.exists() else {}, "vm up m1")


def _down(bed: Bed, options: argparse.Namespace) -> int:
    bed.down()
    return 0


def _find(bed: Bed, options: argparse.Namespace) -> Node:
    return _called(bed, "node", options.node, bed.nodes if bed.exists() else {}, "up 3")


def _called(bed: Bed, kind: str, name: str, known: Mapping[str, T], how_to_make: str) -> T:
    if name not in known:
        there = f"There are: {', '.join(known)}." if known else f"There are none; testbed {how_to_make} makes some"
        raise BedError(f"there is no {kind} {name} in the bed {bed.name}", there)
    return known[name]
