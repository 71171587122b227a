"""The users of the services are never a person's account, neither when the package comes nor when it goes."""

import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
OURS = "ivy:x:999:999:ivy sensor node:/var/lib/ivy/data:/usr/sbin/nologin"
PERSON = "ivy:x:1001:1001:Ivy Compton-Burnett,,,:/home/ivy:/bin/bash"
PERSON_WITHOUT_SHELL = "ivy:x:1001:1001:Ivy:/home/ivy:/usr/sbin/nologin"
ADMINS = "ivy:x:700:700:for ivy, by ansible:/nonexistent:/usr/sbin/nologin"


def run(
    script: str, arguments: str, directory: Path, *, passwd: str = "", group: str = "", of_tests: str = ""
) -> tuple[int, str, str]:
    """Run a maintainer script with the accounts of another machine. Returns status, words, and who was deleted."""
    for name, body in {
        "getent": f'case "$1 $2" in "passwd ivy") [ -n "{passwd}" ] && echo "{passwd}" ;;'
        f' "passwd ivy-test") [ -n "{of_tests}" ] && echo "{of_tests}" ;;'
        f' "group ivy") [ -n "{group}" ] && echo "{group}" ;; *) exit 2 ;; esac',
        "userdel": f'echo "$@" >> {directory}/deleted',
        "rm": ":",
        "mountpoint": "exit 1",
    }.items():
        (directory / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / name).chmod(0o755)
    command = ["/bin/sh", "-e", str(PROJECT / "debian" / f"ivy.{script}"), *arguments.split()]
    environment = {"PATH": f"{directory}:/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    deleted = directory / "deleted"
    return done.returncode, done.stderr, deleted.read_text() if deleted.exists() else ""


def test_the_groups_of_devices_come_with_the_package_and_leave_those_alone_that_there_are(tmp_path: Path) -> None:
    """As on Raspberry Pi OS. Without its group, a unit does not start: 216/GROUP."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000::/home/pi:/bin/bash\n")
    there = ["root:x:0:", "dialout:x:20:pi", "i2c:x:994:pi", "gpio:x:1001:pi"]
    (tmp_path / "etc/group").write_text("\n".join(there) + "\n")
    users = PROJECT / "units" / "ivy.sysusers"
    command = ["systemd-sysusers", f"--root={tmp_path}", str(users)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    groups = (tmp_path / "etc/group").read_text().splitlines()
    assert set(there) <= set(groups)
    names = [line.split(":")[0] for line in groups]
    assert len(names) == len(set(names)) and {"spi", "ivy", "ivy-backend"} <= set(names)
    wanted = set(re.findall(r'"(dialout|i2c|gpio|spi)"', (PROJECT / "packaging" / "new-procedure").read_text()))
    assert len(wanted) == 3 and wanted <= set(names)
    rules = re.findall(r'GROUP="(\w+)"', (PROJECT / "debian" / "ivy.udev").read_text())
    assert {"i2c", "spi", "gpio"} == set(rules) <= set(names)


@pytest.mark.parametrize("account", [PERSON, PERSON_WITHOUT_SHELL, PERSON.replace("1001", "999")])
def test_the_package_is_refused_where_a_person_has_the_name(tmp_path: Path, account: str) -> None:
    status, said, _ = run("preinst", "install", tmp_path, passwd=account)
    assert status == 1 and "Nothing was changed" in said and "usermod --login" in said


def test_the_package_is_refused_where_people_have_the_group(tmp_path: Path) -> None:
    status, said, _ = run("preinst", "install", tmp_path, group="ivy:x:1002:alice,bob")
    assert status == 1 and "Nothing was changed" in said


@pytest.mark.parametrize("account", ["", OURS, ADMINS])
def test_the_package_comes_where_the_name_is_free_or_for_services(tmp_path: Path, account: str) -> None:
    assert run("preinst", "install", tmp_path, passwd=account, group="ivy:x:999:")[:2] == (0, "")


@pytest.mark.parametrize("account", [OURS, PERSON])
@pytest.mark.parametrize("version", ["1.0.0", "1:1.1.0"])
def test_an_upgrade_is_not_refused_for_an_account_that_is_used_already(
    tmp_path: Path, account: str, version: str
) -> None:
    assert run("preinst", f"upgrade {version}", tmp_path, passwd=account)[0] == 0


@pytest.mark.parametrize(("version", "status"), [("1.0.0", 1), ("2.5.3-1", 1), ("1:1.1.0", 0)])
def test_an_upgrade_is_refused_where_a_person_has_a_name_that_is_new(
    tmp_path: Path, version: str, status: int
) -> None:
    person = PERSON.replace("ivy:x", "ivy-test:x")
    found, said, _ = run("preinst", f"upgrade {version}", tmp_path, passwd=OURS, of_tests=person)
    assert found == status and ("usermod --login ivy-test-person" in said) == bool(status)


@pytest.mark.parametrize("account", [PERSON, PERSON_WITHOUT_SHELL, ADMINS])
def test_a_purge_deletes_no_account_that_the_package_did_not_make(tmp_path: Path, account: str) -> None:
    assert run("postrm", "purge", tmp_path, passwd=account) == (0, "", "")


def test_a_purge_deletes_what_the_package_made(tmp_path: Path) -> None:
    assert run("postrm", "purge", tmp_path, passwd=OURS) == (0, "", "ivy\n")
    for line in (PROJECT / "units" / "ivy.sysusers").read_text().splitlines():
        if line.startswith("u"):
            assert '"ivy ' in line and line.endswith("/nologin"), "purge would not know it again"


@pytest.mark.parametrize("script", ["preinst", "postrm"])
def test_all_users_are_looked_at(script: str) -> None:
    users = re.findall(r"^u (\S+)", (PROJECT / "units" / "ivy.sysusers").read_text(), re.MULTILINE)
    text = (PROJECT / "debian" / f"ivy.{script}").read_text()
    assert sorted(re.findall(r"for user in (.*);", text)[0].split()) == sorted(users)
