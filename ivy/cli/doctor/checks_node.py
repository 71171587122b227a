"""`ivy doctor`: the node itself. Config, permissions, disk, clock, Python, package, services."""

import grp
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ivy import constants, overview
from ivy.cli.doctor.finding import Finding
from ivy.types.config import Config, ConfigError
from ivy.utils.host import clock, commands, mounts, units
from ivy.utils.updates import environment
from ivy.utils.updates.releases import Releases

_LEAST_FREE_INODES = 1000
_MANY_RESTARTS = 5
_EDIT = "sudo ivy config edit"
# What tells our package from another's. Not its description: where an index has no checksums of them, as small
# repositories have not, APT shows the one of another package with the same name.
_DEPENDS_AS_OURS = r"(?m)^Depends: .*\bpython3-pydantic\b"
_KEEP_PACKAGE = (
    f"sudo apt-mark hold {constants.NAME}; then see that /etc/apt/preferences.d/{constants.NAME} is there, as the "
    "README has it, and install this package again"
)
_SECONDS_OF_APT = 30


def config() -> tuple[Config | None, Finding]:
    """Whether the active config can be used. Returns it, too."""
    try:
        found = Config.load()
    except ConfigError as error:
        return None, Finding("config", str(error).replace("\n", "; "), f"correct it: {_EDIT}")
    general = found.general
    text = f"revision {general.config_revision} for version {general.software_version} is valid"
    return found, Finding("config", text)


def permissions() -> Iterator[Finding]:
    """Whether the releases are root's, the data the services', and secrets nobody else's."""
    releases, data = Releases(), Path(constants.IVY_DATA_DIR)
    version = releases.current()
    if version is None:
        remedy = "install the package: apt install ivy"
        yield Finding("permissions", f"{releases.root} has no current release", remedy)
        return
    group = _group_id()
    wrong = [
        *_wrong(releases.directory(version), 0o022, "chown -R root:root {0}; chmod go-w {0}"),
        *_wrong(releases.config_file(version), 0o027, "chmod 640 {0}"),
    ]
    if data.stat().st_gid != group:
        wrong.append(Finding("permissions", f"{data} is not the services'", f"chown -R ivy:ivy {data}"))
    yield from wrong or [Finding("permissions", "the release is root's, the data the services', the config secret")]


def disk(config: Config | None) -> Iterator[Finding]:
    """Whether there is room."""
    found, wanted = mounts.disk(), config.queue.min_free_megabytes if config else 0
    if found.free_megabytes < wanted:
        text = f"{found.free_megabytes} MB are free, and queue.min_free_megabytes is {wanted}"
        yield Finding("disk", text, "make room: journalctl --vacuum-size=100M; apt clean; see archive.max_days")
    elif found.free_files is not None and found.free_files < _LEAST_FREE_INODES:
        yield Finding("disk", f"only {found.free_files} files more are possible", "remove small files: df -i")
    elif found.read_only:
        remedy = "look for errors: dmesg | grep -i error; is the card worn?"
        yield Finding("disk", "the file system is read-only", remedy)
    else:
        yield Finding("disk", f"{found.free_megabytes} MB are free")


def storage() -> Iterator[Finding]:
    """Whether what is stored survives a boot."""
    if lost := mounts.lost_places():
        yield Finding("storage", f"{mounts.LOST}: {', '.join(lost)}", mounts.WAY_OUT)
    else:
        yield Finding("storage", "nothing says that the next boot loses what is stored here")


def time() -> Finding:
    """Whether the clock can be trusted."""
    if (synchronised := clock.is_synchronised()) is False:
        remedy = "timedatectl set-ntp true; is there a network, and a time server that answers?"
        return Finding("clock", "it is not synchronised, so samples are marked", remedy)
    text = "it is synchronised" if synchronised else "nobody here can tell, samples count as right"
    return Finding("clock", text)


def python() -> Iterator[Finding]:
    """Whether the release runs with its own environment."""
    releases = Releases()
    version = releases.current()
    if version is None or not environment.fits(releases.directory(version)):
        remedy = "systemctl start ivy-updater, which makes it again; then see journalctl -u ivy-updater"
        yield Finding("python", "the release's environment is none for the Python that is installed", remedy)
    else:
        yield Finding("python", f"{environment.python_of(releases.directory(version))} fits")


def package() -> Iterator[Finding]:
    """Whether APT takes another package of this name, such as Debian's Apache Ivy, for the newer one."""
    known = dict(re.findall(r"(?m)^  (Installed|Candidate): (\S+)$", _apt_cache("policy", constants.NAME)))
    installed, candidate = known.get("Installed", "(none)"), known.get("Candidate", "(none)")
    if installed == "(none)":
        yield Finding("package", f"APT has not installed {constants.NAME} here, and does not upgrade it")
        return
    for version, what_it_does in ((installed, "is installed"), (candidate, "would replace it at the next upgrade")):
        record = _apt_cache("show", "--no-all-versions", f"{constants.NAME}={version}")
        if version != "(none)" and not re.search(_DEPENDS_AS_OURS, record):
            maintainer = re.search(r"(?m)^Maintainer: (.*)$", record)
            by = maintainer[1] if maintainer else "somebody unknown"
            text = f"{constants.NAME} {version} {what_it_does}, which is another package of the name, by {by}"
            yield Finding("package", text, _KEEP_PACKAGE)
            return
    yield Finding("package", f"{constants.NAME} {installed} is installed, and APT would take {candidate}")


def services() -> Iterator[Finding]:
    """Whether the services run, are watched, and are in their sandbox."""
    try:
        found = [service for service in overview.services() if service.name != overview.PASS]
    except commands.CommandError as error:
        yield Finding("units", str(error), "is this a node, with systemd?")
        return
    if not found:
        remedy = "systemctl daemon-reload; journalctl -b | grep ivy-generator"
        yield Finding("units", f"{units.TARGET} wants no service", remedy)
        return
    bad = [service for service in found if not service.well or service.restarts >= _MANY_RESTARTS]
    for service in bad:
        text = f"{service.name} is {service.state}, restarted {service.restarts} times"
        yield Finding("units", text, f"journalctl -u {service.name} -n 50; then: sudo ivy restart")
    if not bad:
        yield Finding("units", f"{len(found)} services run")
    for service in (service for service in found if not service.confined):
        remedy = f"a drop-in loosens it: systemctl cat {service.name}; systemd-analyze security {service.name}"
        yield Finding("sandbox", f"{service.name} may do more than it needs", remedy)
    if all(service.confined for service in found):
        yield Finding("sandbox", "every service is without rights, and can write only its data")
    for service in (service for service in found if not service.watched):
        text = f"{service.name} has none: should it hang, nobody notices"
        yield Finding("watchdogs", text, f"systemctl cat {service.name}")
    if all(service.watched for service in found):
        yield Finding("watchdogs", "every service has one")


def _apt_cache(*arguments: str) -> str:
    """Ask APT; no answer where there is none."""
    try:
        return commands.run(["env", "LC_ALL=C", "apt-cache", *arguments], timeout=_SECONDS_OF_APT)
    except commands.CommandError:
        return ""


def _wrong(path: Path, forbidden: int, remedy: str) -> Iterator[Finding]:
    status = path.stat()
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & forbidden:
        text = f"{path} has the mode {stat.S_IMODE(status.st_mode):04o} and the owner {status.st_uid}"
        yield Finding("permissions", text, remedy.format(path))


def _group_id() -> int:
    try:
        return grp.getgrnam(constants.NAME).gr_gid
    except KeyError:
        return -1
