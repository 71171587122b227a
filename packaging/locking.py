"""Makes requirements.lock of requirements.in by pip, for the nodes of all architectures; and fetches what it names.

pip chooses for the machine that it runs on. So it is asked once for each kind of node, and told that it runs there.
How a node installs what was locked is not known here.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.package_index import write_wheel

PROJECT = Path(__file__).resolve().parents[1]
WANTED, LOCK, PINNED = "requirements.in", "requirements.lock", "packaging/requirements-test.txt"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}
OF_DEBIAN = {"3.11": ("3.11.2", 36), "3.13": ("3.13.5", 41)}
"""By Python: its whole version, and the minor one of glibc, in the Debian that has it."""
LATEST_GLIBC, OLDEST_GLIBC = 41, 5
FAILED = 1
MOST_SECONDS = 900
LINES_OF_PIP = 20
NAME = r"(?P<name>[A-Za-z0-9][\w.-]*)"
REQUIREMENT = re.compile(rf"{NAME}(\[[\w.,-]+\])? *([<>=!~][^;@/]*)?(;[^@/]*)?", re.ASCII)
NOTHING_FOUND = re.compile(rf"No matching distribution found for (?P<what>{NAME}.*?)( \(from .*)?$", re.MULTILINE)
PYTHON = re.compile(r"3\.[0-9]+", re.ASCII)
# All that pip's markers know of a machine, they ask the module `platform`.
AS_IF_THERE = """\
import platform, runpy, sys
machine, python = sys.argv[1:3]
del sys.argv[1:3]
platform.machine = lambda: machine
platform.python_version = lambda: python
platform.python_version_tuple = lambda: tuple(python.split("."))
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
ABOUT = (
    "Make requirements.lock of requirements.in: the newest versions that it allows, as wheels, with their hashes."
)
MORE = """\
requirements.in names the libraries of your procedures, one a line, as pip understands it: name, name>=2.1,
name[extra]. For which nodes stands in pyproject.toml: [tool.ivy] architectures and pythons. The libraries of ivy
itself, and those of [tool.ivy] debian, are Debian's: they are not locked, and taken to have the version that
packaging/requirements-test.txt says.
Another index than PyPI: as for pip, such as PIP_INDEX_URL, or PIP_NO_INDEX=1 PIP_FIND_LINKS=DIRECTORY.
Exit status: 0 done; 1 not for all of these nodes, and nothing was written; 2 wrong use.
"""


class NotLocked(Exception):
    """What is wanted cannot be had; the text says what, where, and what to do."""


class NothingFound(Exception):
    """pip finds no wheel: of what, as it says it, and the name alone."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(what)
        self.name = normalised(name)


@dataclass(frozen=True, order=True)
class Target:
    """A kind of node: Debian's word for the architecture, and the Python."""

    architecture: str
    python: str

    def __str__(self) -> str:
        return f"{self.architecture} with Python {self.python}"

    @property
    def machine(self) -> str:
        """What its kernel says, and `platform_machine` in markers."""
        return MACHINES[self.architecture]

    def pip(self, *arguments: str | Path) -> list[str]:
        """The command of pip as if it ran there."""
        whole, glibc = OF_DEBIAN.get(self.python, (f"{self.python}.0", LATEST_GLIBC))
        tags = [f"manylinux_2_{minor}" for minor in range(glibc, OLDEST_GLIBC - 1, -1)]
        platforms = [f"--platform={tag}_{self.machine}" for tag in (*tags, "manylinux2014", "linux")]
        there = [f"--python-version={self.python}", "--implementation=cp", "--only-binary=:all:", *platforms]
        command, *others = map(str, arguments)
        pip = [_python(), "-c", AS_IF_THERE, self.machine, whole, command, "--disable-pip-version-check", "--quiet"]
        return [*pip, "--no-input", *there, *others]


@dataclass(frozen=True)
class Wheel:
    """What was chosen of a library for one kind of node."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True)
class Settings:
    """What pyproject.toml says of nodes."""

    targets: tuple[Target, ...]
    from_debian: frozenset[str]  # the names of libraries

    @classmethod
    def read(cls, project: Path) -> "Settings":
        """Raises NotLocked where it says something else."""
        content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        own = content["tool"].get(content["project"]["name"], {})
        architectures, pythons = own.get("architectures", [*MACHINES]), own.get("pythons", ["3.13"])
        if not architectures or not {*architectures} <= {*MACHINES}:
            raise NotLocked(f"pyproject.toml: architectures: must be some of {', '.join(MACHINES)}")
        if not pythons or not all(PYTHON.fullmatch(str(python)) for python in pythons):
            raise NotLocked('pyproject.toml: pythons: must be texts such as "3.13"')
        targets = [Target(architecture, python) for architecture in architectures for python in pythons]
        packages = [name.removeprefix("python3-") for name in own.get("debian", []) if name.startswith("python3-")]
        names = [re.split(r"[^\w.-]", line)[0] for line in content["project"].get("dependencies", [])]
        return cls(tuple(targets), frozenset(map(normalised, [*names, *packages])))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="lock", description=ABOUT, epilog=MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    try:
        text = make(PROJECT)
    except NotLocked as error:
        print(f"lock: {error}\nlock: nothing was written", file=sys.stderr)
        return FAILED
    (PROJECT / LOCK).write_text(text, encoding="utf-8")
    print(f"{LOCK}: {len(names_in(text))} libraries; commit it, and let packaging/test use it")
    return 0


def normalised(name: str) -> str:
    """The one spelling of a library's name, see PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_in(text: str) -> set[str]:
    """The libraries that a file of requirements or a lock names."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {normalised(re.split(r"[^\w.-]", line)[0]) for line in lines if line and not line.startswith("-")}


def not_locked(project: Path = PROJECT) -> list[str]:
    """What requirements.in names and requirements.lock does not: somebody has forgotten to run packaging/lock."""
    return sorted(names_in(_text(project / WANTED)) - names_in(_text(project / LOCK)))


def make(project: Path) -> str:
    """The text of a lock: for each kind of node the same versions.

    Raises:
        NotLocked: Something cannot be had for all of them.
    """
    settings, wanted = Settings.read(project), _wanted(project)
    chosen = _choose(settings, wanted, _pinned(project, settings)) if wanted else {}
    architectures = ", ".join(dict.fromkeys(target.architecture for target in settings.targets))
    pythons = ", ".join(dict.fromkeys(target.python for target in settings.targets))
    title = f"# Made by packaging/lock of {WANTED}, for {architectures} with Python {pythons}. Not to be edited.\n"
    found = {wheel.name: wheel.version for wheels in chosen.values() for wheel in wheels}
    return title + "".join(_line(name, version, chosen) for name, version in sorted(found.items()))


def fetch(directory: Path, project: Path = PROJECT) -> list[Path]:
    """Download all wheels that the lock names, for all kinds of nodes, into a directory.

    Returns: The wheels; none, and the network is not needed, where the lock names nothing.

    Raises:
        NotLocked: They cannot be had.
    """
    if names_in(_text(project / LOCK)):
        for target in Settings.read(project).targets:
            given = ["--no-deps", "--require-hashes", f"--dest={directory}", f"--requirement={project / LOCK}"]
            try:
                _run(target.pip("download", *given))
            except NothingFound as error:
                raise NotLocked(f"{LOCK}: there is no wheel of {error} for {target}") from None
    return sorted(directory.glob("*.whl"))


def _python() -> str:
    """One that has pip: Debian's own has none, unless somebody has installed it."""
    own = PROJECT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _wanted(project: Path) -> list[str]:
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in _text(project / WANTED).splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not REQUIREMENT.fullmatch(line):
            raise NotLocked(f"{WANTED}, line {number}: must name a library, as in name>=2.1, not {line!r}")
    return [line for line in lines if line]


def _pinned(project: Path, settings: Settings) -> dict[str, str]:
    """The libraries that nodes have of Debian, with their versions there."""
    lines = [line.strip().split("==") for line in _text(project / PINNED).splitlines() if "==" in line]
    return {normalised(name): version for name, version in lines if normalised(name) in settings.from_debian}


def _choose(settings: Settings, wanted: Sequence[str], pinned: Mapping[str, str]) -> dict[Target, list[Wheel]]:
    """Ask until all kinds of nodes agree about the versions: where they differ, about the lowest of them."""
    agreed: dict[str, str] = {}
    for _ in settings.targets:
        chosen = _ask_all(settings.targets, wanted, pinned, agreed)
        versions = defaultdict[str, set[str]](set)
        for wheel in (wheel for wheels in chosen.values() for wheel in wheels):
            versions[wheel.name].add(wheel.version)
        different = {name: min(found, key=_comparable) for name, found in versions.items() if len(found) > 1}
        if not different:
            return chosen
        agreed |= different
    raise NotLocked(f"there is no version for all nodes: {', '.join(sorted(different))}; name one in {WANTED}")


def _comparable(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _ask_all(
    targets: Sequence[Target], wanted: Sequence[str], pinned: Mapping[str, str], agreed: Mapping[str, str]
) -> dict[Target, list[Wheel]]:
    with tempfile.TemporaryDirectory(prefix="lock-") as scratch:
        constraints, stubs = Path(scratch, "constraints.txt"), Path(scratch, "debian")
        stubs.mkdir()
        # What Debian has needs no wheel, and brings no further ones. A local version is found nowhere else.
        debian = {name: f"{version}+debian" for name, version in pinned.items()}
        for name, version in debian.items():
            write_wheel(stubs, name, {}, version=version)
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in {**debian, **agreed}.items()))
        given = [f"--constraint={constraints}", f"--find-links={stubs}", f"--target={scratch}/target"]

        def ask(target: Target, requirements: Sequence[str]) -> list[Wheel]:
            return [wheel for wheel in _ask(target, given, requirements) if wheel.name not in debian]

        try:
            return {target: ask(target, wanted) for target in targets}
        except NothingFound:
            raise NotLocked(_explain(targets, wanted, ask)) from None


def _ask(target: Target, given: Sequence[str], requirements: Sequence[str]) -> list[Wheel]:
    asked = ["--dry-run", "--ignore-installed", "--report=-", *given, "--", *requirements]
    report = json.loads(_run(target.pip("install", *asked)))
    return [_wheel(item) for item in report["install"]]


def _wheel(item: dict[str, Any]) -> Wheel:
    archive, about = item["download_info"]["archive_info"], item["metadata"]
    hashes = archive.get("hashes", {})  # pip 23.0 has only the other one
    digest = hashes.get("sha256") or archive["hash"].removeprefix("sha256=")
    return Wheel(normalised(about["name"]), about["version"], digest)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    if done.returncode == 0:
        return done.stdout
    if found := NOTHING_FOUND.search(done.stderr):
        raise NothingFound(found["what"], found["name"])
    if "No module named pip" in done.stderr:
        raise NotLocked("there is no pip: let packaging/test make .venv, or install python3-pip")
    said = "\n".join(done.stderr.strip().splitlines()[-LINES_OF_PIP:])
    raise NotLocked(f"pip says:\n{said}")


def _explain(
    targets: Sequence[Target], wanted: Sequence[str], ask: Callable[[Target, Sequence[str]], object]
) -> str:
    """What has no wheel, and where; each line with what to do."""
    lacks = defaultdict[str, list[Target]](list)
    for target in targets:
        for requirement in wanted:
            try:
                ask(target, [requirement])
            except NothingFound as error:
                own = REQUIREMENT.fullmatch(requirement)
                is_own = own is not None and normalised(own["name"]) == error.name
                lacks[str(error) if is_own else f"{error} (which {requirement} needs)"].append(target)
    if not lacks:
        return f"the lines of {WANTED} can be had one by one, but not together: leave a version open"
    return "\n".join(_lack(what, there, targets) for what, there in sorted(lacks.items()))


def _lack(what: str, there: Sequence[Target], targets: Sequence[Target]) -> str:
    name = re.split(r"[^\w.-]", what)[0]
    if not _is_known(name, targets):
        return f"{name}: the index does not know it: is it written like that in {WANTED}?"
    text = f"{what}: no wheel for {', '.join(map(str, there))}"
    if packages := _of_debian(name):
        own = " or ".join(packages)
        return f"{text}; Debian has {own}: name that in [tool.ivy] debian of pyproject.toml, and not in {WANTED}"
    return (
        f"{text}; Debian, as apt-cache knows it here, has no python3-{normalised(name)}: choose another version or"
        " library, or leave these nodes out in [tool.ivy] of pyproject.toml"
    )


def _is_known(name: str, targets: Sequence[Target]) -> bool:
    """Whether there is anything of it: a wheel for some kind of node, or sources."""
    question = ["index", "--disable-pip-version-check", "versions", name]
    questions = [[_python(), "-m", "pip", *question], *(target.pip(*question) for target in targets)]
    return any(subprocess.run(one, capture_output=True, timeout=MOST_SECONDS).returncode == 0 for one in questions)


def _of_debian(name: str) -> list[str]:
    """Debian's packages that may be a library: they are named after what is imported, with or without the `py`."""
    name = normalised(name)
    shorter = re.sub(r"^(python-?|py-?)|-python$", "", name)
    return [f"python3-{one}" for one in dict.fromkeys([name, shorter]) if one and _is_package(f"python3-{one}")]


def _is_package(name: str) -> bool:
    try:
        asked = subprocess.run(["apt-cache", "show", name], capture_output=True, timeout=MOST_SECONDS)
    except FileNotFoundError:
        return False
    return asked.returncode == 0


def _line(name: str, version: str, chosen: Mapping[Target, Sequence[Wheel]]) -> str:
    """What pip reads, with the hash of each wheel that was chosen, and a marker where not all nodes need it."""
    found = {target: wheel.digest for target, wheels in chosen.items() for wheel in wheels if wheel.name == name}
    several = len({target.python for target in chosen}) > 1
    terms = [
        f'platform_machine == "{target.machine}"' + (f' and python_version == "{target.python}"' if several else "")
        for target in sorted(found)
    ]
    marker = f" ; {' or '.join(terms)}" if len(found) < len(chosen) else ""
    hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted({*found.values()}))
    return f"{name}=={version}{marker}{hashes}\n"
