"""`ivy doctor`: the node itself. Config, permissions, disk, clock, Python, package, services."""

import contextlib
import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ivy import constants, overview
from ivy.cli.doctor import checks_sandbox
from ivy.cli.doctor.finding import TRY_SUDO, Finding
from ivy.types import accepted_config, secrets, secrets_file
from ivy.types.config import Config, ConfigError, lost_secrets, split_text, why_unknown
from ivy.utils.functions import duration, procedure_names
from ivy.utils.host import clock, commands, endings, mounts, package_manager, rights, units
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE
from ivy.utils.storage import aside, trouble
from ivy.utils.updates import environment, manifest, needs
from ivy.utils.updates.errors import NodeTrouble, Rejected
from ivy.utils.updates.releases import Releases, bundled_version
from ivy.version import Version

_MANY_RESTARTS = 5
_MOST_NAMES = 5
_MEGABYTES_TO_RELOAD = 16  # systemd's RELOAD_DISK_SPACE_MIN
_EDIT = "sudo ivy config edit"
OWNERS = "sudo systemctl restart ivy-owners"
"""What to do about owners and modes."""

# What tells our package from another's. Not its description: where an index has no checksums of them, as small
# repositories have not, APT shows the one of another package with the same name.
_DEPENDS_AS_OURS = r"(?m)^Depends: .*\bpython3-pydantic\b"
_KEEP_PACKAGE = (
    f"sudo apt-mark hold {constants.NAME}; then see that /etc/apt/preferences.d/{constants.NAME} is there, as the "
    "README has it, and install this package again"
)
_SECONDS_OF_APT = 30
_DATA = constants.IVY_DATA_DIR
_OWNED = (
    # What the mode must not allow. Group `ivy` are all services.
    (constants.IVY_DATA_DIR, constants.NAME, 0o007),
    (constants.BACKEND_DIR, constants.BACKEND_USER, 0o027),
    (constants.BACKEND_RUN_DIR, constants.BACKEND_USER, 0o022),
    (constants.UPDATER_RUN_DIR, "root", 0o022),
    (os.path.join(constants.IVY_ROOT_DIR, "updates.json"), "root", 0o037),
    (os.path.join(constants.IVY_ROOT_DIR, "automation.lock"), "root", 0o077),
)
_OPEN_ALL = {"root", "shadow", "disk", "sudo", "adm", "docker"}
"""Groups with which a sandbox is none."""


def config() -> tuple[Config | None, Finding]:
    """Whether the active config can be used. Returns the one that is in use, too."""
    try:
        found, trouble = accepted_config.load()
    except ConfigError as error:
        if (why := rights.why_not_permitted(error)) is not None:
            return None, Finding("config", why, TRY_SUDO)
        return None, Finding("config", str(error).replace("\n", "; "), f"correct it: {_EDIT}")
    if trouble is not None:
        text = f"{trouble}; {accepted_config.IN_USE}".replace("\n", "; ")
        # What is there may be for root only.
        remedy = f"{_EDIT}; if it is damaged: sudo systemctl start ivy-updater, which restores it"
        return found, Finding("config", text, remedy)
    general = found.general
    text = f"revision {general.config_revision} for version {general.software_version} is valid"
    return found, Finding("config", text)


def config_link() -> Iterator[Finding]:
    """Whether the file that admins edit is the active config."""
    if (why := overview.config_link_trouble()) is not None:
        yield Finding("config", why, overview.LINK_REMEDY)


def name(config: Config) -> Iterator[Finding]:
    """Whether the platform can know the node by its name."""
    identifier = config.general.system_identifier
    if config.backend is None:
        return
    if (why := why_unknown(config.backend.provider, identifier)) is None:
        yield Finding("name", f"{config.backend.provider} is to know this node as {identifier}")
        return
    remedy = f"write the identifier that the sensor has in Tenta's dashboard: {_EDIT}"
    yield Finding("name", f"general.system_identifier: {why}", remedy)


def registration() -> Iterator[Finding]:
    """Whether the node was to register, and has not done so."""
    if os.path.exists(file := constants.PROVISION_FILE):
        remedy = f"see why: systemctl status {units.name_of('provision')}"
        yield Finding("registration", f"{file} is still there: the node is not registered by it", remedy)


def permissions() -> Iterator[Finding]:
    """Whether the releases are root's, the data the services', and secrets nobody else's."""
    releases, data = Releases(), Path(constants.IVY_DATA_DIR)
    version = releases.current()
    if version is None:
        remedy = "install the package: apt install ivy"
        yield Finding("permissions", f"{releases.root} has no current release", remedy)
        return
    group = _group_id()
    secret = sorted(releases.config_file(version).parent.glob("secrets*.json"))
    wrong = [
        *_wrong(releases.directory(version), 0o022),
        *(
            finding
            for config in (releases.config_file(version), releases.accepted_file(version))
            if config.exists()
            for finding in _wrong(config, 0o027)
        ),
        *(finding for kept in secret for finding in _wrong(kept, 0o077)),
    ]
    for path in _not_readable(releases, version, group):
        wrong.append(Finding("permissions", f"{path} is not for the services to read", OWNERS))
        break
    for path in _not_writable(data, group):
        wrong.append(Finding("permissions", f"{path} is not for the services to write", OWNERS))
        break
    yield from wrong or [Finding("permissions", "the release is root's, the data the services', the config secret")]
    yield _secrets(releases, version)


def _secrets(releases: Releases, version: Version) -> Finding:
    """Which of them the config has, and where they are."""
    text = releases.active_text()
    taken = split_text(text)[1]
    inside = split_text(secrets_file.read(releases.config_in_use(version)))[1]
    literal = [name for name, value in secrets.values(inside) if value != secrets.HIDDEN]
    if literal:
        text = f"{', '.join(literal)} can be read by all services, in {releases.config_file(version)}"
        return Finding("secrets", text, "sudo systemctl start ivy-updater, which takes them out of it")
    if not taken:
        return Finding("secrets", "the config has none")
    where = releases.config_file(version).with_name(secrets_file.NAME)
    if (lost := lost_secrets(text)) and (os.access(where, os.R_OK) or not where.exists()):
        said = f"{', '.join(lost)}: {secrets.HIDDEN} in the config, and {where} does not say what that is"
        remedy = f"sudo systemctl start ivy-updater, which looks for what ran before; else write the value: {_EDIT}"
        return Finding("secrets", said, remedy)
    names = ", ".join(name for name, _ in secrets.values(taken))
    return Finding("secrets", f"{names}: in {where}, for root and the backend")


def disk(config: Config | None) -> Iterator[Finding]:
    """Whether there is room."""
    found, wanted = mounts.disk(), config.queue.min_free_megabytes if config else 0
    is_well = True
    if found.read_only:
        is_well = False
        remedy = "look for errors: dmesg | grep -i error; is the card worn?"
        yield Finding("disk", "the file system is read-only", remedy)
    if found.free_megabytes < wanted:
        is_well = False
        text = f"{found.free_megabytes} MB are free, and queue.min_free_megabytes is {wanted}"
        yield Finding("disk", text, "make room: journalctl --vacuum-size=100M; apt clean; see archive.max_days")
    if found.has_few_files:
        is_well = False
        yield Finding("disk", f"only {found.free_files} files more are possible", "remove small files: df -i")
    if is_well:
        yield Finding("disk", f"{found.free_megabytes} MB are free")


def room_to_reload(run: str = "/run/systemd") -> Iterator[Finding]:
    """Whether systemd would reload, without which no change can be activated.

    Args:
        run: Where systemd looks for room.
    """
    if not os.path.isdir(run):
        return
    found = os.statvfs(run)
    free = found.f_bfree * found.f_frsize >> 20
    if free < _MEGABYTES_TO_RELOAD:
        text = f"{free} MB are free; with less than {_MEGABYTES_TO_RELOAD} systemd does not reload for any change"
        remedy = "sudo du -xh /run | sort -h | tail; or enlarge it: sudo mount -o remount,size=64M /run"
        yield Finding("run", text, remedy)
    else:
        yield Finding("run", f"{free} MB are free, so systemd can reload")


def queue() -> Iterator[Finding]:
    """Whether the data directory takes messages, and the archive in it."""
    if (found := trouble.look()) is not None:
        text = (
            f"the data directory takes no messages for {found.seconds:.0f} s, they wait in memory: {found.reason}"
        )
        yield Finding("queue", text, "see to it before the next boot: dmesg | grep -i error; df; ls -ln " + _DATA)
    elif waiting := aside.waiting(ACTIVE_QUEUE_FILE):
        text = f"{len(waiting)} damaged: what can be read is queued again"
        yield Finding("queue", text, "journalctl -u ivy-salvage; is the card worn?")
    else:
        yield Finding("queue", "it takes messages")
    if (found := trouble.look(trouble.ARCHIVE_PATH)) is not None:
        text = f"it takes no messages for {found.seconds:.0f} s: {found.reason}"
        yield Finding("archive", text, f"the queue has only those that were not sent: ls -la {_DATA}/messages")


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
        yield Finding("python", "the release's environment does not match the Python that is installed", remedy)
    else:
        yield Finding("python", f"{environment.python_of(releases.directory(version))} fits")


def debian() -> Iterator[Finding]:
    """Whether what the release needs of Debian is still there: its procedures may not start without."""
    version = Releases().current()
    if version is None:
        return
    try:
        needs.check(Releases().directory(version))
    except (NodeTrouble, Rejected) as error:
        yield Finding("debian", f"version {version}: {error}", "install what is missing, then: sudo ivy restart")


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
    if package_manager.is_half_installed():
        text = f"{constants.NAME} {installed} is half installed, and APT does nothing else before it is whole"
        remedy = (
            f"sudo dpkg --configure -a; if that fails: sudo apt install --reinstall {constants.NAME}, or its .deb"
        )
        yield Finding("package", text, remedy)
        return
    gone = package_manager.withdrawn().intersection([package_manager.identifier(installed), str(constants.VERSION)])
    for version in sorted(gone):
        remedy = f"sudo apt update && sudo apt install {constants.NAME}; or sudo {constants.NAME} rollback"
        yield Finding("package", f"version {version}: {overview.WITHDRAWN}", remedy)
    if gone:
        return
    text = f"{constants.NAME} {installed} is installed, and APT would take {candidate}"
    brought, runs = bundled_version(), Releases().current()
    if brought is not None and runs is not None and runs < brought:  # undone, put off, or somebody went back
        text += f"; but {runs} runs: see ivy releases; what runs the other is sudo ivy update {brought}"
    yield Finding("package", text)


def files() -> Iterator[Finding]:
    """Whether the files of the release and of the package are as they came."""
    version = Releases().current()
    in_release = manifest.damaged(Releases().directory(version)) if version else []
    if in_release:
        text = f"of version {version} there are damaged: {', '.join(in_release[:_MOST_NAMES])}"
        yield Finding("files", text, "sudo systemctl start ivy-updater, which repairs them; is the card worn?")
    in_package = package_manager.damaged_files()
    if in_package:
        text = f"of the package there are damaged: {', '.join(in_package[:_MOST_NAMES])}"
        yield Finding("files", text, f"sudo apt install --reinstall {constants.NAME}; is the card worn?")
    if not in_release and not in_package:
        yield Finding("files", "those of release and package are as they came")


def services(config: Config | None) -> Iterator[Finding]:
    """Whether the services run, send data, are watched, and are in their sandbox."""
    try:
        found, troubles = overview.look_at_units(config=config)
    except commands.CommandError as error:
        yield Finding("units", str(error), "is this a node, with systemd?")
        return
    for text, remedy in troubles:
        yield Finding("units", text, remedy)
    found = [service for service in found if service.name != units.UPDATER and service.state != overview.MASKED]
    if not found:
        remedy = "systemctl daemon-reload; journalctl -b | grep ivy-generator"
        yield Finding("units", f"{units.TARGET} wants no service", remedy)
        return
    bad = [service for service in found if not service.well or service.restarts >= _MANY_RESTARTS]
    yield from map(_not_well, bad)
    if not bad:
        yield Finding("units", f"{len(found)} services run")
    for service in (service for service in found if service.silent_seconds is not None):
        remedy = f"is its sensor connected? journalctl -u {service.name} -n 50; systemctl restart {service.name}"
        yield Finding("samples", f"{service.name}: {overview.silence(service)}", remedy)
    yield from checks_sandbox.sandbox(found)
    yield from _users(found)
    for service in (service for service in found if not service.watched):
        text = f"{service.name} has none: should it hang, nobody notices"
        yield Finding("watchdogs", text, f"systemctl cat {service.name}")
    if all(service.watched for service in found):
        yield Finding("watchdogs", "every service has one")


def _not_well(service: overview.Service) -> Finding:
    """What a service is and how it ended last, and what to do about that: a restart is what it gets anyway."""
    text = f"{service.name} is {service.state}, restarted {service.restarts} times"
    ended = endings.record(service.name)
    if ended is not None:
        text += f"; {duration(ended.age)} ago it ended last: {ended.ending}"
    status = ended.status if ended is not None and ended.status is not None else 0
    if service.state.startswith("inactive"):
        remedy = "sudo ivy start"
    elif status == constants.EXIT_CONFIG_ERROR:
        remedy = f"correct the config: {_EDIT}"
    elif status >= endings.FIRST_OF_SYSTEMD:
        remedy = (
            f"systemd cannot even start it: journalctl -u {service.name} -n 50 says what it lacks here;"
            " man systemd.exec, PROCESS EXIT CODES"
        )
    elif service.name in map(units.name_of, procedure_names()):
        remedy = (
            f"journalctl -u {service.name} -n 50 says why; is its sensor connected, and may it be used by the user"
            f" {service.user}? It is started again by itself"
        )
    else:
        remedy = f"journalctl -u {service.name} -n 50 says why; it is started again by itself"
    return Finding("units", text, remedy)


def _users(found: Sequence[overview.Service]) -> Iterator[Finding]:
    """A backend that is the procedures' user believes what any of them says. A group may be for a device."""
    procedures = {units.name_of(name) for name in procedure_names()}
    wrong = []
    who: dict[str, list[str]] = {}
    for service in found:
        is_procedure = service.name in procedures
        wanted = constants.NAME if is_procedure else constants.BACKEND_USER
        remedy = f"a drop-in changes it: systemctl cat {service.name}"
        if service.user != wanted:
            text = f"{service.name} runs as {service.user or 'root'}, and not as {wanted}"
            wrong.append(Finding("users", text, remedy))
        forbidden = _OPEN_ALL | ({constants.BACKEND_USER} if is_procedure else set())
        if too_much := forbidden.intersection(service.groups):
            wrong.append(Finding("users", f"{service.name} is of the group {', '.join(sorted(too_much))}", remedy))
        groups = ", ".join(dict.fromkeys(service.groups)) or "none of its own"
        name = units.service_of(service.name)
        who.setdefault(f"{service.user} (groups: {groups})", []).append(name)
    listed = "; ".join(f"{user}: {', '.join(names)}" for user, names in sorted(who.items()))
    yield from wrong or [Finding("users", listed)]


def access() -> Iterator[Finding]:
    """Whether anybody reads or changes what is not for him: others, and members of groups."""
    if Releases().current() is None:
        return  # not a node; that is said already
    wrong = []
    for path, owner, forbidden in _OWNED:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            if found := status.st_mode & forbidden:
                text = f"{path} is for {owner}, and others can {'change' if found & 0o022 else 'read'} it"
                wrong.append(Finding("access", text, OWNERS))
            elif _name_of(status.st_uid) != owner:
                wrong.append(Finding("access", f"{path} is {_name_of(status.st_uid)}'s, not {owner}'s", OWNERS))
    yield from wrong or [Finding("access", f"others read and change nothing of the services; {_members()}")]


def _members() -> str:
    """Who reads what the services do because an admin has put him into their groups."""
    members = []
    for group in (constants.NAME, constants.BACKEND_USER):
        with contextlib.suppress(KeyError):
            members += [f"{name} (group {group})" for name in grp.getgrnam(group).gr_mem]
    return f"besides them, as members: {', '.join(members)}" if members else "their groups have no other member"


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _apt_cache(*arguments: str) -> str:
    """Ask APT; no answer where there is none."""
    try:
        return commands.run(["env", "LC_ALL=C", "apt-cache", *arguments], timeout=_SECONDS_OF_APT)
    except commands.CommandError:
        return ""


def _not_writable(data: Path, group: int) -> Iterator[Path]:
    """The data directory, and what is in it, where that is not the group's: as on a partition that was kept."""
    if data.stat().st_gid != group or not data.stat().st_mode & stat.S_IWGRP:
        yield data
    with contextlib.suppress(PermissionError):  # who asks may not look into it
        inside = [*sorted(data.iterdir()), *sorted((data / "messages").glob("*"))]
        yield from (path for path in inside if path.name != "lost+found" and path.lstat().st_gid != group)


def _not_readable(releases: Releases, version: Version, group: int) -> Iterator[Path]:
    """What all services read, where they may not: as after a `chmod -R`, or an editor that makes another file."""
    release = releases.directory(version)
    configs = [releases.config_file(version), releases.accepted_file(version)]
    places = (releases.root, release, configs[0].parent, *sorted((release / "ivy").rglob("*")))
    for path in filter(Path.exists, places):
        wanted = 0o005 if path.is_dir() else 0o004
        if path.stat().st_mode & wanted != wanted:
            yield path
    for path in filter(Path.exists, configs):
        status = path.stat()
        if not status.st_mode & (stat.S_IRGRP if status.st_gid == group else stat.S_IROTH):
            yield path


def _wrong(path: Path, forbidden: int) -> Iterator[Finding]:
    status = path.stat()
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & forbidden:
        text = f"{path} has the mode {stat.S_IMODE(status.st_mode):04o} and the owner {status.st_uid}"
        yield Finding("permissions", text, OWNERS)


def _group_id() -> int:
    try:
        return grp.getgrnam(constants.NAME).gr_gid
    except KeyError:
        return -1
