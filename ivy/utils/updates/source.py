"""Fetches the source code of a version by git, checks who signed it, and unpacks it. Runs none of it.

Raises `Rejected` for what is wrong with the version, `Refused` where the server says no, and `NetworkTrouble` where
it does not answer.
There are two walls around git. A sandbox with the network fetches, and hands over a bundle; others, without it,
take it into a new repository, verify the tag there, and unpack it. Nobody reads the first repository.
"""

import copy
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from ivy.files import sync
from ivy.types.config import UpdaterConfig
from ivy.utils.host import commands
from ivy.utils.updates import sandbox
from ivy.utils.updates.errors import NetworkTrouble, Refused, Rejected
from ivy.version import Version

ALLOWED_SIGNERS = Path("/etc/ivy/allowed_signers")
"""The public keys that may sign a version's tag, see ssh-keygen(1); the admin's."""

PARTS = ("ivy", "units", "tests", "config", "pyproject.toml", "requirements.lock")
"""What a release consists of; what else the repository holds is not unpacked."""

ORIGIN = "origin"
"""The file of a release that says where it comes from: the tag, whose signature can be verified again."""

FROM_PACKAGE = "package"
"""What it says where that is not git."""

_FETCH = Path(__file__).with_name("fetch.sh")
_TAKE_IN = Path(__file__).with_name("take_in.sh")
_FIRST_BYTES = 65_536  # what one changed file costs is far less, and the tag comes first
_MOST_BYTES_FETCHED = 120_000_000
_LONGEST_TAG = 65_536
_MOST_BYTES = 100_000_000
_MOST_FILES = 20_000
_LONGEST_LISTING = 8_000_000  # characters
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?", re.ASCII)
_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)+", re.ASCII)
_OF_OTHER_KINDS = re.compile("^-----BEGIN (PGP SIGNATURE|PGP MESSAGE|SIGNED MESSAGE)-----", re.MULTILINE)
_POINTER, _LARGEST_POINTER = b"version https://git-lfs.github.com/spec/v1\n", 1024
_FILE_MODES = ("100644", "100755", "120000")
_USERNAMES = {"github": "x-access-token", "gitlab": "oauth2"}

_PASSWORD = f'$(head -n 1 "$CREDENTIALS_DIRECTORY/{sandbox.TOKEN}")'
_CREDENTIAL_HELPER = f'!f() {{ echo "username=$IVY_USERNAME"; echo "password={_PASSWORD}"; }}; f'
_FETCH_SETTINGS = (
    "http.lowSpeedLimit=10",
    "http.lowSpeedTime=60",
    "gc.auto=0",
    "core.bigFileThreshold=1m",  # else a large file is held in memory
)
_VERIFY_SETTINGS = (
    "gpg.ssh.program=/usr/bin/ssh-keygen",
    "gpg.openpgp.program=/bin/false",
    "gpg.x509.program=/bin/false",
    "core.hooksPath=/dev/null",
)

# What git says (LC_ALL=C) when trying again would not help …
_ANSWERS = (
    ("Authentication failed", "the repository refuses the login: check updater.access_token"),
    ("returned error: 30", "the repository has moved, and a token is not sent after it: check updater.repository"),
    ('Protocol "http"', "the repository has moved to where it is not encrypted: check updater.repository"),
)
# … when the server may take it back, as hosts do that are overloaded or limit how often they are asked …
_REFUSALS = (
    ("couldn't find remote ref", "there is no such tag in the repository"),
    ("could not read Username", "the repository wants a login: check updater.repository and updater.access_token"),
    ("returned error: 403", "the server refuses access (403): check updater.repository and updater.access_token"),
    ("returned error: 404", "there is no such repository: check updater.repository and updater.access_token"),
    ("is this a git repository?", "no git server answers: check updater.provider_host and updater.repository"),
    ("not found", "there is no such repository: check updater.repository and updater.access_token"),
)
# … and when it would. (Nothing at all is what a time limit leaves.)
_TROUBLES = ("unable to access", "RPC failed", "early EOF", "hung up", "disconnect", "timed out", "Connection")


class Source:
    """Where versions come from. The last one is kept, so that the next one comes as the difference to it."""

    def __init__(self, settings: UpdaterConfig, root: Path) -> None:
        self._settings = settings
        self._known = root / "source.git"
        # Names that are cleaned away with unfinished releases.
        self._repository = root / ".source.git.new"
        self._handed_over = root / ".fetched.new"

    def fetch(self, version: Version) -> None:
        """Fetch the tag of a version, with all that belongs to it; it is looked at before that is much."""
        url, is_whole = self._url(), False
        if self._settings.require_signed_tags:
            _check_list_of_signers()
            is_whole = self._receive(url, version, _FIRST_BYTES)
            if not is_whole:
                self._take_in("tag", self._handed_over, version)
                self.check_signature(version)
        if not is_whole and not self._receive(url, version, _MOST_BYTES_FETCHED):
            raise Rejected(f"{version.as_tag()} of {url}: it is larger than {_MOST_BYTES_FETCHED // 10**6} MB")
        self._take_in("bundle", self._handed_over, version)
        self._handed_over.unlink()

    def list_tags(self) -> list[Version]:
        """Ask the server which versions there are.

        Returns: Those with a tag, the oldest first.
        """
        url = self._url()
        question = ["ls-remote", "--quiet", "--refs", "--tags", "--", url]
        try:
            listing = self._talk("list", ["git", *self._network_options(), *question])
        except commands.CommandError as error:
            raise judge_failure(error, f"the tags of {url}") or Rejected(f"{url}: {error.output}") from None
        names = (line.rpartition("/")[2] for line in listing.splitlines())
        return sorted(filter(None, map(_as_version, names)))

    def check_signature(self, version: Version) -> None:
        """Check that the fetched tag is that of the version, and signed by somebody who may."""
        tag = version.as_tag()
        kind, identifier = self._find_tag(version)
        # git itself does not compare the name that is signed with the one under which the tag was fetched.
        text = self._read_tag(identifier) if kind == "tag" else ""
        name = _inner_name(text) if kind == "tag" else tag
        if name != tag:
            raise Rejected(f"the tag {tag} is a renamed {name[:100]!r}")
        if not self._settings.require_signed_tags:
            return
        _check_list_of_signers()
        if kind != "tag":
            raise Rejected(f"the tag {tag} is not signed")
        if _OF_OTHER_KINDS.search(text):  # git would say nothing of it, as it has no program for these here
            remedy = "say git config gpg.format ssh, and sign it again"
            raise Rejected(f"the tag {tag} is signed by OpenPGP or X.509, and only an SSH key counts: {remedy}")
        try:
            # systemd takes a git that was told to stop for one that succeeded.
            settings = [*_VERIFY_SETTINGS, f"gpg.ssh.allowedSignersFile={ALLOWED_SIGNERS}"]
            verify = self._git(*_options(settings), "verify-tag", identifier)
            if "verified" not in self._run(["/bin/sh", "-c", '"$@" && echo verified', "sh", *verify]):
                raise Rejected(f"the tag {tag} could not be verified: git was stopped")
        except commands.CommandError as error:
            unsigned = "no signature found" in error.output
            reason = "is not signed" if unsigned else f"is signed by nobody who may: {error.output}"
            raise Rejected(f"the tag {tag} {reason}\nThis node lists who may in {ALLOWED_SIGNERS}.") from None

    def unpack(self, version: Version, directory: Path) -> None:
        """Unpack a fetched version. Nothing of it lands, or leads, outside the directory.

        Args:
            directory: It is made, and root's. What is there, is in the way.
        """
        self._check_out(version, directory)
        if self._known.exists():
            shutil.rmtree(self._known)
        _sync_tree(self._repository)
        self._repository.rename(self._known)
        sync(self._known.parent)

    def unpack_kept(self, version: Version, directory: Path, *, is_signed: bool) -> None:
        """Unpack a version again from what was fetched last, without the network.

        Args:
            is_signed: Whether its signature must still be good, as nothing else tells what should be in it.

        Raises:
            Rejected, Trouble, CommandError, OSError, ValueError: That was another version, or it is damaged, or
                this node lacks something.
        """
        kept = copy.copy(self)
        kept._repository = self._known
        if is_signed:
            kept.check_signature(version)
        kept._check_out(version, directory)

    def _check_out(self, version: Version, directory: Path) -> None:
        reference = _reference(version)
        parts = self._check_tree(reference)
        directory.mkdir(mode=0o755)
        try:
            sandbox.run(
                "unpack",
                self._git(f"--work-tree={directory}", "checkout", "--force", "--quiet", reference, "--", *parts),
                writable=directory,
                environment=[*_OFFLINE, "GIT_INDEX_FILE=/tmp/index"],
                directory=directory,
            )
        except commands.CommandError as error:
            raise Rejected(f"it cannot be unpacked: {error.output or error}") from error
        sandbox.take_back(directory)
        _check_for_pointers(directory)
        self._write_origin(version, directory / ORIGIN)

    def vouches_for(self, version: Version, release: Path) -> bool:
        """Whether a release on the disk would be good enough if it came now: its signature is verified again."""
        if not self._settings.require_signed_tags:
            return True
        origin = release / ORIGIN
        try:
            if not origin.is_file() or origin.read_bytes() == FROM_PACKAGE.encode():
                return origin.is_file()
            self._take_in("tag", origin, version)
            self.check_signature(version)
        except (Rejected, OSError):  # not signed by whoever may, or damaged
            return False
        finally:
            shutil.rmtree(self._repository, ignore_errors=True)
        return True

    def _receive(self, url: str, version: Version, most: int) -> bool:
        """Fetch so many bytes. Returns whether that is all."""
        text = f"{version.as_tag()} of {url}"
        question = [url, _reference(version), str(self._known), str(most), *self._network_options()]
        try:
            self._talk("fetch", ["/bin/sh", str(_FETCH), *question], output=self._handed_over)
        except commands.CommandError as error:
            if (judgement := judge_failure(error, text)) is not None:
                raise judgement from None
            if not self._known.exists():
                raise Rejected(f"{text} cannot be fetched: {error.output}") from None
            # Most likely what is known is damaged. It holds nothing that could not be fetched again.
            shutil.rmtree(self._known)
            return self._receive(url, version, most)
        with self._handed_over.open("rb") as file:
            first = file.read(len(_BUNDLE))
        if not first:
            raise NetworkTrouble(f"{text} cannot be fetched now: git was stopped")
        if first == _NO_TAG:
            raise Rejected(f"the tag {version.as_tag()} is not signed: git would have sent it first")
        return first == _BUNDLE

    def _take_in(self, kind: str, file: Path, version: Version) -> None:
        """Make a repository of what was handed over: a bundle, or only a tag."""
        if self._repository.exists():
            shutil.rmtree(self._repository)
        command = ["/bin/sh", str(_TAKE_IN), str(self._repository), _reference(version), kind, str(file)]
        try:
            sandbox.run("take", command, writable=self._repository, environment=_OFFLINE)
        except commands.CommandError as error:
            text = f"{version.as_tag()}: the repository holds objects that git does not accept"
            raise Rejected(f"{text}: {error.output or error}") from None
        sandbox.take_back(self._repository)

    def _talk(self, step: str, command: Sequence[str], output: Path | None = None) -> str:
        """What needs the network, and perhaps the token."""
        return sandbox.run(
            step,
            command,
            environment=[*_ENVIRONMENT, f"IVY_USERNAME={_USERNAMES[self._settings.provider]}"],
            token=self._settings.access_token,
            output=output,
        )

    def _network_options(self) -> list[str]:
        """The token is for one host: no other may see it, and nobody on the way."""
        settings = [*_FETCH_SETTINGS, "credential.helper="]
        if self._settings.access_token:
            host = self._settings.provider_host
            settings += ["http.followRedirects=false", f"credential.https://{host}.helper={_CREDENTIAL_HELPER}"]
        else:
            settings.append("http.followRedirects=initial")
        return _options(settings)

    def _url(self) -> str:
        host, repository = self._settings.provider_host, self._settings.repository
        if not _HOST.fullmatch(host):
            raise Rejected(f"updater.provider_host: must be the name of a host, not {host!r}")
        if not _REPOSITORY.fullmatch(repository):
            raise Rejected(f'updater.repository: must look like "organisation/name", not {repository!r}')
        return f"https://{host}/{repository.removesuffix('.git')}.git"

    def _check_tree(self, reference: str) -> list[str]:
        """Look at what would be unpacked. Returns the names of the release's parts that are there."""
        listing = self._ask("ls-tree", "-r", "-l", "-z", "--full-tree", reference, most=_LONGEST_LISTING)
        if len(listing) >= _LONGEST_LISTING:
            raise Rejected(f"it has more files than a release may have, {_MOST_FILES}")
        sizes: dict[str, int] = {}
        for about, _, path in (line.partition("\t") for line in listing.split("\0")):
            if path.split("/")[0] in PARTS:
                mode, _kind, _hash, size = about.split()
                _check_file(mode, path)
                sizes[path] = int(size)
        total = sum(sizes.values())
        if total > _MOST_BYTES or len(sizes) > _MOST_FILES:
            raise Rejected(f"it has {len(sizes)} files with {total} bytes: more than a release may have")
        if not sizes:  # without names, git would check out all
            raise Rejected("it holds nothing that a release consists of")
        return sorted({path.split("/")[0] for path in sizes})

    def _find_tag(self, version: Version) -> tuple[str, str]:
        """Of what kind is that which the tag's name stands for, and its identifier."""
        kind, identifier = self._ask(
            "for-each-ref", "--format=%(objecttype) %(objectname)", _reference(version)
        ).split()
        return kind, identifier

    def _write_origin(self, version: Version, file: Path) -> None:
        kind, identifier = self._find_tag(version)
        if kind == "tag":
            sandbox.run("ask", self._git("cat-file", "tag", identifier), environment=_OFFLINE, output=file)
        else:
            file.touch()

    def _read_tag(self, identifier: str) -> str:
        text = self._ask("cat-file", "tag", identifier, most=_LONGEST_TAG)
        if len(text) >= _LONGEST_TAG:
            raise Rejected(f"the tag is longer than {_LONGEST_TAG // 1024} kB")
        return text

    def _ask(self, *arguments: str, most: int = 1000) -> str:
        """A question that needs no network. Objects of a few bytes can unfold to more than there is memory for."""
        return self._run(["/bin/sh", "-c", f'"$@" | head -c {most}', "sh", *self._git(*arguments)])

    def _run(self, command: Sequence[str]) -> str:
        return sandbox.run("ask", command, environment=_OFFLINE)

    def _git(self, *arguments: str) -> list[str]:
        return ["git", f"--git-dir={self._repository}", *arguments]


def _check_for_pointers(directory: Path) -> None:
    """What Git LFS keeps elsewhere is not fetched: a procedure would find a few words in the place of its model."""
    for path in directory.rglob("*"):
        if path.is_file() and path.stat().st_size < _LARGEST_POINTER and path.read_bytes().startswith(_POINTER):
            what = f"{path.relative_to(directory)} is only a pointer of Git LFS"
            raise Rejected(f"{what}, from where nothing is fetched: git lfs untrack it, and commit the file itself")


def _sync_tree(directory: Path) -> None:
    """git does not: after a power cut it would be there, with objects that are empty."""
    for parent, _, names in os.walk(directory):
        for path in (*(Path(parent, name) for name in names), Path(parent)):
            sync(path)


_ENVIRONMENT = (
    "LC_ALL=C",
    "HOME=/nonexistent",
    "GIT_TERMINAL_PROMPT=0",
    "GIT_ALLOW_PROTOCOL=https",
)
_OFFLINE = (*_ENVIRONMENT, "GIT_CONFIG_NOSYSTEM=1")
_BUNDLE = b"# v2 git bundle\n"
_NO_TAG = b"none\n"


def _check_file(mode: str, path: str) -> None:
    if mode not in _FILE_MODES:
        raise Rejected(f"it holds {path[:200]!r}, which is not a regular file (mode {mode})")
    if any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise Rejected(f"it holds the path {path[:200]!r}")


def _check_list_of_signers() -> None:
    if not ALLOWED_SIGNERS.is_file():
        raise Rejected(f"nobody may sign a version: {ALLOWED_SIGNERS} does not exist on this node")


def _as_version(tag: str) -> Version | None:
    try:
        return Version(tag.removeprefix("v")) if tag.startswith("v") else None
    except ValueError:
        return None


def _reference(version: Version) -> str:
    return f"refs/tags/{version.as_tag()}"


def _options(settings: Sequence[str]) -> list[str]:
    return [argument for setting in settings for argument in ("-c", setting)]


def _inner_name(tag: str) -> str:
    """The name in a tag object: it begins with the lines `object …`, `type …`, `tag NAME`."""
    lines = tag.splitlines()
    return lines[2].removeprefix("tag ") if len(lines) > 2 else ""


def judge_failure(error: commands.CommandError, text: str) -> Exception | None:
    """Tell what a failed fetch says about the offer, or about the network.

    Returns: A `Rejected`, a `Refused`, or a `NetworkTrouble`; None if it says none of them.
    """
    for kind, answers in ((Rejected, _ANSWERS), (Refused, _REFUSALS)):
        for pattern, answer in answers:
            if pattern in error.output:
                return kind(f"{text}: {answer}")
    if not error.output or any(pattern in error.output for pattern in _TROUBLES):
        return NetworkTrouble(f"{text} cannot be fetched now: {error.output or error}")
    return None
