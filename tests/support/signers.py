"""Keys that sign releases, and the list of those that a node trusts. Signing is git's job."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from testbed.run import run


@dataclass(frozen=True)
class Signer:
    """Somebody with an SSH key; `key` is the private one, the public one is beside it."""

    name: str
    key: Path

    @classmethod
    def make(cls, directory: Path, name: str) -> "Signer":
        """A new ed25519 key without passphrase in `directory`, which must exist."""
        key = directory / name
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key])
        return cls(name, key)

    @property
    def public_key(self) -> str:
        """Type and key, without comment."""
        return " ".join(self.key.with_name(f"{self.name}.pub").read_text().split()[:2])


def allowed_signers(signers: Iterable[Signer], options: str = 'namespaces="git"') -> str:
    """The text of a file for `gpg.ssh.allowedSignersFile`; the principals are the signers' names."""
    return "".join(f"{signer.name} {options} {signer.public_key}\n" for signer in signers)
