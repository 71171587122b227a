"""Cached Debian roots: made once with mmdebstrap, used as the lowest layer of every node and every build.

A root is named by a hash of its recipe, so a changed recipe (and a changed debian/control) makes a new root.
It is made beside its place and renamed: it is there as a whole or not at all. Nothing writes to it later.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from pathlib import Path

import node_needs

from testbed.emulation import architecture, ensure_emulation, makers, native, slowness
from testbed.network import locked
from testbed.overlay import is_lower_layer, remove_tree, throwaway
from testbed.run import BedError, progress, run
from testbed.tools import ensure_tools

CACHE = Path("/var/cache/ivy-testbed")
PROJECT = Path(__file__).resolve().parents[2]
SUITE = "trixie"  # of the nodes in the field, and what the package is built in
RECIPE_VERSION = 1  # raise it when a root's making changes in a way that its recipe does not show
POOL_VERSION = 4  # the same, for node roots
POOL = "srv/debian"  # in a node root: the packages that `apt install` finds without network
UPGRADE_POOL = "srv/upgrade"  # in the layer of `upgrade_layer`: those that `apt full-upgrade` finds
SECONDS_TO_MAKE = 1200
UNUSED_DAYS = 14
UNUSED_DAYS_OF_A_LAYER = 1
BUILDER = "builder"  # the user in a build or lint root
BUILDER_ID = 1000
ADD_BUILDER = f'chroot "$1" useradd --uid {BUILDER_ID} --home-dir /nonexistent {BUILDER}'

# What ivy is installed with, and what is useful beside it; those in debian/control are added to it.
DEPENDENCIES = (
    "git",
    "openssh-client",
    "python3",
    "python3-filelock",
    "python3-paho-mqtt",
    "python3-psutil",
    "python3-pydantic",
    "python3-pytest",
    "python3-sdnotify",
    "python3-systemd",
    "sqlite3",
)
# What a person or a test looks into a node with.
INSTRUMENTS = (
    "faketime",
    "gnuplot-nox",
    "iproute2",
    "less",
    "mosquitto-clients",
    "nftables",
    "openssh-server",
    "procps",
    "python3-venv",
    "strace",
    "unattended-upgrades",
)
# Debian has another package of the same name, with these versions, and every node of a fleet sees it. The bed's
# nodes see a stand-in: name, version and what APT knows of its origin are as in Debian, its content is a mark.
NAMESAKE_VERSIONS = {"bookworm": "2.5.1-2", "trixie": "2.5.3-1", "forky": "2.6.0-1"}
ARCHIVES = {"bookworm": "oldstable", "trixie": "stable", "forky": "testing"}
NAMESAKE_MARK = "usr/share/java/ivy.jar"
NAMESAKE = """\
Package: ivy
Version: {version}
Architecture: all
Maintainer: Debian Java Maintainers <pkg-java-maintainers@lists.alioth.debian.org>
Section: java
Priority: optional
Homepage: https://ant.apache.org/ivy/
Description: agile dependency manager
 A stand-in for Debian's package of Apache Ivy.
"""
POOL_RELEASE = """\
Origin: {origin}
Label: {origin}
Suite: {archive}
Codename: {suite}
Date: {date}
Architectures: all amd64 arm64
Components: main
SHA256:
 {digest} {size} Packages
"""
# What tests without nodes call, beside Python.
TEST_TOOLS = ("git", "gnuplot-nox", "groff-base", "openssh-client", "openssl", "procps", "shellcheck", "strace")
# Timers that would load a node at a time of their own choosing, and need a network or a disk that it has not.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer")
# What systemd runs at each reload, and what finds nothing to do in a container: two fifths of what a reload costs.
# The tests of nodes make thousands of these.
NEEDLESS_GENERATORS = (
    "debug",
    "getty",
    "gpt-auto",
    "hibernate-resume",
    "rc-local",
    "run",
    "ssh",
    "system-update",
    "sysv",
    "tpm2",
)

OFFLINE_APT = """\
// Packages come from the test bed's own pool: there is no network in here.
Acquire::Languages "none";
"""
FAST_DPKG = "# A test bed's node is thrown away: do not wait for the disk after each file.\nforce-unsafe-io\n"
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


@dataclass(frozen=True)
class Recipe:
    kind: str
    include: tuple[str, ...]
    hooks: tuple[str, ...] = ()  # shell commands with the root as $1: mmdebstrap's own way
    version: int = RECIPE_VERSION
    suite: str = field(default_factory=lambda: suite())
    arch: str = field(default_factory=native)

    @property
    def path(self) -> Path:
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]
        return CACHE / f"{self.kind}-{digest}"


def suite() -> str:
    """Which Debian. One for all that a run starts, so it crosses by the environment."""
    return os.environ.get("IVY_SUITE") or SUITE


def node_root(of: str | None = None) -> Path:
    """What a node boots: a bare Debian with systemd and man, and beside it the packages that ivy depends on."""
    download = 'chroot "$1" apt-get install --yes --quiet --download-only'
    hooks = (
        'chroot "$1" apt-get clean',
        f"{download} {shlex.join(dependencies())}",
        f"{download} --no-install-recommends {shlex.join(INSTRUMENTS)}",
        f'mkdir -p "$1/{POOL}"',
        f'mv "$1"/var/cache/apt/archives/*.deb "$1/{POOL}/"',
    )
    include = ("systemd", "systemd-sysv", "dbus", "ca-certificates", "man-db")
    return _cached(Recipe("node", include, hooks, version=POOL_VERSION, suite=of or suite()))


def build_root() -> Path:
    """Where the package is built: what every Debian build has, and the Build-Depends of debian/control."""
    return _cached(Recipe("build", ("build-essential", "fakeroot"), _build_dependencies()))


def testing_root() -> Path:
    """Where tests without nodes run in another Debian, or on another processor: the Build-Depends, what the tests
    themselves call, and what ivy is installed with.
    """
    include = ("build-essential", *TEST_TOOLS, *dependencies())
    return _cached(Recipe("test", include, _build_dependencies(), arch=architecture()))


def lint_root() -> Path:
    """Where lintian looks at the package."""
    return _cached(Recipe("lint", ("lintian",), (ADD_BUILDER,)))


def tools_root(packages: tuple[str, ...]) -> Path:
    """Where Debian's tools run that a machine may have in another version."""
    return _cached(Recipe("tools", packages))


def upgrade_layer(to: str) -> Path:
    """A layer upon the usual `node_root`: all packages that a node with ivy wants for an upgrade to a Debian."""
    base = node_root(SUITE)
    layer = CACHE / f"upgrade-{base.name.partition('-')[2]}-{to}"
    with locked(CACHE):
        if not layer.exists():
            beside = layer.with_name(f".{layer.name}.new")
            remove_tree(beside)
            _download_upgrade(base, to, beside)
            beside.rename(layer)
    return layer


def _download_upgrade(base: Path, to: str, layer: Path) -> None:
    """By doing on a copy what the node will do. Without ivy: Debian has another package of that name."""
    progress(f"downloading what an upgrade to {to} takes (once; some minutes)")
    log = CACHE / "upgrade.log"
    log.unlink(missing_ok=True)
    with throwaway(base) as root:
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        apt = ["chroot", str(root), "apt-get", "--yes", "--quiet"]
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run([*apt, "install", *dependencies()], env=quiet, log=log, timeout=600)
        (root / "etc/apt/sources.list").write_text(f"{_source(to)}\n")
        for step in (["clean"], ["update"], ["full-upgrade", "--download-only"]):
            run([*apt, *step], env=quiet, log=log, timeout=1200, hint=f"All of it: {log}")
        (layer / POOL).mkdir(parents=True)
        for archive in (root / "var/cache/apt/archives").glob("*.deb"):
            shutil.move(archive, layer / POOL)
    add_namesake(layer / POOL, NAMESAKE_VERSIONS[to])
    index_pool(layer / POOL, to)
    (layer / POOL).rename(layer / UPGRADE_POOL)


def dependencies() -> list[str]:
    """The packages that ivy is installed with."""
    return sorted({*DEPENDENCIES, *control_packages("Depends", "Recommends"), *node_needs.read("debian")})


def _source(of: str) -> str:
    """A line of sources.list(5)."""
    return f"deb {mirror()} {of} main"


def mirror() -> str:
    """A URL, perhaps after options in brackets."""
    return os.environ.get("IVY_DEBIAN_MIRROR", "http://deb.debian.org/debian")


def _build_dependencies() -> tuple[str, ...]:
    # Tests may import what procedures do.
    needed = ", ".join([control_field("Build-Depends"), *node_needs.read("debian")])
    stanza = f"Source: ivy\\nMaintainer: nobody\\nBuild-Depends: {needed}\\n"
    return (
        'mkdir -p "$1/tmp/source/debian"',
        f'printf %b {shlex.quote(stanza)} >"$1/tmp/source/debian/control"',
        'chroot "$1" apt-get build-dep --yes --quiet --no-install-recommends /tmp/source',
        'rm -r "$1/tmp/source"',
        ADD_BUILDER,
    )


def kept_layer(kind: str, of: bytes, make: Callable[[], Path]) -> Path:
    """A layer that is made once on this machine, and by one process while others wait for it.

    Args:
        kind: What it is, in a word.
        of: What it is made of. When that changes, it is made again.
        make: Makes it anywhere.

    Returns: Where it is kept; or where it was made, if that is on another disk than the roots.
    """
    kept = CACHE / "layers" / f"{kind}-{hashlib.sha256(of).hexdigest()[:12]}"
    with locked(kept.parent):
        if not kept.exists():
            _remove_unused(kept.parent / kind, UNUSED_DAYS_OF_A_LAYER)
            made = make()
            if made.stat().st_dev != kept.parent.stat().st_dev:
                return made
            made.rename(kept)
        os.utime(kept)
    return kept


def control_field(name: str, control: Path = PROJECT / "debian/control") -> str:
    """All values of a field in debian/control, in one line; empty if there is no such file or field."""
    if not control.exists():
        return ""
    text = re.sub(r"(?m)^#.*\n", "", control.read_text())
    values = re.findall(rf"(?m)^{name}:((?:.*\n)(?:[ \t].*\n)*)", text)
    return ", ".join(" ".join(value.split()).strip(", ") for value in values)


def control_packages(*fields: str) -> set[str]:
    """The names in dependency fields: the first of alternatives; no versions, no substitution variables, nothing
    that is built here."""
    entries = [entry.strip() for field in fields for entry in control_field(field).split(",")]
    names = (re.match(r"[a-z0-9][a-z0-9+.-]+", entry) for entry in entries)
    return {name.group() for name in names if name} - set(control_field("Package").split(", "))


def _cached(recipe: Recipe) -> Path:
    if not recipe.path.exists():  # whoever needs one that is there does not wait for another one
        with locked(CACHE):
            if not recipe.path.exists():
                ensure_tools(makers(recipe.arch))
                ensure_emulation(recipe.arch)
                _remove_unused(CACHE / recipe.kind)
                _make(recipe)
    os.utime(recipe.path)
    return recipe.path


def _make(recipe: Recipe) -> None:
    how_long = "about a minute" if recipe.arch == native() else "a quarter of an hour"
    progress(f"making the {recipe.kind} root of {recipe.suite} from {mirror()} (once; {how_long})")
    began = time.monotonic()
    beside = recipe.path.with_name(f".{recipe.path.name}.new")
    remove_tree(beside)
    _mmdebstrap(recipe, beside)
    _settle(beside)
    if recipe.kind == "node":
        _furnish_node(beside, recipe.suite)
    beside.rename(recipe.path)
    progress(f"made {recipe.path} in {time.monotonic() - began:.0f} s")


def _mmdebstrap(recipe: Recipe, target: Path) -> None:
    log = CACHE / f"{recipe.kind}.log"
    log.unlink(missing_ok=True)
    options = ["--variant=minbase", f"--architectures={recipe.arch}", '--aptopt=Acquire::Languages "none"']
    include = f"--include={','.join(recipe.include)}"
    hooks = [f"--customize-hook={hook}" for hook in recipe.hooks]
    hint = (
        f"All of it: {log}\nMaking a root needs the network, once. The environment can name another mirror: "
        "IVY_DEBIAN_MIRROR=http://mirror.example/debian, with options of sources.list(5) before it if it needs any."
    )
    # (Of a mere URL it finds out itself which keys are the right ones.)
    source = _source(recipe.suite) if mirror().startswith("[") else mirror()
    command = ["mmdebstrap", *options, include, *hooks, recipe.suite, str(target), source]
    run(command, timeout=SECONDS_TO_MAKE * slowness(recipe.arch), log=log, hint=hint)


def _settle(root: Path) -> None:
    """Take away what mmdebstrap copies from this machine."""
    (root / "etc/hostname").unlink(missing_ok=True)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").touch()
    (root / "etc/hosts").write_text(HOSTS)


def _furnish_node(root: Path, of: str) -> None:
    for timer in MASKED:
        (root / "etc/systemd/system" / timer).symlink_to("/dev/null")
    generators = root / "etc/systemd/system-generators"
    generators.mkdir()
    for name in NEEDLESS_GENERATORS:
        (generators / f"systemd-{name}-generator").symlink_to("/dev/null")
    (root / "etc/dpkg/dpkg.cfg.d/testbed").write_text(FAST_DPKG)
    (root / "var/lib/man-db/auto-update").unlink(missing_ok=True)  # the index of pages, after each package
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    (root / "etc/apt/apt.conf.d/99testbed").write_text(OFFLINE_APT)
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:/{POOL} ./\n")
    add_namesake(root / POOL, NAMESAKE_VERSIONS[of])
    index_pool(root / POOL, of)
    run(["chroot", root, "apt-get", "update"])
    # The first boot does this otherwise, in every node again.
    for chore in (["ldconfig"], ["systemd-hwdb", "update"], ["journalctl", "--update-catalog"]):
        run(["chroot", root, *chore], check=False)
    for stamp in ("etc/.updated", "var/.updated"):
        (root / stamp).touch()
    (root / "etc/machine-id").write_text("")


def index_pool(pool: Path, of: str, origin: str = "Debian") -> None:
    """A pool's Packages file (deb822, see "man 5 deb-control"), and what APT takes for its origin."""
    archives = sorted(pool.glob("*.deb"))
    if not archives:
        raise BedError(f"no packages were downloaded to {pool}", f"See {CACHE}/node.log")
    index = "\n".join(_index_entry(archive) for archive in archives)
    (pool / "Packages").write_text(index)
    describe_pool(pool, of, origin)


def describe_pool(pool: Path, of: str, origin: str) -> None:
    """The second of them alone, for packages that are the same as before."""
    index = (pool / "Packages").read_text()
    digest = hashlib.sha256(index.encode()).hexdigest()
    release = POOL_RELEASE.format(
        origin=origin,
        suite=of,
        archive=ARCHIVES[of],
        date=formatdate(usegmt=True),
        digest=digest,
        size=len(index.encode()),
    )
    (pool / "Release").write_text(release)


def add_namesake(pool: Path, version: str) -> None:
    """Debian's own package `ivy`, which is not ours, into a pool."""
    tree = pool / ".namesake"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(NAMESAKE.format(version=version))
    (tree / NAMESAKE_MARK).parent.mkdir(parents=True)
    (tree / NAMESAKE_MARK).touch()
    run(["dpkg-deb", "--build", "--root-owner-group", tree, pool / f"ivy_{version.split(':')[-1]}_all.deb"])
    remove_tree(tree)


def _index_entry(archive: Path) -> str:
    control = run(["dpkg-deb", "--field", archive]).stdout.rstrip()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return f"{control}\nFilename: ./{archive.name}\nSize: {archive.stat().st_size}\nSHA256: {digest}\n"


def _remove_unused(kind: Path, most_days: float = UNUSED_DAYS) -> None:
    """Earlier ones of this kind, if nothing is mounted on them and nobody asked for them for so long."""
    for root in kind.parent.glob(f"{kind.name}-*"):
        unused_days = (time.time() - root.stat().st_mtime) / 86400
        if unused_days > most_days and not is_lower_layer(root):
            remove_tree(root)
