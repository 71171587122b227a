"""The APT repository, by itself, and a real APT that takes from it."""

import gzip
import lzma
import os
import pty
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from repository.keys import private
from repository.layout import Repository
from repository.publication import Wish, publish
from testbed.run import Argv, clean_environment, run

from ivy.utils.host import package_manager
from tests.support.background_server import BackgroundServer
from tests.support.releases import PROJECT

CONTROL = """\
Package: ivy
Version: 1:%s
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: x
"""
OLD, NEW = "9.9.9", "9.9.10"
EVIL = "9.9.9-evil"
SCRIPT = PROJECT / "packaging/apt-repository"


class Desk:
    """Where packages are published, as `apt` below a directory, by the key beside it; the old one is, already."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.published, self.key = directory, directory / "apt", directory / "key"
        self.public = self.published / "ivy-archive-keyring.asc"
        self.publish(OLD, "--make-key")

    def package(self, version: str) -> Path:
        """A package of that version, which has nothing in it."""
        package = self.directory / f"ivy_{version}_all.deb"
        if not package.exists():
            source = self.directory / "package"
            (source / "DEBIAN").mkdir(parents=True, exist_ok=True)
            (source / "DEBIAN" / "control").write_text(CONTROL % version)
            run(["dpkg-deb", "--root-owner-group", "--build", source, package])
        return package

    def command(self, version: str, *arguments: str | Path) -> list[str | Path]:
        """What publishes a version; by the usual key, unless others are named."""
        keys: Argv = [] if "--key" in arguments else ["--key", self.key]
        where: Argv = ["--output", self.published, "--codename", "trixie"]
        return [SCRIPT, *keys, *where, *arguments, self.package(version)]

    def publish(self, version: str, *arguments: str | Path) -> str:
        """Publish a version. Returns what was said."""
        return run(self.command(version, *arguments), timeout=120).stdout

    def refuses(self, version: str, *arguments: str | Path) -> str:
        """Do not succeed in it, and change nothing. Returns why."""
        before = self.content()
        done = run(self.command(version, *arguments), check=False, timeout=120)
        assert done.returncode == 1
        assert self.content() == before
        return done.stderr

    def content(self) -> dict[Path, bytes]:
        """All files that are published."""
        return {path: path.read_bytes() for path in self.published.rglob("*") if path.is_file()}

    def faults(self) -> list[str]:
        """What `--check` complains about; nothing if the repository is whole."""
        done = run([SCRIPT, "--check", "--output", self.published], check=False)
        assert (done.returncode == 0) is (not done.stderr) and done.returncode in (0, 1)
        return done.stderr.splitlines()


class Apt:
    """APT of a machine that has this repository and no other, in a directory of its own."""

    def __init__(self, desk: Desk, directory: Path, url: str | None = None) -> None:
        self.directory, self.published = directory, desk.published
        self.trusted = directory / "trusted.asc"
        for name in ("etc/apt/preferences.d", "etc/apt/apt.conf.d", "lists/partial", "archives/partial"):
            (directory / name).mkdir(parents=True)
        (directory / "status").touch()
        places = {
            "Dir::Etc": directory / "etc/apt",
            "Dir::State::lists": directory / "lists",
            "Dir::State::status": directory / "status",
            "Dir::Cache": directory,
            "Dir::Cache::archives": directory / "archives",
            "APT::Sandbox::User": "root",
            "Acquire::GzipIndexes": "true",  # as some images have it
            "Acquire::Languages": "none",
            "Acquire::http::Proxy": "DIRECT",
            "Debug::NoLocking": "true",
        }
        (directory / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in places.items()))
        shutil.copy(PROJECT / "debian/ivy.apt", directory / "etc/apt/apt.conf.d/50ivy")
        self.trust(desk.public)
        line = f"deb [signed-by={self.trusted}] {url or f'file:{self.published}'} trixie main\n"
        (directory / "etc/apt/sources.list").write_text(line)

    def trust(self, public: Path) -> None:
        """Take what is signed by these keys."""
        shutil.copy(public, self.trusted)
        self.trusted.chmod(0o644)

    def get(self, *arguments: str) -> tuple[int, str]:
        """Exit status and words of apt-get."""
        known = {"APT_CONFIG": str(self.directory / "apt.conf"), "LC_ALL": "C"}
        done = run(["apt-get", *arguments], check=False, timeout=60, env=known)
        return done.returncode, done.stdout + done.stderr

    def updates(self) -> str:
        """Fetch all lists, or fail. Returns what was said."""
        status, said = self.get("update", "--error-on=any")
        assert status == 0, said
        return said

    def takes(self, version: str, *pinned: str) -> None:
        """Fetch the package, which is that version, or fail."""
        status, said = self.get("install", "--download-only", "--yes", *(pinned or ["ivy"]))
        assert status == 0, said
        assert f"Inst ivy (1:{version} " in self.get("install", "--simulate", *(pinned or ["ivy"]))[1]

    def has(self, version: str) -> None:
        """From now on, a version is installed."""
        state = "Status: install ok installed\n"
        (self.directory / "status").write_text(CONTROL.replace("Version", f"{state}Version") % version)

    def index(self) -> list[Path]:
        """The lists of packages, in all forms and under all names."""
        names = [path for path in (self.published / "dists").rglob("*") if path.is_file()]
        return [path for path in names if path.name.startswith("Packages") or "by-hash" in path.parts]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


@pytest.fixture
def apt(desk: Desk, tmp_path: Path) -> Apt:
    return Apt(desk, tmp_path / "node")


def _change_the_package(apt: Apt) -> None:
    [package] = apt.published.rglob("*.deb")
    package.write_bytes(package.read_bytes()[:-1] + b"!")


def _change_the_lists(apt: Apt) -> None:
    for path in apt.index():
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            path.write_bytes(gzip.compress(_evil(gzip.decompress(content))))
        elif content.startswith(b"\xfd7zX"):
            path.write_bytes(lzma.compress(_evil(lzma.decompress(content))))
        elif content.startswith(b"BZh"):
            path.unlink()
        else:
            path.write_bytes(_evil(content))


def _evil(content: bytes) -> bytes:
    return content.replace(b"9.9.9", EVIL.encode())


def _change_what_is_signed(apt: Apt) -> None:
    for path in (apt.published / "dists").rglob("*Release"):
        path.write_bytes(path.read_bytes().replace(b"Origin: ivy", b"Origin: evil"))


def _take_the_signature_away(apt: Apt) -> None:
    [signed] = (apt.published / "dists").rglob("InRelease")
    text = signed.read_text().partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE")[0]
    signed.with_name("Release").write_text(text)
    signed.unlink()


def _sign_by_somebody_else(apt: Apt) -> None:
    shutil.rmtree(apt.published)
    Desk(apt.published.parent / "other").published.rename(apt.published)


def test_a_repository_is_taken_as_it_was_published(apt: Apt) -> None:
    apt.updates()
    apt.takes(OLD)


@pytest.mark.parametrize(
    "tamper",
    [
        _change_the_package,
        _change_the_lists,
        _change_what_is_signed,
        _take_the_signature_away,
        _sign_by_somebody_else,
    ],
)
def test_nothing_is_taken_of_one_that_was_tampered_with(apt: Apt, tamper: Callable[[Apt], None]) -> None:
    """By whoever has the web server, or the line: before the node knows it."""
    tamper(apt)
    update, said = apt.get("update")
    install, more = apt.get("install", "--download-only", "--yes", "ivy")
    assert install != 0, said + more
    assert list((apt.directory / "archives").glob("*.deb")) == []
    assert update != 0 or "Hash Sum mismatch" in more or "unexpected size" in more, said + more


@contextmanager
def served(root: Path, on_request: Callable[[str], None]) -> Iterator[str]:
    """A web server. Before a file is served, somebody is told which. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            on_request(self.path)
            file = root / self.path.lstrip("/")
            content = file.read_bytes() if file.is_file() else b""
            self.send_response(200 if file.is_file() else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    background = BackgroundServer(server)
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        background.close()


def test_a_node_is_in_the_middle_when_it_is_published_again(desk: Desk, tmp_path: Path) -> None:
    """It has what is signed, and not yet the lists that this names; then the lists, and not yet the package."""
    asked: list[str] = []
    turn = threading.Lock()

    def publish_before_the_lists(path: str) -> None:
        with turn:
            if "/main/" in path and "/dists/" in path and not asked:
                asked.append(path)
                desk.publish(NEW)

    with served(desk.published, publish_before_the_lists) as url:
        apt = Apt(desk, tmp_path / "node", url)
        apt.updates()
        assert "/by-hash/" in asked[0]
        apt.takes(OLD)
        apt.updates()
        desk.publish("9.9.11", "--withdraw", NEW)
        apt.takes(NEW)
        apt.updates()
        apt.takes("9.9.11")


def test_a_copy_is_published_again_as_well(desk: Desk, apt: Apt) -> None:
    desk.publish(NEW)
    copy = desk.published.with_name("copy")
    run(["cp", "--recursive", desk.published, copy])  # which makes two files of one with two names
    shutil.rmtree(desk.published)
    copy.rename(desk.published)
    former = {path: content for path, content in desk.content().items() if "by-hash" in path.parts}
    assert former and desk.faults() == []
    desk.publish("9.9.11")
    assert former.items() <= desk.content().items() and desk.faults() == []
    apt.updates()
    apt.takes("9.9.11")
    apt.takes(OLD, f"ivy=1:{OLD}")


def test_what_other_tools_have_left_is_mended(desk: Desk, apt: Apt) -> None:
    """Such as aptly, which had overwritten all former lists."""
    suite = desk.published / "dists/trixie"
    lists = suite / "main/binary-amd64"
    [by_hash] = (lists / "by-hash/SHA256").iterdir()
    wrong = by_hash.with_name("0" * 64)
    strange = [wrong, suite / "Release", suite / "Release.gpg", lists / "Packages.gz", lists / "Release"]
    for path in strange:
        path.write_text("of before")
    former = [by_hash.with_name("Packages.gz.old"), by_hash.with_name("Packages.xz")]
    for path, target in zip(former, ["gone", by_hash.name], strict=True):
        path.symlink_to(target)
    assert len(desk.faults()) == 3 and str(wrong) in desk.faults()[0]
    desk.publish(NEW)
    assert not any(path.exists() or path.is_symlink() for path in [*strange, *former])
    assert desk.faults() == []
    apt.updates()
    apt.takes(NEW)


def make_key(file: Path, expires: str) -> None:
    """A key that was made in 2020."""
    home = file.with_name(f"{file.name}-home")
    home.mkdir(mode=0o700)
    gpg: Argv = ["gpg", "--batch", "--homedir", home, "--pinentry-mode", "loopback", "--passphrase", ""]
    run([*gpg, "--faked-system-time", "20200101T000000", "--quick-generate-key", "x", "ed25519", "sign", expires])
    file.write_text(run([*gpg, "--armor", "--export-secret-keys"]).stdout)
    run(["gpgconf", "--homedir", home, "--kill", "all"])


def test_a_signature_that_fails_changes_nothing(desk: Desk, apt: Apt, tmp_path: Path) -> None:
    expired = tmp_path / "expired"
    make_key(expired, "1d")
    choices: list[Argv] = [["--key", expired], ["--key", desk.key, "--key", expired]]
    for keys in choices:
        desk.refuses(NEW, "--new-key", *keys)
    assert desk.faults() == []
    apt.updates()
    apt.takes(OLD)


def test_a_publication_ends_at_any_instant(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(desk.published, "trixie")
    renames, rename = 0, Path.rename

    def fail_at_the_last(path: Path, target: Path) -> Path:
        nonlocal renames
        renames -= 1
        if renames < 0:
            raise OSError("No space left on device")
        return rename(path, target)

    with (
        served(desk.published, lambda _path: None) as url,
        private([desk.key], False, repository.public_key, False) as keys,
        monkeypatch.context() as patched,
    ):
        apt = Apt(desk, tmp_path / "node", url)
        patched.setattr(Path, "rename", fail_at_the_last)
        for before in range(100):
            renames = before
            try:
                publish(repository, Wish([desk.package(NEW)]), keys)
                break
            except OSError:
                apt.updates()
                apt.takes(OLD)
        assert before > 3
        apt.updates()
        apt.takes(NEW)
    assert desk.faults() == []
    assert list(desk.published.rglob(".*")) == []


def test_a_version_is_published_once(desk: Desk) -> None:
    desk.package(OLD).unlink()
    (desk.directory / "package" / "changed").touch()
    assert "is another one" in desk.refuses(OLD)


def test_a_withdrawn_version(desk: Desk, apt: Apt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_manager, "LISTS", str(apt.directory / "lists"))
    desk.publish(NEW)
    apt.updates()
    apt.takes(NEW)
    assert package_manager.withdrawn() == set()
    said = desk.publish(NEW, "--withdraw", NEW)
    assert f"left out, as it was withdrawn: ivy 1:{NEW}" in said and desk.faults() == []
    apt.updates()
    apt.takes(OLD)  # who is not pinned
    assert apt.get("install", "--simulate", f"ivy=1:{NEW}")[0] != 0
    assert package_manager.withdrawn() == {NEW}  # who has it is told
    apt.has(NEW)
    assert "0 upgraded, 0 newly installed" in apt.get("upgrade", "--simulate")[1]
    desk.publish("9.9.11")
    desk.publish(NEW)  # by mistake: it stays withdrawn
    apt.updates()
    assert f"Inst ivy [1:{NEW}] (1:9.9.11 " in apt.get("upgrade", "--simulate")[1]
    assert package_manager.withdrawn() == {NEW}


def test_only_what_is_there_is_withdrawn(desk: Desk) -> None:
    assert f"There is ivy 1:{OLD}" in desk.refuses(OLD, "--withdraw", "1.2.3")


def test_a_key_is_replaced(desk: Desk, apt: Apt, tmp_path: Path) -> None:
    """As ivy-fleet(7) says: two keys sign, nodes get both, then the new one signs alone."""
    new = tmp_path / "new"
    late = Apt(desk, tmp_path / "late")
    desk.publish(OLD, "--key", desk.key, "--key", new, "--make-key", "--new-key")
    assert desk.faults() == []
    apt.updates()  # it has the old one yet
    late.updates()
    apt.trust(desk.public)
    apt.updates()
    desk.publish(NEW, "--key", desk.key, "--key", new)  # no question meanwhile
    assert "--new-key" in desk.refuses(NEW, "--key", new)
    desk.publish(NEW, "--key", new, "--new-key")
    assert desk.faults() == []
    apt.updates()
    apt.takes(NEW)
    assert late.get("update", "--error-on=any")[0] != 0  # and is late
    apt.trust(desk.public)
    apt.updates()


def test_no_key_is_made_for_a_repository_that_has_one(desk: Desk, tmp_path: Path) -> None:
    mistyped = tmp_path / "ivy-atp.key"
    refused = desk.refuses(NEW, "--make-key", "--key", mistyped)
    assert str(desk.public) in refused and str(mistyped) in refused and "--new-key" in refused
    assert not mistyped.exists()
    assert "there is no key" in desk.refuses(NEW, "--key", mistyped)


@pytest.mark.parametrize(("answer", "is_published"), [("y", True), ("n", False), ("", False)])
def test_another_key_is_asked_about(desk: Desk, tmp_path: Path, answer: str, is_published: bool) -> None:
    other = tmp_path / "other"
    make_key(other, "never")
    before = desk.content()
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    command = desk.command(NEW, "--key", other)
    environment = clean_environment()
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, env=environment, check=False)
    os.close(ours)
    os.close(theirs)
    assert re.search(r"has [0-9A-F]{40}; what signs now is [0-9A-F]{40}\.", done.stderr)
    assert (done.returncode == 0) is (desk.content() != before) is is_published


def test_a_repository_that_holds_for_some_days(desk: Desk, apt: Apt, tmp_path: Path) -> None:
    repository = Repository(desk.published, "trixie")
    desk.publish(NEW, "--valid-days", "2")
    apt.updates()
    signed = desk.published / "dists/trixie/InRelease"
    found = dict(re.findall(r"(?m)^(Date|Valid-Until): (.*)$", signed.read_text()))
    begin, end = (parsedate_to_datetime(found[name]) for name in ("Date", "Valid-Until"))
    assert (end - begin).days == 2
    with private([desk.key], False, repository.public_key, False) as keys:
        text = keys.verify(signed)[1].replace(found["Valid-Until"], found["Date"])
        (tmp_path / "Release").write_text(text)
        keys.sign(tmp_path / "Release", signed)  # as if it were two days later
    assert ["was valid until" in fault for fault in desk.faults()] == [True]
    status, said = Apt(desk, tmp_path / "other").get("update", "--error-on=any")
    assert status != 0 and "is expired" in said
    desk.publish(NEW)
    assert "Valid-Until" not in signed.read_text() and desk.faults() == []
    apt.updates()


def _remove_the_key(desk: Desk) -> None:
    desk.public.unlink()


def _remove_a_package(desk: Desk) -> None:
    """A former one, that a node may be about to fetch."""
    [package] = desk.published.rglob(f"*_{OLD}_*")
    package.unlink()


def _change_a_package(desk: Desk) -> None:
    [package] = desk.published.rglob(f"*_{OLD}_*")
    package.write_bytes(package.read_bytes()[:-1] + b"!")


def _change_a_list(desk: Desk) -> None:
    index = desk.published / "dists/trixie/main/binary-arm64/Packages.xz"
    index.write_bytes(lzma.compress(b"Package: x\nVersion: 1\n"))


def _change_a_former_list(desk: Desk) -> None:
    suite = desk.published / "dists/trixie"
    signed = (suite / "InRelease").read_text()
    former = [path for path in suite.glob("main/binary-armhf/by-hash/SHA256/*") if path.name not in signed]
    former[0].write_bytes(b"x")


def _lose_a_list_by_hash(desk: Desk) -> None:
    for path in (desk.published / "dists/trixie/main/binary-amd64/by-hash/SHA256").iterdir():
        path.unlink()


def _change_the_release(desk: Desk) -> None:
    signed = desk.published / "dists/trixie/InRelease"
    signed.write_text(signed.read_text().replace("Origin: ivy", "Origin: evil"))


def _change_the_keys(desk: Desk) -> None:
    other = desk.directory / "other"
    make_key(other, "never")
    with private([desk.key, other], False, desk.directory / "none", True) as keys:
        desk.public.write_text(keys.public)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_remove_the_key, "ivy-archive-keyring.asc is missing"),
        (_remove_a_package, rf"ivy_{OLD}_all.deb \(ivy 1:{OLD}\) is missing"),
        (_change_a_package, rf"ivy_{OLD}_all.deb \(ivy 1:{OLD}\) is not what an index says"),
        (_change_a_list, "Packages.xz is not what was signed"),
        (_change_a_former_list, "is no file of this checksum"),
        (_lose_a_list_by_hash, r"by-hash/SHA256/\w+ is missing"),
        (_change_the_release, "InRelease has no signature that holds"),
        (_change_the_keys, r"InRelease is not signed by [0-9A-F]{40}, which"),
    ],
)
def test_a_check_finds(desk: Desk, damage: Callable[[Desk], None], words: str) -> None:
    desk.publish(NEW)
    damage(desk)
    faults = desk.faults()
    assert any(re.search(words, fault) for fault in faults), faults
