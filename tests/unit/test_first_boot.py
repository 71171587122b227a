"""`ivy take-in`: what a laptop may have written onto a card, the report about it, and the order of all that."""

import argparse
import contextlib
import json
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivy import constants, files
from ivy.cli import update
from ivy.cli.first_boot import command, texts
from ivy.cli.first_boot.report import Report
from ivy.types.updates import Offer
from ivy.utils.functions import with_automation_lock
from ivy.utils.updates import history
from ivy.utils.updates.releases import Releases
from tests.support.helpers import BACKEND, CONFIG, Node
from tests.support.power import Power, PowerCut
from tests.unit.offers import foreign

SENSOR = "4d1fa09c-1c1e-4b59-9d2a-6d0f7a3f2b11"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVzZWQgaW4gdGVzdHMgb25seSwgbm90IGEga2V5IQ== admin@desk"
WIFI = "[connection]\nid=site\ntype=wifi\n# by hand\n\n[wifi]\nssid=site\n[wifi-security]\npsk=hidden-psk\n"
TENTA = {"general": {"system_identifier": SENSOR}, "backend": BACKEND}
PROVISION = {"host": "tb.example.org", "provision_key": "hidden-key", "provision_secret": "hidden-secret"}
AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUDHtpveNWuP1+ds14YVv9dy5i6ckwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFdGVzdHMwIBcNMjYxMTMwMjE1NjM0WhgPMjEyNjExMDYyMTU2
MzRaMBAxDjAMBgNVBAMMBXRlc3RzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
TkjWF9G8foPtsTZBKEQYrCNpxvFCEkxAsxS9li8c3TQH5hLq5cStU+Z4KGckeV9Y
loyIS83jsPmilJ9m0/LlL6NTMFEwHQYDVR0OBBYEFFaa9XzqynV5b8/yexsr3TSq
55TmMB8GA1UdIwQYMBaAFFaa9XzqynV5b8/yexsr3TSq55TmMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAP4sE6qacOYUOhacVrCWQwrc7rrvePfy
4bkSAi+mDIJaAiBCQ7NKMw5LyPGINgo/lZOpuE4yTo+ymmpu7HWgGgaCzQ==
-----END CERTIFICATE-----
"""
NUMBER = "0123456789abcdef0123456789abcdef"


class Card:
    """A card that is in a node, whose other files are below `root`."""

    def __init__(self, home: Path) -> None:
        self.root, self.directory, self.notes = home / "root", home / "card", home / "notes"
        for name in ("etc", "usr/sbin", "etc/systemd/system/multi-user.target.wants"):
            (self.root / name).mkdir(parents=True)
        self.directory.mkdir()
        (self.root / "usr/sbin/NetworkManager").touch()
        (self.root / "etc/systemd/system/multi-user.target.wants/systemd-networkd.service").symlink_to("/dev/null")
        (self.root / "etc/hostname").write_text("roof-1\n")

    def write(self, name: str, content: str | bytes | dict[str, Any]) -> None:
        text = json.dumps(content) if isinstance(content, dict) else content
        (self.directory / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def take_files(self) -> str:
        """Take in what is there before the network. Returns the report."""
        report = Report(self.directory, self.notes)
        command.take_files(self.directory, report, self.root)
        report.write()
        text = (self.directory / "ivy-report.txt").read_bytes().decode("utf-8-sig")
        (self.directory / "ivy-report.txt").unlink()
        return text

    def take_all(self) -> tuple[int, str]:
        """Take in all. Returns the exit status and the report, which is on the card."""
        report = Report(self.directory, self.notes)
        wished = command.take_files(self.directory, report, self.root)
        assert wished is not None, report.text()
        status = command.take_config(self.directory, wished, report, self.root)
        return status, (self.directory / "ivy-report.txt").read_bytes().decode("utf-8-sig")

    def path(self, inside: str) -> Path:
        return self.root / inside


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


@pytest.fixture
def applied(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What was tried as a config; all of it is kept."""
    tried: list[dict[str, Any]] = []

    def apply(text: str) -> int:
        tried.append(json.loads(text))
        print("On probation")
        releases.write_config(releases.active_config().general.software_version, text)
        return 0

    monkeypatch.setattr(update, "apply_text", apply)
    yield tried
    files.remove(constants.PROVISION_FILE)


UTF_8, BOM, UTF_16, UTF_16_BE = (
    lambda text: text.encode(),
    lambda text: text.encode("utf-8-sig"),
    lambda text: text.encode("utf-16"),
    lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
)


@pytest.mark.parametrize("encode", [UTF_8, BOM, UTF_16, UTF_16_BE], ids=["utf-8", "bom", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_is_read_as_any_laptop_writes_it(encode: Callable[[str], bytes], end: str) -> None:
    assert texts.text_of(encode(f"first{end}Größe")) == "first\nGröße\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (bytes(4096), "nothing but zeros"),
        (b'{"a": 1,\n"b"' + bytes(100), "line 2: holds zeros"),
        ("a text\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"one\nGr\xf6\xdfe\n", "line 2: is not UTF-8"),
    ],
)
def test_what_is_no_text_is_named(content: bytes, what: str) -> None:
    with pytest.raises(texts.Mistake, match=what) as raised:
        texts.text_of(content)
    assert raised.value.remedy


def test_files_get_to_their_places_and_are_gone_from_the_card(card: Card) -> None:
    card.write("wifi.nmconnection", WIFI.replace("\n", "\r\n").encode("utf-8-sig"))
    card.write("wired.network", "[Match]\nName=e*\n[Network]\nDHCP=yes\n")
    card.write("authorized_keys", f"{KEY}\r\n")
    card.write("allowed_signers", f'# ours\nmaintainer@example.org namespaces="git" {KEY}\n')
    others = ("._wifi.nmconnection", "._x.network.txt", "cmdline.txt", "ivy-provision.json")
    for name in others:
        card.write(name, "no file for us")
    report = card.take_files()
    assert card.names() == sorted(others)
    for place, text, mode in (
        ("etc/NetworkManager/system-connections/wifi.nmconnection", WIFI, 0o600),
        ("etc/systemd/network/10-wired.network", "[Match]\nName=e*\n[Network]\nDHCP=yes\n", 0o644),
        ("root/.ssh/authorized_keys", f"{KEY}\n", 0o600),
        ("etc/ivy/allowed_signers", f'# ours\nmaintainer@example.org namespaces="git" {KEY}\n', 0o644),
    ):
        assert card.path(place).read_text() == text and card.path(place).stat().st_mode & 0o777 == mode
    assert card.path("root/.ssh").stat().st_mode & 0o777 == 0o700
    assert "All is well." in report and "WRONG" not in report and "hidden" not in report
    for name in ("wifi.nmconnection", "wired.network", "authorized_keys", "allowed_signers"):
        assert f"  {name}: " in report
    assert report.count("\n") == report.count("\r\n")


def test_keys_that_there_are_stay(card: Card) -> None:
    card.path("root/.ssh").mkdir(parents=True)
    card.path("root/.ssh/authorized_keys").write_text("# of before\nssh-rsa x")
    for _ in range(2):
        card.write("authorized_keys", f"{KEY}\n")
        card.take_files()
    assert card.path("root/.ssh/authorized_keys").read_text() == f"# of before\nssh-rsa x\n{KEY}\n"


@pytest.mark.parametrize("is_binary", [False, True])
def test_an_authority_may_be_of_either_form(card: Card, is_binary: bool) -> None:
    text = AUTHORITY
    card.write("ca.crt", ssl.PEM_cert_to_DER_cert(text) if is_binary else text.replace("\n", "\r\n"))
    assert "WRONG" not in card.take_files()
    assert ssl.PEM_cert_to_DER_cert(card.path("etc/ivy/ca.crt").read_text()) == ssl.PEM_cert_to_DER_cert(text)


SITE = "[connection]\ntype=wifi\n[wifi]\nssid=site\n[wifi-security]\n"
CONNECTIONS = (
    "[connection]\ntype=ethernet\n",
    "[connection]\n[gsm]\napn=internet\n",
    "[connection]\ntype=802-11-wireless\n[802-11-wireless]\nssid=open\n",
    f"{SITE}key-mgmt = sae\npsk = short\n",
    f"{SITE}key-mgmt=wpa-psk\npsk={'0' * 64}\n",
    f"{SITE}key-mgmt=wpa-eap\n",
)


@pytest.mark.parametrize("content", CONNECTIONS)
def test_a_connection_needs_no_more_than_its_kind(card: Card, content: str) -> None:
    card.write("site.nmconnection", content)
    card.take_files()
    assert card.path("etc/NetworkManager/system-connections/site.nmconnection").read_text() == content


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("Error: Error writing connection: 802-11-wireless-security.key-mgmt: property is missing", "is missing"),
        ("Error: invalid connection type; wlan.", "invalid connection type; wlan."),
        ("Error: Option '--offline' is unknown, try 'nmcli -help'.", None),
    ],
)
def test_what_network_manager_itself_does_not_take_is_refused(card: Card, said: str, what: str | None) -> None:
    program = card.path("usr/bin/nmcli")
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ngrep -q ^ssid=other && exit\necho "{said}" >&2; exit 2\n')
    program.chmod(0o755)
    card.write("site.nmconnection", WIFI)
    card.write("other.nmconnection", WIFI.replace("ssid=site", "ssid=other"))
    report = card.take_files()
    assert ("site.nmconnection" in card.names()) == ("does not take it: " in report) == (what is not None)
    assert what is None or what in report
    assert "other.nmconnection" not in card.names()


def test_that_a_connection_is_for_the_device_of_a_laptop_is_told(card: Card) -> None:
    card.write("site.nmconnection", "[connection]\ntype=ethernet\ninterface-name=enp3s0\n")
    assert "for enp3s0 and no other device" in card.take_files()


PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("wifi.nmconnection", "[connection]\nid=site\npsk hidden-psk\n", "line 3: is neither"),
        ("wifi.nmconnection", "psk=hidden-psk\n", "line 1: is neither"),
        ("wifi.nmconnection", "[wifi]\npsk=hidden-psk\n", "no section [connection]"),
        ("wifi.nmconnection", "[connection]\nid=site\n[ipv4]\nmethod=auto\n", "says no type"),
        ("wifi.nmconnection", "[connection]\ntype=wifi\n", "says no ssid"),
        ("wifi.nmconnection", "[connection]\n[802-11-wireless]\nssid=\n", "says no ssid"),
        ("wifi.nmconnection", f"{SITE}key-mgmt=wpa-psk\n", "says no psk"),
        ("wifi.nmconnection", f"{SITE}key-mgmt=sae\npsk-flags=1\n", "says no psk"),
        ("wifi.nmconnection", f"{SITE}key-mgmt=wpa-psk\npsk=hidden\n", "a psk that no network has"),
        ("wifi.nmconnection", f"{SITE}key-mgmt=sae\npsk-flags=1\npsk=hidden-psk\n", "remove psk-flags=…"),
        ("wifi.nmconnection", f'{SITE}key-mgmt=sae\npsk="hidden-psk"\n', "psk in quotation marks"),
        ("wifi.nmconnection", "[connection]\ntype=ethernet\npermissions=user:alice:;\n", "for one user"),
        ("wifi.nmconnection", "", "is empty"),
        ("a wifi.nmconnection", WIFI, "a name that cannot be used"),
        ("wired.network", "[Network]\nDHCP=yes\n", "no section [Match]"),
        ("authorized_keys", f"{KEY}\nhidden words\n", "line 2: holds no public key"),
        ("authorized_keys", PRIVATE, "line 1: holds no public key"),
        ("allowed_signers", "maintainer@example.org\n", "line 1: holds no public key"),
        ("ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is not a certificate"),
        ("ca.crt", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds a private key"),
        ("ivy.json.txt", "{}", "rename it to ivy.json"),
        ("ivy.json.json", "{}", "rename it to ivy.json"),
        ("ivy (1).json", "{}", "rename it to ivy.json"),
        ("WIFI.NMCONNECTION", WIFI, "rename it to *.nmconnection"),
        ("authorized_keys.pub", KEY, "rename it to authorized_keys"),
        ("ca.cer", AUTHORITY, "rename it to ca.crt"),
        ("ivy.json", '{"hostname": "roof-7",\n"provision" {}}', "line 2, column 13"),
        ("ivy.json", "[" * 100_000, "too deeply nested"),
        ("ivy.json", '["hidden"]', "not a JSON object"),
        pytest.param("ivy.json", f'{{"hostname": {"1" * 5000}}}', "a number of too many digits", id="digits"),
        ("ivy.json", '{"hostname": "roof-7", "hostname": "hidden"}', '"hostname" stands twice'),
        ("ivy.json", '{"\\ud800": 1}', "\\ud800: unknown field"),
        ("ivy.json", "{\u201chostname\u201d: 1}", "only the straight one"),
        ("ivy.json", '{"hostname": "roof_7"}', "hostname: not a name"),
        ("ivy.json", '{"backen": {}}', "did you mean backend"),
        ("ivy.json", json.dumps(PROVISION), 'stands in "provision"'),
        (
            "ivy.json",
            '{"provision": {"host": "x", "provision_secret": "hidden"}}',
            "provision.provision_key: Field",
        ),
        ("ivy.json", json.dumps({"provision": PROVISION, **TENTA}), "provision, backend"),
        (
            "ivy.json",
            json.dumps({"provision": {**PROVISION, "tls": {"enabled": True, "ca_file": "/no/ca"}}}),
            "/no/ca",
        ),
    ],
)
def test_what_is_wrong_is_said_and_stays_and_keeps_nothing_else_from_being_taken(
    card: Card, name: str, content: str, what: str
) -> None:
    card.write(name, content)
    card.write("other.nmconnection", WIFI)
    report = card.take_files()
    assert "WRONG, and looked at again at the next boot:" in report and "All is well" not in report
    assert f"  {name}: " in report and what in report and "What to do: " in report
    assert "hidden" not in report and name in card.names()
    assert "  other.nmconnection: a connection of" in report and "other.nmconnection" not in card.names()


def test_a_folder_is_no_file(card: Card) -> None:
    (card.directory / "ivy.json").mkdir()
    assert "ivy.json: is a folder" in card.take_files()


def test_a_network_of_what_does_not_run_here_is_none(card: Card) -> None:
    card.path("usr/sbin/NetworkManager").unlink()
    card.path("etc/systemd/system/multi-user.target.wants/systemd-networkd.service").unlink()
    card.write("wifi.nmconnection", WIFI)
    card.write("wired.network", "[Match]\nName=e*\n")
    report = card.take_files()
    assert "NetworkManager, which it is for, is not installed" in report
    assert "systemd-networkd, which it is for, does not run" in report
    assert card.names() == ["wifi.nmconnection", "wired.network"]


def test_at_any_instant_a_secret_is_on_the_card_or_where_it_belongs(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power fails after each change of a file's state, later each time, until it is all done."""
    target = card.path("etc/NetworkManager/system-connections/wifi.nmconnection")
    power, limit = Power(monkeypatch, ("fsync", "unlink", "rename", "replace", "write")), 0
    is_over = False
    while not is_over:
        target.unlink(missing_ok=True)
        for path in card.directory.iterdir():
            path.unlink()
        card.write("wifi.nmconnection", WIFI)
        power.calls_left = limit = limit + 1
        try:
            card.take_files()
            is_over = True
        except PowerCut:
            rest = [path.read_text() for path in card.directory.glob("wifi*")]
            assert WIFI in rest or target.read_text() == WIFI
        power.calls_left = 0
        report = card.take_files()
        assert "WRONG" not in report and target.read_text() == WIFI and card.names() == []
    assert limit > 5


def test_what_a_file_becomes_is_synced_before_the_file_goes(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(f"synced {os.readlink(f'/proc/self/fd/{descriptor}')}")
        sync(descriptor)

    def replaced(old: Path, new: Path) -> None:
        done.append(f"replaced {old}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    card.write("wifi.nmconnection", WIFI)
    card.take_files()
    place = card.path("etc/NetworkManager/system-connections")
    gone = done.index(f"replaced {card.directory / 'wifi.nmconnection'}")
    assert any(each.startswith(f"synced {place}/.wifi") for each in done[:gone]), "its content"
    assert f"synced {place}" in done[:gone], "its name"


def test_what_is_removed_is_overwritten(card: Card, tmp_path: Path) -> None:
    card.write("wifi.nmconnection", WIFI)
    os.link(card.directory / "wifi.nmconnection", tmp_path / "sectors")
    card.take_files()
    assert (tmp_path / "sectors").read_bytes() == bytes(len(WIFI))


@pytest.mark.parametrize("known", ["ivy-node", "localhost", ""])
def test_a_host_without_a_name_of_its_own_gets_one(card: Card, releases: Releases, node: Node, known: str) -> None:
    node.fake("systemd-id128", {"*": f"echo {NUMBER}"})
    card.path("etc/hostname").write_text(f"{known}\n")
    card.path("etc/hosts").write_text("127.0.0.1 localhost ivy-node\n127.0.1.1 ivy-node.site ivy-node ivy-node2\n")
    assert "hostname: ivy-012345" in card.take_files()
    assert card.path("etc/hostname").read_text() == "ivy-012345\n"
    if known == "ivy-node":
        hosts = "127.0.0.1 localhost ivy-node\n127.0.1.1 ivy-012345.site ivy-012345 ivy-node2\n"
        assert card.path("etc/hosts").read_text() == hosts
    assert node.calls()[-1].startswith("systemd-id128 machine-id --app-specific=")
    assert card.take_files().count("hostname") == 1, "what was done in this boot is said, and not done again"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"hostname": "roof-7", **TENTA}, "roof-7"),
        ({"general": {"system_identifier": "roof-8"}}, "roof-8"),
        ({"provision": {**PROVISION, "identifier": "roof-9"}}, "roof-9"),
        (TENTA, "roof-1"),
        ({"general": {"system_identifier": "the 9th roof"}}, "roof-1"),
    ],
)
def test_a_host_is_called_as_the_card_says(card: Card, content: dict[str, Any], name: str) -> None:
    card.write("ivy.json", content)
    card.take_files()
    assert card.path("etc/hostname").read_text() == f"{name}\n"


def test_a_config_is_what_the_node_has_with_what_stands_there(
    card: Card, releases: Releases, applied: list[dict[str, Any]]
) -> None:
    card.write("ivy.json", {**TENTA, "system_checks": {"seconds_between_checks": 7}})
    status, report = card.take_all()
    assert status == 0 and "All is well." in report and "ivy.json: the config of this node" in report
    [tried] = applied
    assert tried["system_checks"] == {"seconds_between_checks": 7} and tried["backend"] == BACKEND
    assert tried["general"] == {**CONFIG["general"], "system_identifier": SENSOR}
    assert tried["logging_verbosity"] == CONFIG["logging_verbosity"]
    assert card.names() == ["ivy-report.txt"]
    # As after a power cut before it was removed.
    card.write("ivy.json", {**TENTA, "system_checks": {"seconds_between_checks": 7}})
    assert card.take_all()[0] == 0 and len(applied) == 1 and "ivy.json" not in card.names()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"backend": BACKEND}, "general.system_identifier: 'node-1' is not a UUID"),
        ({"system_checks": {"seconds_between_checks": 0}}, "system_checks.seconds_between_checks: "),
        ({"general": {"software_version": "9.9.9"}}, "general.software_version: this node has 1.0.0"),
        ({"general": []}, "general: must be an object"),
        ({**TENTA, "backend": {**BACKEND, "mqtt_connection": {}}}, "backend.mqtt_connection.host: "),
        ({**TENTA, "archive": {"days": 3}}, "archive.days: unknown field"),
        (
            {**TENTA, "backend": {**BACKEND, "mqtt_connection": {**BACKEND["mqtt_connection"], "password": "***"}}},
            "password: is ***",
        ),
        (
            {
                **TENTA,
                "backend": {
                    **BACKEND,
                    "mqtt_connection": {
                        **BACKEND["mqtt_connection"],
                        "tls": {"enabled": True, "ca_file": "/no/ca"},
                    },
                },
            },
            "backend.mqtt_connection.tls.ca_file: there is no /no/ca",
        ),
    ],
)
def test_a_config_that_cannot_be_used_is_said_and_stays(
    card: Card, applied: list[dict[str, Any]], content: dict[str, Any], what: str
) -> None:
    card.write("ivy.json", content)
    status, report = card.take_all()
    assert (status, applied, card.names()) == (78, [], ["ivy-report.txt", "ivy.json"])
    assert f"ivy.json: {what}" in report.replace("backend.mqtt_connection.password", "password")
    assert "hidden" not in report


def test_a_config_that_was_undone_is_tried_again_and_the_report_says_why(
    card: Card, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject(_text: str) -> int:
        with history.update() as past:
            decided = Offer(identifier="admin-1", config=foreign(), accepted=False, reason="no connection")
            past.decisions = [decided]
        return 1

    monkeypatch.setattr(update, "apply_text", reject)
    card.write("ivy.json", TENTA)
    status, report = card.take_all()
    assert status == 75 and "ivy.json" in card.names()
    assert "what ran before runs again: no connection" in report and "All is well." not in report


def test_what_is_still_on_trial_stays_on_the_card(card: Card, releases: Releases, node: Node) -> None:
    """As after a power cut during the trial: what is undone in the end, nobody has but the card."""
    card.write("ivy.json", TENTA)
    before, version = releases.active_text(), releases.active_config().general.software_version
    releases.begin_probation()
    releases.write_config(
        version, json.dumps({**CONFIG, **TENTA, "general": {**CONFIG["general"], **TENTA["general"]}})
    )
    status, report = card.take_all()
    assert status == 75 and "ivy.json" in card.names()
    assert "ivy.json waits: its config is on trial." in report and "All is well." not in report
    releases.end_probation()
    assert card.take_all()[0] == 0 and "ivy.json" not in card.names()
    releases.write_config(version, before)


@pytest.mark.parametrize("by", ["trial", "lock"])
def test_what_was_undone_disturbs_nobody_when_it_is_tried_again(
    card: Card, releases: Releases, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    tried: list[str] = []

    def reject(text: str) -> int:
        tried.append(text)
        return 1

    def try_again(sensor: str = SENSOR) -> tuple[int, str]:
        card.write("ivy.json", {**TENTA, "general": {"system_identifier": sensor}})
        return card.take_all()

    monkeypatch.setattr(update, "apply_text", reject)
    for _ in range(2):  # alone it is tried each time
        assert try_again()[0] == 75
    assert len(tried) == 2
    with contextlib.ExitStack() as busy:
        if by == "lock":
            busy.enter_context(with_automation_lock())
            words = "is changing this installation"
        else:
            releases.begin_probation()
            busy.callback(releases.end_probation)
            words = "another change is on trial"
        status, report = try_again()
        assert (status, len(tried)) == (75, 2) and "ivy.json waits: " in report and words in report
        try_again(SENSOR.replace("4", "5"))
        assert len(tried) == 3, "somebody has come and corrected it"
    assert try_again()[0] == 75 and len(tried) == 4


def test_a_registration_is_left_where_its_service_looks_before_the_card_is_without_it(
    card: Card, releases: Releases, node: Node, applied: list[dict[str, Any]]
) -> None:
    (card.root / "etc/hostname").write_text("roof-1\n")
    card.write("ivy.json", {"provision": PROVISION})
    status, report = card.take_all()
    left = Path(constants.PROVISION_FILE)
    assert json.loads(left.read_text()) == {"identifier": "roof-1", **PROVISION}
    assert left.stat().st_mode & 0o777 == 0o600
    assert (status, applied, card.names()) == (0, [], ["ivy-report.txt"])
    assert "This node registers at tb.example.org as roof-1." in report and "hidden" not in report
    assert any("restart" in call and "ivy-provision.service" in call for call in node.calls())


@pytest.mark.parametrize(
    ("status", "is_left", "said"),
    [
        ("0", False, "provision: this node is registered, and delivers"),
        ("75", True, "This node is not registered yet: nobody answered"),
        ("1", True, "provision: nobody answered"),
    ],
)
def test_what_became_of_a_registration_is_said_on_the_card(
    card: Card,
    releases: Releases,
    node: Node,
    ivy_of_node: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    is_left: bool,
    said: str,
) -> None:
    node.fake("journalctl", {"*INVOCATION*": "echo nobody answered", "*": "true"})
    monkeypatch.setenv("EXIT_STATUS", status)
    left = Path(constants.PROVISION_FILE)
    if is_left:
        left.write_text("{}")
    assert ivy_of_node("report-registration", str(card.directory))[0] == 0
    assert card.names() == [], "nobody has written onto this card"
    card.write("ivy-report.txt", "")
    ivy_of_node("report-registration", str(card.directory))
    report = (card.directory / "ivy-report.txt").read_bytes().decode("utf-8-sig")
    assert (
        said in report and ("All is well." in report) == (status == "0") and ("WRONG" in report) == (status == "1")
    )
    left.unlink(missing_ok=True)


def test_what_is_wrong_with_another_file_is_still_said_when_the_node_is_registered(
    card: Card,
    releases: Releases,
    node: Node,
    ivy_of_node: Callable[..., tuple[int, str, str]],
    applied: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Report.__init__, "__defaults__", (card.notes,))
    node.fake("journalctl", {"*": "echo nobody answered"})
    card.write("authorized_keys", "no key\n")
    card.write("ivy.json", {"provision": PROVISION})
    assert card.take_all()[0] == 78
    for status, said in (("1", "provision: nobody answered"), ("0", "provision: this node is registered")):
        if status == "0":
            files.remove(constants.PROVISION_FILE)
        monkeypatch.setenv("EXIT_STATUS", status)
        ivy_of_node("report-registration", str(card.directory))
        report = (card.directory / "ivy-report.txt").read_bytes().decode("utf-8-sig")
        assert said in report and report.count("authorized_keys: line 1: holds no public key") == 1
        assert "All is well." not in report
    assert "nobody answered" not in report


def test_a_card_that_takes_nothing_stops_nothing(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(card.directory / "gone", card.notes)
    report.take("ca.crt", "x")
    report.write()
    assert "cannot be written" in capsys.readouterr().err


def test_a_card_that_takes_no_report_keeps_no_config_from_being_used(
    card: Card, applied: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that is read-only, or full."""
    card.write("ivy.json", TENTA)
    report = Report(card.directory / "gone", card.notes)
    wished = command.take_files(card.directory, report, card.root)
    assert wished is not None
    assert command.take_config(card.directory, wished, report, card.root) == 0
    assert len(applied) == 1 and "ivy.json" not in card.names()
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_what_cannot_be_removed_is_told_as_it_may_be_secret(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr(texts, "wipe", refuse)
    card.write("wifi.nmconnection", WIFI)
    report = card.take_files()
    assert "wifi.nmconnection: was taken in, and cannot be removed here: Read-only file system" in report
    assert "it may hold a secret" in report and "All is well." not in report
    assert card.path("etc/NetworkManager/system-connections/wifi.nmconnection").read_text() == WIFI


def test_what_cannot_be_removed_undoes_nothing_at_the_next_boot(
    card: Card, releases: Releases, applied: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or who has moved the broker since would lose the node, if the old one is still there."""

    def refuse(_path: Path) -> None:
        raise OSError("Read-only file system")

    wipe = texts.wipe
    monkeypatch.setattr(texts, "wipe", refuse)
    card.write("ivy.json", {**TENTA, "hostname": "roof-7"})
    assert card.take_all()[0] == 78
    moved = {**applied[0], "backend": {**BACKEND, "mqtt_connection": {**BACKEND["mqtt_connection"], "host": "new"}}}
    releases.write_config(releases.active_config().general.software_version, json.dumps(moved))
    status, report = card.take_all()
    assert status == 78 and "ivy.json: was taken in, and cannot be removed here" in report
    assert len(applied) == 1 and json.loads(releases.active_text()) == moved
    card.write("ivy.json", {**TENTA, "system_checks": {"seconds_between_checks": 7}})
    assert card.take_all()[0] == 78 and len(applied) == 2, "somebody has written another one"
    monkeypatch.setattr(texts, "wipe", wipe)
    assert card.take_all()[0] == 0 and "ivy.json" not in card.names()
    releases.write_config(releases.active_config().general.software_version, json.dumps(moved))
    card.write("ivy.json", {**TENTA, "system_checks": {"seconds_between_checks": 7}})
    assert card.take_all()[0] == 0 and len(applied) == 3, "the same again, on purpose"


def test_a_directory_that_is_not_there_is_named(
    releases: Releases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(update, "require_admin", lambda **_: None)
    with pytest.raises(SystemExit, match="2"):
        command.run(argparse.Namespace(directory="/media/cart", files_only=False))
    assert capsys.readouterr().err == "ivy: /media/cart is not a directory\n"
