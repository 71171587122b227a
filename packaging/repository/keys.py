"""The keys that a repository is signed by: read, made, compared with those before, and used. By gpg, in a home that
is thrown away."""

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.run import Argv, BedError, run
from testbed.server import write_private

ASK = "To be asked, run it at a terminal; to be not, give --new-key. ivy-fleet(7), KEYS, has the order of a change."


@dataclass(frozen=True)
class Keyring:
    """A home of gpg that has these keys and no others; `fingerprints` are those of whole keys, never of subkeys."""

    environment: Mapping[str, str]
    fingerprints: Sequence[str]

    @property
    def public(self) -> str:
        """What nodes are given to trust."""
        return run(["gpg", "--batch", "--armor", "--export"], env=self.environment).stdout

    def sign(self, text: Path, signed: Path) -> None:
        """Signed by each of the keys; `BedError` unless all of these signatures hold.

        One that has expired, or wants a passphrase, makes none.
        """
        signers = [word for fingerprint in self.fingerprints for word in ("--local-user", fingerprint)]
        command: Argv = ["gpg", "--batch", "--yes", "--pinentry-mode", "error", "--digest-algo", "SHA512", *signers]
        run([*command, "--output", signed, "--clearsign", text], env=self.environment)
        by, content = self.verify(signed)
        if set(by) != set(self.fingerprints) or content != text.read_text():
            raise BedError(f"the signature of {', '.join(self.fingerprints)} does not hold")

    def verify(self, signed: Path) -> tuple[list[str], str]:
        """By which keys it is signed, and what of it: nothing, if one of all signatures is wrong."""
        with tempfile.TemporaryDirectory(prefix="ivy-apt-") as scratch:
            content = Path(scratch, "content")
            command: Argv = ["gpg", "--batch", "--status-fd", "1", "--output", content, "--decrypt", signed]
            said = run(command, env=self.environment, check=False).stdout
            by = re.findall(r"(?m)^\[GNUPG:\] VALIDSIG .*?(\w+)$", said)
            if not by or "BADSIG" in said or not content.exists():
                return [], ""
            return by, content.read_text()


@contextmanager
def private(files: Sequence[Path], may_be_made: bool, public: Path, may_be_others: bool) -> Iterator[Keyring]:
    """The keys of these files, which are those of before, or others that somebody wants.

    Args:
        files: As gpg exports private keys.
        may_be_made: Whether one is made where there is no file.
        public: Who has signed until now; need not exist.
        may_be_others: Whether that is known, if it is somebody else. Otherwise it is asked for.
    """
    missing = [file for file in files if not file.exists()]
    if missing and not may_be_made:
        raise BedError(f"there is no key {missing[0]}", "Make it with --make-key, once: nodes trust that one only.")
    with _home() as environment:
        for file in files:
            if file not in missing:
                run(["gpg", "--batch", "--import", file], env=environment)
        before, now = fingerprints_of(public), _secret(environment)
        if before and not may_be_others and (missing or set(now) != set(before)):
            # A mistyped path must not lead to a key that no node trusts.
            _ask(before, [*now, *(f"a new key, {file}" for file in missing)], public)
        for file in missing:
            _make(file)
            run(["gpg", "--batch", "--import", file], env=environment)
        yield Keyring(environment, _secret(environment))


@contextmanager
def public_of(file: Path) -> Iterator[Keyring]:
    """What a node has that trusts this file."""
    with _home() as environment:
        run(["gpg", "--batch", "--import", file], env=environment)
        yield Keyring(environment, fingerprints_of(file))


def fingerprints_of(public: Path) -> list[str]:
    """Those of a file of public keys; none if there is no such file."""
    if not public.exists():
        return []
    with _home() as environment:
        return _fingerprints("pub", ["--show-keys", public], environment)


def _ask(before: Sequence[str], now: Sequence[str], public: Path) -> None:
    said = (
        f"{public} has {' and '.join(before)}; what signs now is {' and '.join(now)}.\n"
        "A node that trusts none of what signs takes nothing more."
    )
    if not sys.stdin.isatty():
        raise BedError(said, ASK)
    print(said, file=sys.stderr)
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise BedError("nothing was changed")


def _make(file: Path) -> None:
    """Without passphrase, as it has to work without anybody at hand. It never expires: that would be the end of
    upgrades on a node that nobody can reach."""
    quiet = ["gpg", "--batch", "--passphrase", "", "--pinentry-mode", "loopback"]
    with _home() as environment:
        run([*quiet, "--quick-generate-key", "ivy APT repository", "ed25519", "sign", "never"], env=environment)
        exported = run([*quiet, "--armor", "--export-secret-keys"], env=environment).stdout
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private(file, exported)


def _secret(environment: Mapping[str, str]) -> list[str]:
    return _fingerprints("sec", ["--list-secret-keys"], environment)


def _fingerprints(kind: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> list[str]:
    said = run(["gpg", "--batch", "--with-colons", *command], env=environment).stdout
    return re.findall(rf"(?m)^{kind}:.*\nfpr:+(\w+):", said)


@contextmanager
def _home() -> Iterator[Mapping[str, str]]:
    with tempfile.TemporaryDirectory(prefix="ivy-gpg-", ignore_cleanup_errors=True) as home:
        environment = {"GNUPGHOME": home}
        try:
            yield environment
        finally:
            run(["gpgconf", "--kill", "all"], env=environment, check=False)
