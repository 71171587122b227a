"""Cached Debian 13 roots: made once with mmdebstrap, used as the lowest layer of every node and every build.

A root is named by a hash of its recipe, so a changed recipe (and a changed debian/control) makes a new root.
It is made beside its place and renamed: it is there as a whole or not at all. Nothing writes to it later.
"""

import hashlib
import json
import os
import re
import shlex
import time
from dataclasses import asdict, dataclass
from email.utils import formatdate
from pathlib import Path

from testbed.network import locked
from testbed.overlay import is_lower_layer, remove_tree
from testbed.run import BedError, progress, run
from testbed.tools import ensure_tools

CACHE = Path("/var/cache/ivy-testbed")
PROJECT = Path(__file__).resolve().parents[2]
SUITE = "trixie"
RECIPE_VERSION = 1  # raise it when a root's making changes in a way that its recipe does not show
POOL_VERSION = 3  # the same, for node roots
POOL = "srv/debian"  # in a node root: the packages that `apt install` finds without network
UNUSED_DAYS = 14
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
    "iproute2",
    "less",
    "librsvg2-bin",
    "man-db",
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
# Timers that would load a node at a time of their own choosing, and need a network or a disk that it has not.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer")

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
    suite: str = SUITE

    @property
    def path(self) -> Path:
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]
        return CACHE / f"{self.kind}-{digest}"


def node_root() -> Path:
    """What a node boots: a bare Debian 13 with systemd, and beside it the packages that ivy depends on."""
    wanted = sorted({*DEPENDENCIES, *control_packages("Depends", "Recommends")})
    download = 'chroot "$1" apt-get install --yes --quiet --download-only'
    hooks = (
        'chroot "$1" apt-get clean',
        f"{download} {shlex.join(wanted)}",
        f"{download} --no-install-recommends {shlex.join(INSTRUMENTS)}",
        f'mkdir -p "$1/{POOL}"',
        f'mv "$1"/var/cache/apt/archives/*.deb "$1/{POOL}/"',
    )
    include = ("systemd", "systemd-sysv", "dbus", "ca-certificates")
    recipe = Recipe("node", include, hooks, version=POOL_VERSION)
    return _cached(recipe)


def build_root() -> Path:
    """Where the package is built: what every Debian build has, and the Build-Depends of debian/control."""
    stanza = f"Source: ivy\\nMaintainer: nobody\\nBuild-Depends: {control_field('Build-Depends')}\\n"
    hooks = (
        'mkdir -p "$1/tmp/source/debian"',
        f'printf %b {shlex.quote(stanza)} >"$1/tmp/source/debian/control"',
        'chroot "$1" apt-get build-dep --yes --quiet --no-install-recommends /tmp/source',
        'rm -r "$1/tmp/source"',
        ADD_BUILDER,
    )
    return _cached(Recipe("build", ("build-essential", "fakeroot"), hooks))


def lint_root() -> Path:
    """Where lintian looks at the package."""
    return _cached(Recipe("lint", ("lintian",), (ADD_BUILDER,)))


def control_field(name: str, control: Path = PROJECT / "debian/control") -> str:
    """All values of a field in debian/control, in one line; empty if there is no such file or field."""
    if not control.exists():
        return ""
    text = re.sub(r"(?m)^#.*\n", "", control.read_text())
    values = re.findall(rf"(?m)^{name}:((?:.*\n)(?:[ \t].*\n)*)", text)
    return ", ".join(" ".join(value.split()).strip(", ") for value in values)


def control_packages(*fields: str) -> set[str]:
    """The names in dependency fields: the first of alternatives; no versions, no substitution variables."""
    entries = [entry.strip() for field in fields for entry in control_field(field).split(",")]
    names = (re.match(r"[a-z0-9][a-z0-9+.-]+", entry) for entry in entries)
    return {name.group() for name in names if name}


def _cached(recipe: Recipe) -> Path:
    with locked(CACHE):
        if not recipe.path.exists():
            ensure_tools(["mmdebstrap"])
            _remove_unused(recipe.kind)
            _make(recipe)
        os.utime(recipe.path)
    return recipe.path


def _make(recipe: Recipe) -> None:
    mirror = os.environ.get("IVY_DEBIAN_MIRROR", "http://deb.debian.org/debian")
    progress(f"making the {recipe.kind} root from {mirror} (once; about a minute)")
    began = time.monotonic()
    beside = recipe.path.with_name(f".{recipe.path.name}.new")
    remove_tree(beside)
    _mmdebstrap(recipe, beside, mirror)
    _settle(beside)
    if recipe.kind == "node":
        _furnish_node(beside)
    beside.rename(recipe.path)
    progress(f"made {recipe.path} in {time.monotonic() - began:.0f} s")


def _mmdebstrap(recipe: Recipe, target: Path, mirror: str) -> None:
    log = CACHE / f"{recipe.kind}.log"
    log.unlink(missing_ok=True)
    options = ["--variant=minbase", '--aptopt=Acquire::Languages "none"']
    include = f"--include={','.join(recipe.include)}"
    hooks = [f"--customize-hook={hook}" for hook in recipe.hooks]
    hint = (
        f"All of it: {log}\nMaking a root needs the network, once. The environment can name another mirror: "
        "IVY_DEBIAN_MIRROR=http://mirror.example/debian"
    )
    command = ["mmdebstrap", *options, include, *hooks, recipe.suite, str(target), mirror]
    run(command, timeout=1200, log=log, hint=hint)


def _settle(root: Path) -> None:
    """Take away what mmdebstrap copies from this machine."""
    (root / "etc/hostname").unlink(missing_ok=True)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").touch()
    (root / "etc/hosts").write_text(HOSTS)


def _furnish_node(root: Path) -> None:
    for timer in MASKED:
        (root / "etc/systemd/system" / timer).symlink_to("/dev/null")
    (root / "etc/dpkg/dpkg.cfg.d/testbed").write_text(FAST_DPKG)
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    (root / "etc/apt/apt.conf.d/99testbed").write_text(OFFLINE_APT)
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:/{POOL} ./\n")
    add_namesake(root / POOL, NAMESAKE_VERSIONS[SUITE])
    index_pool(root / POOL)
    run(["chroot", root, "apt-get", "update"])
    # The first boot does this otherwise, in every node again.
    for chore in (["ldconfig"], ["systemd-hwdb", "update"], ["journalctl", "--update-catalog"]):
        run(["chroot", root, *chore], check=False)
    for stamp in ("etc/.updated", "var/.updated"):
        (root / stamp).touch()
    (root / "etc/machine-id").write_text("")


def index_pool(pool: Path, origin: str = "Debian") -> None:
    """The pool's Packages file (deb822, see "man 5 deb-control"), and what APT takes for its origin."""
    archives = sorted(pool.glob("*.deb"))
    if not archives:
        raise BedError(f"no packages were downloaded to {pool}", f"See {CACHE}/node.log")
    index = "\n".join(_index_entry(archive) for archive in archives)
    (pool / "Packages").write_text(index)
    digest = hashlib.sha256(index.encode()).hexdigest()
    release = POOL_RELEASE.format(
        origin=origin,
        suite=SUITE,
        archive=ARCHIVES[SUITE],
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


def _remove_unused(kind: str) -> None:
    """Earlier roots of this kind, if nothing is mounted on them and nobody asked for them for two weeks."""
    for root in CACHE.glob(f"{kind}-*"):
        unused_days = (time.time() - root.stat().st_mtime) / 86400
        if unused_days > UNUSED_DAYS and not is_lower_layer(root):
            remove_tree(root)
