"""Fetches the source code of a version by git, checks who signed it, and unpacks it. Runs none of it.

Raises `Rejected` for what is wrong with the version, and `NetworkTrouble` where the server does not answer.
Each step is a program in a sandbox, see `sandbox`; who takes what comes out of it looks at it with `take_back`.
"""

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ivy.types.config import UpdaterConfig
from ivy.utils.host import commands
from ivy.utils.updates import sandbox
from ivy.utils.updates.errors import NetworkTrouble, Rejected
from ivy.version import Version

ALLOWED_SIGNERS = Path("/etc/ivy/allowed_signers")
"""The public keys that may sign a version's tag, see ssh-keygen(1); the admin's."""

PARTS = ("ivy", "units", "tests", "config", "pyproject.toml", "requirements.lock")
"""What a release consists of; what else the repository holds is not unpacked."""

_MOST_BYTES = 100_000_000
_MOST_FILES = 20_000
_LONGEST_LISTING = 8_000_000  # characters
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?", re.ASCII)
_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)+", re.ASCII)
_FILE_MODES = ("100644", "100755", "120000")
_USERNAMES = {"github": "x-access-token", "gitlab": "oauth2"}

_PASSWORD = f'$(head -n 1 "$CREDENTIALS_DIRECTORY/{sandbox.TOKEN}")'
_CREDENTIAL_HELPER = f'!f() {{ echo "username=$IVY_USERNAME"; echo "password={_PASSWORD}"; }}; f'
_FETCH_SETTINGS = (
    "transfer.fsckObjects=true",
    "http.lowSpeedLimit=10",
    "http.lowSpeedTime=60",
    "http.followRedirects=initial",
    "gc.auto=0",
    "core.bigFileThreshold=1m",  # else a large file is held in memory
)
_NO_OTHER_SIGNATURES = ("gpg.openpgp.program=/bin/false", "gpg.x509.program=/bin/false")

# What git says (LC_ALL=C) when trying again would not help …
_ANSWERS = (
    ("fsck error", "the repository holds objects that git does not accept"),
    ("couldn't find remote ref", "there is no such tag in the repository"),
    ("Authentication failed", "the repository refuses the login: check updater.access_token"),
    ("could not read Username", "the repository wants a login: check updater.repository and updater.access_token"),
    ("returned error: 403", "the repository refuses the login: check updater.access_token"),
    ("not found", "there is no such repository: check updater.repository and updater.access_token"),
    ("No space left on device", "there is no space left on the node's disk"),
)
# … and when it would. (Nothing at all is what a time limit leaves.)
_TROUBLES = ("unable to access", "RPC failed", "early EOF", "hung up", "disconnect", "timed out", "Connection")


class Source:
    """The bare repository that versions are fetched into, for one after the other."""

    def __init__(self, settings: UpdaterConfig, root: Path) -> None:
        self._settings = settings
        self._repository = root / "source.git"

    def fetch(self, version: Version) -> None:
        """Fetch the tag of a version; again only what changed since the last one."""
        url = self._url()
        text = f"{version.as_tag()} of {url}"
        for is_again in (False, True):
            self._make_repository()
            try:
                return self._fetch(url, _reference(version))
            except commands.CommandError as error:
                if (judgement := judge_failure(error, text)) is not None:
                    raise judgement from None
                if is_again:
                    raise Rejected(f"{text} cannot be fetched; is it larger than 200 MB? {error.output}") from None
                # Most likely the repository is damaged. It holds nothing that could not be fetched again.
                shutil.rmtree(self._repository)
            finally:
                self._remove_leftovers()

    def list_tags(self) -> list[Version]:
        """Ask the server which versions there are.

        Returns: Those with a tag, the oldest first.
        """
        url = self._url()
        if not self._repository.is_dir():
            self._make_repository()
        question = ["ls-remote", "--quiet", "--refs", "--tags", "--", url]
        try:
            listing = self._talk("list", question)
        except commands.CommandError as error:
            raise judge_failure(error, f"the tags of {url}") or Rejected(f"{url}: {error.output}") from None
        names = (line.rpartition("/")[2] for line in listing.splitlines())
        return sorted(filter(None, map(_as_version, names)))

    def check_signature(self, version: Version) -> None:
        """Check that the fetched tag is that of the version, and signed by somebody who may."""
        tag = version.as_tag()
        kind, identifier = self._ask(
            "for-each-ref", "--format=%(objecttype) %(objectname)", _reference(version)
        ).split()
        # git itself does not compare the name that is signed with the one under which the tag was fetched.
        name = _inner_name(self._ask("cat-file", "tag", identifier)) if kind == "tag" else tag
        if name != tag:
            raise Rejected(f"the tag {tag} is a renamed {name[:100]!r}")
        if not self._settings.require_signed_tags:
            return
        if not ALLOWED_SIGNERS.is_file():
            raise Rejected(f"nobody may sign a version: {ALLOWED_SIGNERS} does not exist on this node")
        if kind != "tag":
            raise Rejected(f"the tag {tag} is not signed")
        settings = [f"gpg.ssh.allowedSignersFile={ALLOWED_SIGNERS}", *_NO_OTHER_SIGNATURES]
        try:
            # systemd takes a git that was told to stop for one that succeeded.
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
            directory: It is made, owned by the sandbox's user. What is there, is in the way.
        """
        parts = self._check_tree(version.as_tag())
        directory.mkdir(mode=0o755)
        try:
            sandbox.run(
                "unpack",
                self._git(
                    f"--work-tree={directory}", "checkout", "--force", "--quiet", version.as_tag(), "--", *parts
                ),
                writable=directory,
                environment=[*_ENVIRONMENT, "GIT_INDEX_FILE=/tmp/index"],
                directory=directory,
            )
        except commands.CommandError as error:
            raise Rejected(f"it cannot be unpacked: {error.output or error}") from error

    def forget_others(self, versions: Iterable[Version]) -> None:
        """Throw away what is not needed for these versions, or to fetch the next one by its difference.

        Raises:
            CommandError: git failed; nothing that is needed is lost.
        """
        if not self._repository.is_dir():
            return
        tags = self._ask("for-each-ref", "--format=%(refname)", "refs/tags").split()
        kept = {f"refs/tags/{version.as_tag()}" for version in versions}
        for reference in tags:
            if reference not in kept:
                self._ask("update-ref", "-d", reference, is_writing=True)
        # Shallow boundaries of what is gone would be kept for ever, and with them their objects.
        self._ask("-c", "gc.reflogExpire=now", "gc", "--quiet", "--prune=now", is_writing=True)

    def _fetch(self, url: str, reference: str) -> None:
        fetch = ["fetch", "--quiet", "--force", "--no-tags", "--depth=1", "--no-write-fetch-head"]
        self._talk("fetch", [*fetch, "--", url, f"+{reference}:{reference}"], writable=self._repository)

    def _talk(self, step: str, arguments: Sequence[str], writable: Path | None = None) -> str:
        """What needs the network, and perhaps the token."""
        settings = [*_FETCH_SETTINGS, "credential.helper=", f"credential.helper={_CREDENTIAL_HELPER}"]
        return sandbox.run(
            step,
            self._git(*_options(settings), *arguments),
            writable=writable,
            environment=[*_ENVIRONMENT, f"IVY_USERNAME={_USERNAMES[self._settings.provider]}"],
            token=self._settings.access_token or "",
        )

    def _url(self) -> str:
        host, repository = self._settings.provider_host, self._settings.repository
        if not _HOST.fullmatch(host):
            raise Rejected(f"updater.provider_host: must be the name of a host, not {host!r}")
        if not _REPOSITORY.fullmatch(repository):
            raise Rejected(f'updater.repository: must look like "organisation/name", not {repository!r}')
        return f"https://{host}/{repository.removesuffix('.git')}.git"

    def _make_repository(self) -> None:
        self._remove_leftovers()
        if not (self._repository / "HEAD").is_file():
            self._ask("init", "--quiet", "--bare", str(self._repository), is_writing=True)

    def _remove_leftovers(self) -> None:
        """Of fetches that were killed or cut off: each leaves all that it received, until the disk is full."""
        for pattern in ("*.lock", "tmp_*"):
            for stale in self._repository.rglob(pattern):
                stale.unlink()

    def _check_tree(self, tag: str) -> list[str]:
        """Look at what would be unpacked. Returns the names of the release's parts that are there."""
        # A tree of a few objects can list more files than there is memory for.
        ls_tree = self._git("ls-tree", "-r", "-l", "-z", "--full-tree", tag)
        listing = self._run(["/bin/sh", "-c", f'"$@" | head -c {_LONGEST_LISTING}', "sh", *ls_tree])
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
        return sorted({path.split("/")[0] for path in sizes})

    def _ask(self, *arguments: str, is_writing: bool = False) -> str:
        """A question that needs no network."""
        return self._run(self._git(*arguments), is_writing)

    def _run(self, command: Sequence[str], is_writing: bool = False) -> str:
        return sandbox.run(
            "ask",
            command,
            writable=self._repository if is_writing else None,
            environment=_ENVIRONMENT,
        )

    def _git(self, *arguments: str) -> list[str]:
        return ["git", f"--git-dir={self._repository}", *arguments]


_ENVIRONMENT = (
    "LC_ALL=C",
    "HOME=/nonexistent",
    "GIT_TERMINAL_PROMPT=0",
    "GIT_ALLOW_PROTOCOL=http:https",
)


def _check_file(mode: str, path: str) -> None:
    if mode not in _FILE_MODES:
        raise Rejected(f"it holds {path[:200]!r}, which is not a regular file (mode {mode})")
    if any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise Rejected(f"it holds the path {path[:200]!r}")


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

    Returns: A `Rejected`, or a `NetworkTrouble`; None if it says neither.
    """
    for pattern, answer in _ANSWERS:
        if pattern in error.output:
            return Rejected(f"{text}: {answer}")
    if not error.output or any(pattern in error.output for pattern in _TROUBLES):
        return NetworkTrouble(f"{text} cannot be fetched now: {error.output or error}")
    return None
