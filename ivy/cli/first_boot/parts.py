"""The files of a card that are taken in at once, all but `ivy.json`: what each must be, and where it gets to."""

import fnmatch
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ivy import files
from ivy.cli.first_boot import texts
from ivy.cli.first_boot.texts import Mistake
from ivy.cli.first_boot.wishes import FILE
from ivy.utils.host import commands
from ivy.utils.updates import signers

_FOR_ROOT, _FOR_ALL = 0o600, 0o644
PATTERNS = ("*.nmconnection", "*.network", "authorized_keys", "allowed_signers", "ca.crt")
_ALMOST = {
    name: re.compile(almost, re.IGNORECASE)
    for name, almost in {
        FILE: r"ivy( .*|\(.*)?\.json(\..*)?",
        "*.nmconnection": r".*\.nmconnection(\..*)?",
        "*.network": r".*\.network(\..*)?",
        "authorized_keys": r"authorized_keys(\..*)?",
        "allowed_signers": r"allowed_signers(\..*)?",
        "ca.crt": r"ca\.(cer|der|pem|crt(\..*)?)",
    }.items()
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SECTION = re.compile(r"\[[^\]\[]+\]")
_SEE = "see nm-settings-keyfile(5)"
_OF_ANY_TYPE = {"connection", "ipv4", "ipv6", "match", "proxy", "user"}
_WIFI, _SECURITY = ("wifi", "802-11-wireless"), ("wifi-security", "802-11-wireless-security")
_REFUSAL = re.compile(r"Error: (?:Error writing connection: )?(\S+\.\S+: .+|invalid connection type; .+)$")
_SECONDS = 60.0
_PSK = re.compile(r".{8,63}|[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Taken:
    """What is to become of a file."""

    target: Path
    content: bytes
    mode: int
    use: str
    """In words, for whoever has written it."""


def found(card: Path) -> list[Path]:
    """The files of a card that are for this."""
    return [path for pattern in PATTERNS for path in _visible(card, pattern)]


def misnamed(card: Path) -> Iterator[tuple[str, Mistake]]:
    """Files whose names only look right at a desk: Windows hides their ends, and browsers number a second one.

    For a FAT, ca.crt and CA.CRT are one name; patterns know only small letters.
    """
    for path in _visible(card, "*"):
        for name, almost in _ALMOST.items():
            is_it = fnmatch.fnmatchcase(path.name, name) or (path.name.lower() == name and (card / name).exists())
            if almost.fullmatch(path.name) and not is_it and not texts.is_being_wiped(path):
                yield path.name, _misnamed(path.name, name)


def _misnamed(name: str, meant: str) -> Mistake:
    if name.endswith(".txt"):
        return Mistake("has .txt at its end, which Windows hides", f"rename it to {name[:-4]}")
    return Mistake("has a name that nobody looks for", f"rename it to {meant}")


def _visible(card: Path, pattern: str) -> list[Path]:
    """But for what macOS writes beside each file."""
    return sorted(path for path in card.glob(pattern) if not path.name.startswith("."))


def read(path: Path, root: Path) -> Taken:
    """Look at a file.

    Args:
        path: The file.
        root: Below which the node's files are.

    Raises:
        Mistake: It cannot be taken in.
    """
    if not _NAME.fullmatch(path.name):
        raise Mistake("has a name that cannot be used", "letters, digits, . _ and - may stand in it")
    content = texts.read(path)
    if path.name == "ca.crt":
        return _authority(content, root)
    text = texts.text_of(content)
    if path.name == "authorized_keys":
        return _keys(text, root)
    if path.name == "allowed_signers":
        return _signers(text, root)
    return _network(path.name, text, root)


def put(taken: Taken) -> None:
    """Let a file be in its place, durably. May be done twice.

    Raises:
        OSError: It cannot be written.
    """
    taken.target.parent.mkdir(mode=0o700 if taken.mode == _FOR_ROOT else 0o755, parents=True, exist_ok=True)
    files.write_atomically(taken.target, taken.content, mode=taken.mode)


def _network(name: str, text: str, root: Path) -> Taken:
    sections = _sections(text)
    if name.endswith(".network"):
        if "Match" not in sections:
            raise Mistake("has no section [Match]", "see systemd.network(5)")
        if not (root / "etc/systemd/system/multi-user.target.wants/systemd-networkd.service").is_symlink():
            remedy = "write a *.nmconnection, or let it run: systemctl enable systemd-networkd"
            raise Mistake("systemd-networkd, which it is for, does not run on this node", remedy)
        # Of several files that match the first one counts, and what comes with a distribution is 80-….
        first = name if name[0].isdigit() else f"10-{name}"
        return Taken(
            root / "etc/systemd/network" / first, text.encode(), _FOR_ALL, "a network of systemd-networkd's"
        )
    _check_connection(sections)
    if not (root / "usr/sbin/NetworkManager").exists():
        raise Mistake("NetworkManager, which it is for, is not installed on this node", "write a *.network")
    if why := _refusal_by_network_manager(text, root):
        raise Mistake(f"NetworkManager does not take it: {why}", _SEE)
    place = root / "etc/NetworkManager/system-connections" / name
    return Taken(place, text.encode(), _FOR_ROOT, f"a connection of NetworkManager's{_only_for(sections)}")


def _refusal_by_network_manager(text: str, root: Path) -> str | None:
    """What it will say of a connection, and then nobody sees: by the program that judges without the daemon."""
    program = ["/usr/bin/env", "LC_ALL=C", str(root / "usr/bin/nmcli"), "--offline"]
    try:
        commands.run([*program, "connection", "modify", "connection.id", "site"], timeout=_SECONDS, input=text)
    except commands.CommandError as error:
        found = _REFUSAL.search(error.output)
        return found[1] if found else None
    return None


def _only_for(sections: dict[str, dict[str, str]]) -> str:
    """Which device it is for, if for one only: one that was made on a laptop names that one's."""
    named = [sections["connection"].get("interface-name")]
    named += [section.get("mac-address") for section in sections.values()]
    return "".join(f", for {device} and no other device" for device in filter(None, named))


def _check_connection(sections: dict[str, dict[str, str]]) -> None:
    """See to what a connection cannot come about without; the rest is NetworkManager's to judge."""
    if "connection" not in sections:
        raise Mistake("has no section [connection]", _SEE)
    kind = sections["connection"].get("type")
    if kind is None and sections.keys() <= _OF_ANY_TYPE:
        raise Mistake("says no type", f"type=wifi or type=ethernet in [connection]; {_SEE}")
    if sections["connection"].get("permissions"):
        raise Mistake("is for one user, who never logs in here", "remove permissions=… in [connection]")
    wifi, security = (
        next((sections[name] for name in names if name in sections), None) for names in (_WIFI, _SECURITY)
    )
    if (kind in _WIFI or wifi is not None) and not (wifi or {}).get("ssid"):
        raise Mistake("says no ssid", f"ssid=… in [wifi]; {_SEE}")
    if security and security.get("key-mgmt") in ("wpa-psk", "sae"):
        psk = security.get("psk", "")
        if not psk:
            raise Mistake("says no psk, and nobody is there to type it", f"psk=… in [wifi-security]; {_SEE}")
        if security.get("psk-flags", "0") != "0":
            raise Mistake("has a psk that NetworkManager does not read", "remove psk-flags=… in [wifi-security]")
        if psk[0] == psk[-1] == '"':
            raise Mistake("has a psk in quotation marks, which would be part of it", "psk=… without them")
        if security["key-mgmt"] == "wpa-psk" and not _PSK.fullmatch(psk):
            raise Mistake("has a psk that no network has", "8 to 63 characters, or 64 hexadecimal digits")


def _sections(text: str) -> dict[str, dict[str, str]]:
    """The sections of an INI file, each line of which must be of that form, with the last value of each name."""
    found = dict[str, dict[str, str]]()
    section = None
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if _SECTION.fullmatch(line):
            section = found.setdefault(line[1:-1], {})
        elif line and line[0] not in "#;":
            name, is_one, value = line.partition("=")
            if section is None or not is_one:
                raise Mistake(f"line {number}: is neither [section] nor name=value", "correct this line")
            section[name.strip()] = value.strip()
    return found


def _keys(text: str, root: Path) -> Taken:
    """Those that there are stay: nobody is locked out."""
    for number, is_key in signers.lines_with_a_key(text.encode()).items():
        if not is_key:
            raise Mistake(f"line {number}: holds no public key", "a line of a .pub file, as ssh-keygen has made it")
    if "PRIVATE KEY" in text:
        raise Mistake("holds a private key, which nobody else may ever see", "take the file beside it, *.pub")
    target = root / "root/.ssh/authorized_keys"
    known = target.read_text(encoding="utf-8", errors="surrogateescape") if target.is_file() else ""
    known = known if not known or known.endswith("\n") else f"{known}\n"
    added = [line for line in text.splitlines() if line.strip() and line not in known.splitlines()]
    content = known + "".join(f"{line}\n" for line in added)
    return Taken(target, content.encode(errors="surrogateescape"), _FOR_ROOT, "may log in as root, by SSH")


def _signers(text: str, root: Path) -> Taken:
    for number, is_key in signers.lines_with_a_key(text.encode()).items():
        if not is_key:
            raise Mistake(f"line {number}: holds no public key", 'NAME namespaces="git" ssh-ed25519 AAAA…')
    return Taken(root / "etc/ivy/allowed_signers", text.encode(), _FOR_ALL, "may sign versions")


def _authority(content: bytes, root: Path) -> Taken:
    """As text; Windows exports the other form."""
    text = ssl.DER_cert_to_PEM_cert(content) if content.startswith(b"\x30\x82") else texts.text_of(content)
    if "PRIVATE KEY" in text:
        raise Mistake("holds a private key", "only the authority's certificate belongs here")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise Mistake("is not a certificate", "PEM (-----BEGIN CERTIFICATE-----) or DER; copy it again") from None
    return Taken(root / "etc/ivy/ca.crt", text.encode(), _FOR_ALL, 'for "ca_file": "/etc/ivy/ca.crt"')
