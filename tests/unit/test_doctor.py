"""`ivy doctor`: each finding is well, or says what to do; what it needs of systemd is a fake here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ivy import constants
from ivy.cli.doctor import checks_network, checks_node
from ivy.types.config import UpdaterConfig
from ivy.utils.host import clock
from ivy.utils.updates import environment, source
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import CONFIG, UPDATER, Node, give_libraries, make_config

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
    """Whatever apt knows on this machine; asking it takes a second."""
    node.fake("apt-cache", {})


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
    ],
)
def test_a_service_that_is_not_as_it_should_be(node: Node, check: str, changes: dict[str, str]) -> None:
    node.write_config()
    status, found = examine(node, **changes)
    assert status == 1
    assert not found[check]["ok"]
    assert "ivy-wind.service" in found[check]["text"] + found[check]["remedy"]
    assert found[check]["remedy"]


def test_a_bad_config_is_named_and_the_rest_is_examined(node: Node) -> None:
    node.write_config(system_checks={"seconds_between_checks": 0})
    status, found = examine(node)
    assert status == 1
    assert "system_checks.seconds_between_checks" in found["config"]["text"]
    assert found["units"]["ok"]


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


@pytest.mark.parametrize(
    ("text", "is_ok"),
    [(None, False), ("# nobody\n", False), ("a@b ssh-ed25519 AAAA\n", True), ("nonsense\n", False)],
)
def test_who_may_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, is_ok: bool) -> None:
    signers = tmp_path / "allowed_signers"
    if text is not None:
        signers.write_text(text)
    monkeypatch.setattr(source, "ALLOWED_SIGNERS", signers)
    finding = checks_network.signatures(UpdaterConfig.model_validate(UPDATER))
    assert finding.ok == is_ok


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
    assert found.remedy == f"chmod 640 {config}"


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


def test_a_machine_without_apt_has_no_other_package(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    (node.programs / "apt-cache").unlink()
    monkeypatch.setenv("PATH", str(node.programs))
    [finding] = checks_node.package()
    assert finding.ok


def test_the_package_is_known_by_what_debian_control_says() -> None:
    control = Path(constants.PROJECT_DIR, "debian", "control").read_text()
    assert "\n python3-pydantic (" in control.partition("\nDepends:")[2].partition("\nSuggests:")[0]
