"""`ivy doctor`: each finding is well, or says what to do; what it needs of systemd is a fake here."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ivy import constants
from ivy.cli.doctor import checks_machine, checks_network, checks_node
from ivy.types.config import UpdaterConfig
from ivy.types.messages import DataMessageBody
from ivy.utils.host import clock, mounts, package_manager
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import trouble
from ivy.utils.updates import environment, manifest, source
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.backend_node import SENSOR
from tests.support.helpers import (
    ARCHIVE_DIR,
    BACKEND,
    CONFIG,
    UPDATER,
    Node,
    give_libraries,
    make_config,
    record_end,
)

RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "NRestarts": "0",
    "WatchdogUSec": "1min",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "User": "ivy",
}


@pytest.fixture(autouse=True)
def no_packages(node: Node) -> None:
    """Whatever apt and dpkg know on this machine; asking apt takes a second."""
    node.fake("apt-cache", {})
    node.fake("dpkg", {})


def examine(node: Node, **changes: str) -> tuple[int, dict[str, Any]]:
    """Exit status and findings by their checks, for a node with one service."""
    service = "\\n".join(
        f"{key}={value}" for key, value in {"Id": "ivy-wind.service", **RUNNING, **changes}.items()
    )
    answers = {
        "show*Wants*ivy.target": "echo Wants=ivy-wind.service",
        "show*ivy-wind.service": f'printf "{service}\\n"',
    }
    node.fake("systemctl", answers)
    status, output, errors = node.ivy("doctor", "--json")
    assert errors == ""
    assert {finding["schema"] for finding in json.loads(output)} == {1}
    return status, {finding["check"]: finding for finding in json.loads(output)}


def test_well_services(node: Node) -> None:
    node.write_config()
    _, found = examine(node)
    assert all(
        found[check]["ok"] for check in ("config", "disk", "units", "sandbox", "watchdogs", "backend", "updates")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("units", {"ActiveState": "activating", "SubState": "auto-restart"}),
        ("units", {"NRestarts": "17"}),
        ("sandbox", {"User": "root"}),
        ("sandbox", {"ProtectSystem": "no"}),
        ("watchdogs", {"WatchdogUSec": "0"}),
        ("devices", {"PrivateDevices": "no", "DeviceAllow": "/dev/ttyUSB0 rw"}),
        ("users", {"User": "somebody"}),
        ("users", {"User": "ivy-backend", "SupplementaryGroups": "ivy shadow"}),
    ],
)
def test_a_service_that_is_not_as_it_should_be(node: Node, check: str, changes: dict[str, str]) -> None:
    node.write_config()
    status, found = examine(node, **changes)
    assert status == 1
    assert not found[check]["ok"]
    assert "ivy-wind.service" in found[check]["text"] + found[check]["remedy"]
    assert found[check]["remedy"]


LOOPS = {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "4"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "ending", "text", "remedy"),
    [
        ({}, "exit-code:exited:217", "it ended last: exit status 217 (USER)", "systemd cannot even start it"),
        ({}, "exit-code:exited:1", "it ended last: exit status 1", "journalctl -u ivy-wind.service -n 50"),
        ({"Id": "ivy-system-checks.service"}, "signal:killed:SEGV", "it ended last: signal SEGV", "is its sensor"),
        ({"ActiveState": "failed"}, "exit-code:exited:78", "exit status 78", "sudo ivy config edit"),
        ({"ActiveState": "inactive"}, "exit-code:exited:1", "is inactive", "sudo ivy start"),
    ],
)
def test_what_a_service_died_of_and_what_that_asks_for(
    node: Node, changes: dict[str, str], ending: str, text: str, remedy: str
) -> None:
    node.write_config()
    node.fake("systemd-analyze", {"*217": "printf 'NAME STATUS CLASS\\nUSER 217 systemd\\n'"})
    record_end(changes.get("Id", "ivy-wind.service"), ending, seconds_ago=5)
    _, found = examine(node, **{**LOOPS, **changes})
    assert text in found["units"]["text"] and " s ago" in found["units"]["text"]
    assert remedy in found["units"]["remedy"]
    assert "ivy restart" not in found["units"]["remedy"], "systemd restarts it again and again"


ENDS_AS_ROOT = (
    "{ path=/bin/sh ; argv[]=/bin/sh -c %s ; flags=ignore-failure privileged ; start_time=[n/a] ; pid=0 }"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"PrivateNetwork": "yes", "PrivateDevices": "yes"}, ""),
        ({"PrivateNetwork": "no", "RestrictAddressFamilies": "AF_INET AF_UNIX"}, "the network: AF_INET AF_UNIX"),
        ({"PrivateDevices": "no", "DeviceAllow": "char-ttyUSB rw"}, "devices: char-ttyUSB rw"),
        ({"ReadWritePaths": f"{constants.IVY_DATA_DIR} -/srv/wind"}, "writing /srv/wind"),
        ({"User": "ivy-backend", "ReadWritePaths": constants.BACKEND_DIR}, ""),
        ({"StateDirectory": "wind"}, "StateDirectory wind"),
        ({"ExecStopPostEx": ENDS_AS_ROOT % "exit"}, "ExecStopPost by root, /bin/sh -c exit"),
        ({"ExecStartEx": "{ path=/bin/ivy ; argv[]=/bin/ivy run ; flags= ; start_time=[n/a] }"}, ""),
    ],
)
def test_what_a_service_may_beyond_its_sandbox_is_named(node: Node, changes: dict[str, str], named: str) -> None:
    node.write_config()
    _, found = examine(node, **changes)
    assert found["sandbox"]["ok"]
    more = f"; but for {named} (wind)" if named else ""
    assert found["sandbox"]["text"] == f"every service is without rights, and can write only its data{more}"


def test_it_says_which_user_and_groups_each_service_has(node: Node) -> None:
    node.write_config()
    _, found = examine(node, User="ivy-backend", Group="ivy-backend", SupplementaryGroups="ivy")
    assert found["users"]["ok"]
    assert found["users"]["text"] == "ivy-backend (groups: ivy-backend, ivy): wind"


def test_what_others_can_read_is_named(release: Path, data_dir: Path) -> None:
    data_dir.chmod(0o2770)
    said = "\n".join(finding.text for finding in checks_node.access())
    assert "can read it" not in said and "can change it" not in said
    data_dir.chmod(0o2775)
    [finding, *_] = [each for each in checks_node.access() if str(data_dir) in each.text]
    assert not finding.ok and finding.text.endswith("others can read it") and "ivy-owners" in finding.remedy


def test_a_bad_config_is_named_and_the_rest_is_examined(node: Node) -> None:
    node.write_config(system_checks={"seconds_between_checks": 0})
    status, found = examine(node)
    assert status == 1
    assert "system_checks.seconds_between_checks" in found["config"]["text"]
    assert found["units"]["ok"]


@pytest.mark.parametrize(
    ("provider", "name", "is_ok"),
    [("tenta", SENSOR, True), ("tenta", "roof-7", False), ("thingsboard", "roof-7", True)],
)
def test_a_name_that_the_platform_cannot_know(provider: str, name: str, is_ok: bool) -> None:
    general = {**CONFIG["general"], "system_identifier": name}
    [finding] = checks_node.name(make_config(general=general, backend={**BACKEND, "provider": provider}))
    assert finding.ok is is_ok and name in finding.text
    assert is_ok or ("is not a UUID" in finding.text and "ivy config edit" in finding.remedy)


def test_doctor_says_that_tenta_does_not_know_the_node(node: Node) -> None:
    node.write_config(backend=BACKEND)
    status, found = examine(node)
    assert status == 1 and "'node-1' is not a UUID" in found["name"]["text"]


def test_for_people_each_line_says_what_to_do(node: Node) -> None:
    node.write_config()
    node.fake("systemctl", {"*": "exit 1"})
    status, output, _ = node.ivy("doctor")
    assert status == 1
    assert "BAD  units" in output and "→ is this a node, with systemd?" in output
    assert re.fullmatch(r"Of \d+ checks, \d+ needs? you\.", output.splitlines()[-1])
    assert "\033" not in output, "colours only on a terminal"


def test_room_that_the_queue_wants(data_dir: Path) -> None:
    [finding] = checks_node.disk(make_config(queue={"min_free_megabytes": 1_000_000}))
    assert not finding.ok and "queue.min_free_megabytes" in finding.text
    [finding] = checks_node.disk(make_config(queue={"min_free_megabytes": 0}))
    assert finding.ok


def test_one_trouble_of_the_disk_does_not_hide_another(monkeypatch: pytest.MonkeyPatch) -> None:
    sick = mounts.Disk(99.0, 1_000_000, 1, 999, True)
    monkeypatch.setattr(mounts, "disk", lambda: sick)
    texts = [finding.text for finding in checks_node.disk(make_config())]
    assert len(texts) == 3 and texts[0] == "the file system is read-only"
    assert "only 999 files more are possible" in texts


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no version can be believed"),
        ("# nobody\n", "holds no key"),
        (f"# who\na@b {KEY}\n\nc@d {KEY} somebody", None),
        (f"a@b {KEY}c@d {KEY}\n", "line 1, holds no key"),  # added to a line without an end
        (f"a@b {KEY}\n# more\nc@d ssh-ed25519 AAAA\n", "line 3, holds no key"),
        ("nonsense\n", "line 1, holds no key"),
    ],
)
def test_who_may_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str | None) -> None:
    signers = tmp_path / "allowed_signers"
    if text is not None:
        signers.write_text(text)
    monkeypatch.setattr(source, "ALLOWED_SIGNERS", signers)
    finding = checks_network.signatures(UpdaterConfig.model_validate(UPDATER))
    assert finding.ok == (said is None)
    assert (said or "2 keys may sign") in finding.text


def test_believing_everybody_is_not_well() -> None:
    finding = checks_network.signatures(UpdaterConfig.model_validate({**UPDATER, "require_signed_tags": False}))
    assert not finding.ok and "updater.require_signed_tags" in finding.remedy


def test_what_is_gone_is_a_finding_and_the_rest_is_examined(node: Node, data_dir: Path) -> None:
    node.write_config()
    releases = Releases()
    releases.directory(Version("1.0.0")).mkdir()
    releases.activate(Version("1.0.0"))
    status, found = examine(node)
    assert status == 1
    assert "config.json" in found["permissions"]["text"] and found["permissions"]["remedy"]
    assert found["units"]["ok"]


def test_a_terminal_without_utf_8_is_no_reason_to_end(node: Node) -> None:
    node.write_config()
    node.environment["PYTHONIOENCODING"] = "ascii"
    status, output, errors = node.ivy("doctor")
    assert (status, errors) == (1, "")
    assert re.search(r"^ +\? ", output, re.MULTILINE), output


@pytest.fixture
def release(root_dir: Path) -> Path:
    """A current release with a config, as the updater would make it."""
    releases, version = Releases(), Version("1.0.0")
    releases.config_file(version).parent.mkdir(parents=True)
    releases.activate(version)
    releases.write_config(version, json.dumps(CONFIG))
    return releases.directory(version)


def test_a_config_that_everybody_can_read_is_found(release: Path) -> None:
    config = release / "config" / "config.json"
    open_to_all = f"{config} has the mode 0644"
    assert open_to_all not in "".join(finding.text for finding in checks_node.permissions())
    config.chmod(0o644)
    [found] = [finding for finding in checks_node.permissions() if open_to_all in finding.text]
    assert found.remedy == "sudo systemctl restart ivy-owners"


@pytest.mark.parametrize("path", ["", "config", "ivy/types", "ivy/types/config.py", "config/config.json"])
def test_what_the_services_cannot_read_is_found(release: Path, path: str) -> None:
    (release / "ivy" / "types").mkdir(parents=True)
    (release / "ivy" / "types" / "config.py").touch()
    (release / "config" / "config.json").chmod(0o644)  # of our own group
    unreadable = f"{release / path} is not for the services to read"
    assert not [finding for finding in checks_node.permissions() if unreadable in finding.text]
    (release / path).chmod(0o700)
    [found] = [finding for finding in checks_node.permissions() if unreadable in finding.text]
    assert found.remedy == "sudo systemctl restart ivy-owners"


@pytest.mark.parametrize(("synchronised", "is_ok"), [(True, True), (False, False), (None, True)])
def test_the_clock(monkeypatch: pytest.MonkeyPatch, synchronised: bool | None, is_ok: bool) -> None:
    monkeypatch.setattr(clock, "is_synchronised", lambda: synchronised)
    assert checks_node.time().ok == is_ok


def test_an_environment_of_another_python_is_found(release: Path) -> None:
    [finding] = checks_node.python()
    assert not finding.ok and "ivy-updater" in finding.remedy
    environment.make(release)
    give_libraries(release)
    (release / "ivy").mkdir()
    (release / "ivy" / "__init__.py").touch()
    [finding] = checks_node.python()
    assert finding.ok


@pytest.mark.parametrize(
    ("answer", "is_ok", "text"),
    [
        (
            "printf '1\\trefs/tags/v1.0.0\\n2\\trefs/tags/v1.10.0\\n'",
            True,
            "2 versions can be fetched, the newest is 1.10.0",
        ),
        ("true", False, "no tag of the form v1.2.3"),
        ("echo 'fatal: Authentication failed' >&2; exit 128", False, "check updater.access_token"),
        ("echo 'fatal: unable to access: Could not resolve host' >&2; exit 128", False, "Could not resolve host"),
    ],
)
def test_the_source_of_versions(
    node: Node, root_dir: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_ok: bool, text: str
) -> None:
    (root_dir / "source.git").mkdir()
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemd-run", {"*ls-remote*": answer})
    _, repository, _ = checks_network.updates(UpdaterConfig.model_validate(UPDATER))
    assert (repository.check, repository.ok) == ("repository", is_ok)
    assert text in repository.text


def test_a_package_that_somebody_has_removed_is_found(release: Path, node: Node) -> None:
    node.fake("dpkg-query", {"*": "echo python3 installed"})
    project = release / "pyproject.toml"
    project.write_text(f'[tool.{constants.NAME}]\ndebian = ["python3-lgpio"]\n')
    [finding] = checks_node.debian()
    assert not finding.ok and "missing: python3-lgpio; play provision" in finding.text
    project.write_text(f'[tool.{constants.NAME}]\ndebian = ["python3"]\n')
    assert [*checks_node.debian()] == []


OURS, THEIRS = "Depends: git, python3-pydantic (>= 2.10)", "Maintainer: Debian Java Maintainers"
VERSIONS = {"*ivy=1:1.1.0": f"echo '{OURS}'", "*ivy=2.5.3-1": f"echo '{THEIRS}'", "*ivy=9:1": f"echo '{THEIRS}'"}


@pytest.mark.parametrize(
    ("installed", "candidate", "is_ok", "text"),
    [
        ("1:1.1.0", "1:1.1.0", True, "ivy 1:1.1.0 is installed"),
        ("1:1.1.0", "(none)", True, "APT would take (none)"),
        ("1:1.1.0", "9:1", False, "ivy 9:1 would replace it at the next upgrade"),
        ("2.5.3-1", "2.5.3-1", False, "another package of the name, by Debian Java Maintainers"),
        ("2.5.3-1", "1:1.1.0", False, "ivy 2.5.3-1 is installed, which is another package"),
        ("1:1.1.0", "7", False, "by somebody unknown"),
        ("(none)", "2.5.3-1", True, "APT has not installed ivy"),
    ],
)
def test_another_package_of_the_name_is_found(
    node: Node, monkeypatch: pytest.MonkeyPatch, installed: str, candidate: str, is_ok: bool, text: str
) -> None:
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")  # in which APT would say "Installiert"
    policy = f"printf 'ivy:\\n  Installed: {installed}\\n  Candidate: {candidate}\\n'"
    node.fake("apt-cache", {"policy*": f'test "$LC_ALL" = C && {policy}', **VERSIONS})
    [finding] = checks_node.package()
    assert (finding.check, finding.ok) == ("package", is_ok)
    assert text in finding.text
    assert is_ok or "apt-mark hold ivy" in finding.remedy


@pytest.mark.parametrize(("state", "is_ok"), [("ii ", True), ("hi ", True), ("iFR", False), ("iU ", False)])
def test_a_package_that_is_half_installed_is_found(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, is_ok: bool
) -> None:
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(package_manager, "LOCKS", (str(tmp_path / "lock"),))
    known = {"policy*": "printf '  Installed: 1:1.1.0\\n  Candidate: 1:1.1.0\\n'", "*ivy=1:1.1.0": f"echo '{OURS}'"}
    node.fake("apt-cache", known)
    node.fake("dpkg-query", {"*": f"printf '{state}'"})
    [finding] = checks_node.package()
    assert finding.ok is is_ok and is_ok is ("dpkg --configure -a" not in finding.remedy)


def test_what_the_package_brought_and_does_not_run_is_told(
    node: Node, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", node.environment["PATH"])
    known = {"policy*": "printf '  Installed: 1:1.2.0\\n  Candidate: 1:1.2.0\\n'", "*ivy=1:1.2.0": f"echo '{OURS}'"}
    node.fake("apt-cache", known)
    for brought, words in (("1.2.0", "ivy update 1.2.0"), (release.name, "1:1.2.0"), ("0.9.0", "1:1.2.0")):
        monkeypatch.setattr(checks_node, "bundled_version", lambda brought=brought: Version(brought))
        [finding] = checks_node.package()
        assert finding.ok and finding.text.endswith(words)


def test_a_withdrawn_package(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(package_manager, "LISTS", str(tmp_path))
    known = {"policy*": "printf '  Installed: 1:0.0.2\\n  Candidate: 1:0.0.2\\n'", "*ivy=1:0.0.2": f"echo '{OURS}'"}
    node.fake("apt-cache", known)
    file = tmp_path / "example.org_ivy_dists_trixie_main_ivy-withdrawn"
    file.write_text("ivy 1:0.0.1\n")
    [finding] = checks_node.package()
    assert finding.ok
    file.write_text("ivy 1:0.0.1\nivy 1:0.0.2\n")
    [finding] = checks_node.package()
    assert "version 0.0.2: who published it has withdrawn it" in finding.text
    assert "apt install ivy" in finding.remedy


def test_a_machine_without_apt_has_no_other_package(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    (node.programs / "apt-cache").unlink()
    monkeypatch.setenv("PATH", str(node.programs))
    [finding] = checks_node.package()
    assert finding.ok


def test_the_package_is_known_by_what_debian_control_says() -> None:
    control = Path(constants.PROJECT_DIR, "debian", "control").read_text()
    assert "\n python3-pydantic (" in control.partition("\nDepends:")[2].partition("\nSuggests:")[0]


def test_the_trouble_of_the_queue_is_named(data_dir: Path) -> None:
    assert [finding.ok for finding in checks_node.queue()] == [True]
    trouble.begin("disk I/O error")
    [finding] = checks_node.queue()
    assert not finding.ok and "disk I/O error" in finding.text


def test_the_trouble_of_the_archive_is_named(agent: MessagingAgent) -> None:
    ARCHIVE_DIR.touch()
    agent.add_message(DataMessageBody(data={"number": 1}))
    _, finding = checks_node.queue()
    assert (finding.check, finding.ok) == ("archive", False) and "Not a directory" in finding.text
    ARCHIVE_DIR.unlink()
    agent.add_message(DataMessageBody(data={"number": 2}))
    assert [finding.ok for finding in checks_node.queue()] == [True]


@pytest.mark.parametrize(("free", "is_well"), [(8 << 20, False), (15 << 20, False), (16 << 20, True)])
def test_run_has_room_for_systemd_to_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, is_well: bool
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bfree=free // 4096, f_frsize=4096))
    [finding] = checks_node.room_to_reload(str(tmp_path))
    assert (finding.check, finding.ok) == ("run", is_well)
    assert f"{free >> 20} MB are free" in finding.text


def test_nobody_looks_for_room_where_there_is_no_systemd(tmp_path: Path) -> None:
    assert list(checks_node.room_to_reload(str(tmp_path / "none"))) == []


def machine(fakes: Node, root: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> dict[str, str]:
    """What the machine does by itself, as the fake programs and files say it."""
    monkeypatch.setenv("PATH", fakes.environment["PATH"])
    found = list(checks_machine.machine(make_config(**config), root))
    assert all(finding.ok and finding.check == "machine" for finding in found)
    return dict(finding.text.partition(": ")[::2] for finding in found)


def test_what_an_appliance_does_is_on(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"panic": "10", "panic_on_oops": "1", "hung_task_timeout_secs": "120"}
    for directory in ("dev", "proc/sys/kernel", "usr/lib/ivy-node"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "dev/watchdog").touch()
    for name, value in settings.items():
        (tmp_path / "proc/sys/kernel" / name).write_text(f"{value}\n")
    answers = {
        "*RuntimeWatchdogUSec": "echo 1min",
        "*ivy-lost.timer": "echo ActiveState=active",
        "*ivy-programs.timer": "echo ActiveState=active",
        "*emergency.service": 'echo "Wants=a.service ivy-try-again.timer"',
    }
    node.fake("systemctl", answers)
    lines = {"*system.conf": "#CrashAction=poweroff\\nCrashAction=reboot", "*journald.conf": "SystemMaxUse=200M"}
    node.fake("systemd-analyze", {name: f"printf '{text}\\n'" for name, text in lines.items()})
    found = machine(node, tmp_path, monkeypatch, backend=BACKEND, node={"hours_until_repair": None})
    assert all(answer.startswith("on") for answer in found.values()), found
    assert found["a link that is away is repaired"] == "on, a reboot after 12 h"
    assert found["a hang is ended by a watchdog"] == "on, after 1min"
    (tmp_path / "dev/watchdog").unlink()
    (tmp_path / "proc/sys/kernel/hung_task_timeout_secs").unlink()
    found = machine(node, tmp_path, monkeypatch)
    assert found["a hang is ended by a watchdog"] == "impossible here, as there is no /dev/watchdog"
    assert found["tasks that hang are named in the journal"].startswith("impossible here")
    assert found["a link that is away is repaired"] == "off, as there is no backend"


def test_what_no_appliance_does_is_off(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("systemctl", "systemd-analyze"):
        node.fake(program, {"*": "exit 1"})
    found = machine(node, tmp_path, monkeypatch, backend=BACKEND)
    assert "the package ivy-node is not installed, which lets a machine come back by itself" in found
    answers = {answer.partition(",")[0] for answer in found.values() if answer}
    assert len(found) == 10 and answers == {"off", "impossible here"}


VERIFIED = """
missing     /usr/lib/ivy/ivy/service.py
??5??????   /usr/lib/systemd/system/ivy.target
??5?????? c /etc/apt/preferences.d/ivy
missing     /usr/share/doc/ivy/copyright
"""


def test_damaged_files_of_release_and_package(node: Node, root_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", node.environment["PATH"])
    release = root_dir / "1.1.0"
    (release / "ivy").mkdir(parents=True)
    (release / "ivy" / "service.py").write_text("SECONDS = 10\n")
    manifest.write(release)
    Releases().activate(Version("1.1.0"))
    [finding] = checks_node.files()
    assert finding.ok
    (release / "ivy" / "service.py").write_bytes(bytes(13))
    node.fake("dpkg", {"--verify*": f"printf '{VERIFIED}'; exit 1"})
    of_release, of_package = checks_node.files()
    assert (of_release.ok, of_package.ok) == (False, False)
    assert of_release.text == "of version 1.1.0 there are damaged: ivy/service.py"
    wanted = "/usr/lib/ivy/ivy/service.py, /usr/lib/systemd/system/ivy.target"
    assert of_package.text == f"of the package there are damaged: {wanted}"


def test_no_dpkg_says_nothing_about_the_package(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("dpkg", {"*": "exit 127"})
    [finding] = checks_node.files()
    assert finding.ok


def test_a_node_that_was_to_register_and_has_not_is_said_to(node: Node) -> None:
    node.write_config()
    assert "registration" not in examine(node)[1]
    Path(constants.PROVISION_FILE).write_text("{}")
    status, found = examine(node)
    finding = found["registration"]
    assert status == 1 and not finding["ok"] and "is still there" in finding["text"]
    assert finding["remedy"] == "see why: systemctl status ivy-provision.service"
