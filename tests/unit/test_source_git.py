"""Fetching with the real git, from a repository on this disk; where there would be a sandbox, there is none."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy.types.config import UpdaterConfig
from ivy.utils.host.commands import CommandError
from ivy.utils.updates import source
from ivy.utils.updates.errors import Rejected
from ivy.utils.updates.source import ORIGIN, Source
from ivy.version import Version
from tests.support.helpers import UPDATER, Node
from tests.support.signers import Signer, allowed_signers

VERSION = Version("1.2.3")
REFERENCE = "refs/tags/v1.2.3"
NO_SANDBOX = """rm -rf "$TMPDIR"/* "$GIT_INDEX_FILE"
while [ "$1" != -- ]; do shift; done; shift
case $* in *fetch.sh*) ;; *) exec "$@" ;; esac
echo >>"$SITE/fetches"
[ ! -e "$SITE/instead" ] || exec cat "$SITE/instead"
status=0
"$@" >"$SITE/fetched" || status=$?
cat "$SITE/fetched"
exit $status"""
BULK = 300_000


class Site:
    """A repository that is served, and the place where releases are."""

    def __init__(self, directory: Path) -> None:
        self.served = directory / "served" / "org" / "name.git"
        self.tree = directory / "tree"
        self.root = directory / "root"
        self.fetches = directory / "fetches"
        """A line for each."""
        self.fetched = directory / "fetched"
        """What the last one handed over."""
        self.instead = directory / "instead"
        """What it hands over, if this is there."""
        self.signer, self.foreign = (Signer.make(directory, name) for name in ("trusted", "foreign"))
        (directory / "allowed").write_text(allowed_signers([self.signer]))
        self.root.mkdir()
        (self.tree / "ivy").mkdir(parents=True)
        subprocess.run(["git", "init", "--quiet", "--bare", self.served], check=True)

    def git(self, *arguments: str) -> str:
        """Make something in the repository that is served."""
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "gpg.format=ssh"]
        place = [f"--git-dir={self.served}", f"--work-tree={self.tree}"]
        own = {**os.environ, "GIT_INDEX_FILE": str(self.served / "index")}
        done = subprocess.run(
            ["git", *who, *place, *arguments], env=own, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    def release(self, content: bytes = b"1\n", signer: Signer | None = None, version: Version = VERSION) -> None:
        """Tag what is in the tree."""
        (self.tree / "ivy" / "content").write_bytes(content)
        self.git("add", "--all", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message=x")
        signing = ["-u", str(signer.key)] if signer else ["--no-sign"]
        self.git("tag", "--annotate", *signing, "--message=x", version.as_tag())

    def source(self, **changed: Any) -> Source:
        """Where versions come from."""
        settings = {**UPDATER, "access_token": None, **changed}
        return Source(UpdaterConfig.model_validate(settings), self.root)

    def fetch(self, version: Version = VERSION, **changed: Any) -> Path:
        """Fetch and unpack a version."""
        made, release = self.source(**changed), self.root / version.as_identifier()
        made.fetch(version)
        made.check_signature(version)
        made.unpack(version, release)
        return release


@pytest.fixture
def site(tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Git finds it where GitHub would be."""
    site = Site(tmp_path)
    (tmp_path / "scratch").mkdir()
    node.fake("systemd-run", {"*": NO_SANDBOX})
    for name, value in {
        "PATH": node.environment["PATH"],
        "SITE": str(tmp_path),
        "TMPDIR": str(tmp_path / "scratch"),
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path}/served/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "GIT_INDEX_FILE": str(tmp_path / "index"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "chown", lambda *_arguments, **_how: None)
    monkeypatch.setattr(source, "ALLOWED_SIGNERS", tmp_path / "allowed")
    return site


@pytest.mark.parametrize("size", [1, BULK])
def test_what_is_signed_is_unpacked_and_kept_with_its_tag(site: Site, size: int) -> None:
    site.release(os.urandom(size), site.signer)
    release = site.fetch()
    assert (release / "ivy" / "content").read_bytes() == (site.tree / "ivy" / "content").read_bytes()
    assert (release / ORIGIN).read_text().strip() == site.git("cat-file", "tag", REFERENCE)
    assert site.source().vouches_for(VERSION, release)
    assert sorted(path.name for path in site.root.iterdir()) == ["1.2.3", "source.git"]


@pytest.mark.parametrize("size", [1, BULK])
def test_what_is_not_signed_by_somebody_who_may_is_not_fetched(site: Site, size: int) -> None:
    site.release(os.urandom(size))
    with pytest.raises(Rejected, match="is not signed"):
        site.fetch()
    site.git("tag", "--delete", "v1.2.3")
    site.release(os.urandom(size), site.foreign)
    with pytest.raises(Rejected, match="is signed by nobody who may"):
        site.fetch()
    site.git("tag", "--force", "v1.2.3", "HEAD")
    with pytest.raises(Rejected, match="is not signed"):
        site.fetch()
    assert site.fetched.stat().st_size < 70_000
    assert not (site.root / "source.git").exists()


def _expired(site: Site) -> str:
    return allowed_signers([site.signer], 'namespaces="git",valid-before="20200101"')


@pytest.mark.parametrize(
    "allowed",
    [
        pytest.param(lambda site: allowed_signers([site.foreign]), id="removed"),
        pytest.param(lambda site: "\n", id="all removed"),
        pytest.param(lambda site: "# " + allowed_signers([site.signer]), id="commented out"),
        pytest.param(lambda site: allowed_signers([site.signer], 'namespaces="file"'), id="for files"),
        pytest.param(_expired, id="expired before the tag"),
        pytest.param(lambda site: allowed_signers([site.signer], "cert-authority"), id="for certificates only"),
    ],
)
def test_a_key_counts_only_as_its_line_says(site: Site, allowed: Callable[[Site], str]) -> None:
    site.release(signer=site.signer)
    release = site.fetch()
    source.ALLOWED_SIGNERS.write_text(allowed(site))
    with pytest.raises(Rejected, match="is signed by nobody who may"):
        site.fetch()
    assert not site.source().vouches_for(VERSION, release), "nor on the disk, where it was verified before"


def test_the_key_that_signs_is_replaced(site: Site) -> None:
    """As ivy-fleet(7) says: the new one's line, a release by it, and the old one's line goes."""
    old, new, newer = VERSION, Version("1.2.4"), Version("1.2.5")
    site.release(b"1\n", site.signer, old)
    before = site.fetch(old)
    source.ALLOWED_SIGNERS.write_text(allowed_signers([site.signer, site.foreign]))
    assert site.source().vouches_for(old, before)
    site.release(b"2\n", site.foreign, new)
    release = site.fetch(new)
    source.ALLOWED_SIGNERS.write_text(allowed_signers([site.foreign]))
    assert site.source().vouches_for(new, release) and not site.source().vouches_for(old, before)
    site.release(b"3\n", site.foreign, newer)
    site.fetch(newer)
    site.git("tag", "--delete", newer.as_tag())
    site.release(b"4\n", site.signer, newer)
    with pytest.raises(Rejected, match="is signed by nobody who may"):
        site.fetch(newer)


def test_what_was_signed_as_something_else_is_not_signed(site: Site) -> None:
    """The same key, and the same words, but for files in general."""
    site.release(signer=site.signer)
    text = site.git("cat-file", "tag", REFERENCE).split("-----BEGIN")[0]
    payload = site.root.parent / "payload"
    payload.write_text(text)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", site.signer.key, payload], check=True)
    payload.write_text(text + payload.with_suffix(".sig").read_text())
    tag = site.git("hash-object", "-t", "tag", "-w", str(payload))
    site.git("update-ref", REFERENCE, tag)
    with pytest.raises(Rejected, match="is signed by nobody who may"):
        site.fetch()


@pytest.mark.parametrize("kind", ["PGP SIGNATURE", "PGP MESSAGE", "SIGNED MESSAGE"])
def test_a_signature_of_another_kind_is_refused_with_what_to_do(site: Site, kind: str) -> None:
    """Git's own, where a maintainer has not said that it is to be SSH's. It is no trouble of the node's."""
    site.release()
    text = f"{site.git('cat-file', 'tag', REFERENCE)}\n-----BEGIN {kind}-----\n\nAAAA\n-----END {kind}-----\n"
    (site.root.parent / "tag").write_text(text)
    tag = site.git("hash-object", "-t", "tag", "-w", str(site.root.parent / "tag"))
    site.git("update-ref", REFERENCE, tag)
    with pytest.raises(Rejected, match="only an SSH key counts: say git config"):
        site.fetch()


def test_a_pointer_to_a_file_that_is_kept_elsewhere_is_refused(site: Site) -> None:
    site.release(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5000000\n", site.signer)
    with pytest.raises(Rejected, match="ivy/content is only a pointer of Git LFS"):
        site.fetch()


def test_a_release_that_came_unsigned_is_not_good_for_those_who_want_a_signature(site: Site) -> None:
    site.release()
    release = site.fetch(require_signed_tags=False)
    assert site.source(require_signed_tags=False).vouches_for(VERSION, release)
    assert not site.source().vouches_for(VERSION, release)
    (release / ORIGIN).unlink()
    assert not site.source().vouches_for(VERSION, release), "nothing tells where it is from"
    (release / ORIGIN).touch()
    assert not site.source().vouches_for(VERSION, release), "its tag was a mere name"
    assert not site.source().vouches_for(Version("1.2.4"), release)


def test_the_tag_of_another_version_does_not_vouch(site: Site) -> None:
    site.release(signer=site.signer)
    release = site.fetch()
    assert not site.source().vouches_for(Version("1.2.4"), release)


def test_the_next_version_comes_as_a_difference_whoever_wrote_the_one_before(site: Site) -> None:
    site.release(os.urandom(BULK), site.signer)
    site.fetch()
    later = Version("1.2.4")
    (site.tree / "ivy" / "other").write_text("2\n")
    site.release((site.tree / "ivy" / "content").read_bytes(), site.signer, later)
    known = site.root / "source.git"
    (known / "config").write_text(f"[core]\n\talternateRefsCommand = touch {site.root}/canary; false\n[broken")
    site.fetches.unlink()
    site.fetch(later)
    assert site.fetches.read_text() == "\n", "all of it came in the first 64 kB"
    assert not (site.root / "canary").exists()
    assert "broken" not in (known / "config").read_text()


@pytest.mark.parametrize("damage", ["shallow", "objects"])
def test_what_is_known_may_be_damaged(site: Site, damage: str) -> None:
    site.release(signer=site.signer)
    site.fetch()
    known = site.root / "source.git"
    if damage == "shallow":
        (known / "shallow").write_bytes(bytes(41))
    else:
        shutil.rmtree(known / "objects")
    later = Version("1.2.4")
    site.release(b"2\n", site.signer, later)
    site.fetch(later)
    assert (site.root / "1.2.4" / "ivy" / "content").read_bytes() == b"2\n"


@pytest.mark.parametrize("is_signed", [True, False])
def test_what_was_fetched_last_is_unpacked_again_without_the_network(site: Site, is_signed: bool) -> None:
    site.release(b"1\n", site.signer)
    site.fetch()
    fetched = site.fetches.read_text()
    site.source().unpack_kept(VERSION, site.root / "again", is_signed=is_signed)
    assert (site.root / "again" / "ivy" / "content").read_bytes() == b"1\n"
    assert (site.root / "source.git").is_dir() and site.fetches.read_text() == fetched


@pytest.mark.parametrize("trouble", ["another version", "damaged", "gone", "another signer"])
def test_what_was_fetched_last_may_not_help(site: Site, trouble: str) -> None:
    site.release(b"1\n", site.signer)
    site.fetch()
    version, known = VERSION, site.root / "source.git"
    if trouble == "another version":
        version = Version("1.2.2")
    elif trouble == "damaged":
        [pack] = known.glob("objects/pack/*.pack")
        pack.chmod(0o644)
        pack.write_bytes(bytes(pack.stat().st_size))
    elif trouble == "gone":
        shutil.rmtree(known)
    else:
        source.ALLOWED_SIGNERS.write_text(allowed_signers([site.foreign]))
    with pytest.raises((Rejected, CommandError, OSError, ValueError)):
        site.source().unpack_kept(version, site.root / "again", is_signed=True)


def _replaced(pack: bytes) -> bytes:
    middle = len(pack) // 2
    return pack[:middle] + bytes([pack[middle] ^ 1]) + pack[middle + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_replaced, id="a bit"),
        pytest.param(lambda bundle: bundle[:-30], id="cut off"),
        pytest.param(lambda bundle: bundle.replace(b"v1.2.3", b"v1.2.4", 1), id="another name"),
        pytest.param(lambda bundle: bundle.replace(bundle[16:56], b"0" * 40, 1), id="another object"),
        pytest.param(lambda bundle: bundle[:16] + b"-" + b"1" * 40 + b" x\n" + bundle[16:], id="something before"),
        pytest.param(lambda _bundle: b"# v2 git bundle\n", id="empty"),
        pytest.param(lambda _bundle: b"# v2 git bundle\n\n", id="nothing"),
    ],
)
def test_nothing_is_taken_in_that_is_not_what_its_name_says(site: Site, change: Callable[[bytes], bytes]) -> None:
    site.release(os.urandom(5000), site.signer)
    site.source().fetch(VERSION)
    site.instead.write_bytes(change(site.fetched.read_bytes()))
    with pytest.raises(Rejected, match="does not accept"):
        site.source().fetch(VERSION)


def test_a_bundle_that_lacks_what_is_signed_is_not_taken_in(site: Site) -> None:
    """The tag is good, and what it stands for is another's."""
    site.release(signer=site.signer)
    tag = site.git("rev-parse", REFERENCE)
    pack = subprocess.run(
        ["git", f"--git-dir={site.served}", "pack-objects", "--quiet", "--stdout"],
        input=f"{tag}\n{site.git('rev-parse', 'HEAD')}\n".encode(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    site.instead.write_bytes(f"# v2 git bundle\n{tag} {REFERENCE}\n\n".encode() + pack)
    with pytest.raises(Rejected, match="does not accept"):
        site.source().fetch(VERSION)


def test_a_tag_of_something_that_is_no_commit_is_not_taken_in(site: Site) -> None:
    site.release()
    site.git("tag", "--force", "--annotate", "-u", str(site.signer.key), "--message=x", "v1.2.3", "HEAD^{tree}")
    with pytest.raises(Rejected, match="does not accept"):
        site.fetch()


def test_a_tag_without_end_is_not_read(site: Site) -> None:
    site.release()
    text = site.git("cat-file", "tag", REFERENCE) + "\n" + "x" * 100_000
    (site.root.parent / "tag").write_text(text)
    tag = site.git("hash-object", "-t", "tag", "-w", str(site.root.parent / "tag"))
    site.git("update-ref", REFERENCE, tag)
    with pytest.raises(Rejected, match="the tag is longer than"):
        site.fetch()
