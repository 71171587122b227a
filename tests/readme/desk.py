"""The desk of somebody who has just cloned the project: a home of its own, a clone, terminals. Knows no node.

Commands are never changed for a test; what is made here is what they find around them.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from testbed.run import PATH, popen, run

from tests.readme.terminal import SHELL, Terminal, environment
from tests.support.releases import PROJECT

MAINTAINER = "maintainer@example.org"
INHERITED = ("PIP_", "IVY_DEBIAN_MIRROR")
# ssh looks for its files in the home that the system knows, whatever HOME says.
SSH_WRAPPER = '#!/bin/sh\nexec /usr/bin/{program} -F "$HOME/.ssh/config" "$@"\n'
SSH_CONFIG = """\
Host *
    User root
    IdentityFile {home}/.ssh/id_ed25519
    UserKnownHostsFile {home}/.ssh/known_hosts
    StrictHostKeyChecking accept-new
"""
GIT_CONFIG = f"""\
[user]
    name = a maintainer
    email = {MAINTAINER}
[safe]
    directory = *
[advice]
    detachedHead = false
"""


class Desk:
    """All of it is in `directory`, which must exist."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.directory = directory
        self._terminals: list[Terminal] = []
        for name in ("bin", ".ssh"):
            (self.home / name).mkdir(mode=0o700, parents=True)
        (self.home / ".gitconfig").write_text(GIT_CONFIG)
        self._prepare_ssh()
        self.clone = self.clone_of(PROJECT, "ivy")

    def clone_of(self, source: Path, name: str) -> Path:
        """A fresh clone of what is committed in a checkout."""
        run(["git", "clone", "--quiet", source, self.directory / name], env={"HOME": str(self.home)})
        return self.directory / name

    def terminal(self, directory: Path, path: str = "", **variables: str) -> Terminal:
        """A new terminal, in a directory of this machine.

        Args:
            directory: Where.
            path: Where to look for programs before the usual places.
            variables: To be found in the environment.
        """
        places = ":".join(filter(None, [path, str(self.home / "bin"), PATH]))
        known = {"HOME": str(self.home), "PATH": places, **_inherited(), **variables}
        terminal = Terminal(partial(popen, SHELL, env=environment(known), cwd=directory))
        self._terminals.append(terminal)
        return terminal

    @property
    def public_key(self) -> str:
        """Whom a node must let in."""
        return (self.home / ".ssh/id_ed25519.pub").read_text()

    def name_hosts(self, addresses: Mapping[str, str]) -> None:
        """Let ssh find hosts elsewhere than where they seem to be."""
        named = [f"Host {name}\n    HostName {address}\n" for name, address in addresses.items()]
        (self.home / ".ssh/config").write_text("".join([*named, SSH_CONFIG.format(home=self.home)]))

    def close(self) -> None:
        """Close the terminals."""
        for terminal in self._terminals:
            terminal.close()

    def _prepare_ssh(self) -> None:
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.home / ".ssh/id_ed25519"])
        for program in ("ssh", "scp", "sftp"):
            wrapper = self.home / "bin" / program
            wrapper.write_text(SSH_WRAPPER.format(program=program))
            wrapper.chmod(0o755)
        self.name_hosts({})


def _inherited() -> dict[str, str]:
    """How this machine reaches package indexes. What it has downloaded is not downloaded again, and a package is
    built without the unit tests, which have a stage of their own."""
    found = {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    settings = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "pip/pip.conf"
    if settings.is_file():
        found.setdefault("PIP_CONFIG_FILE", str(settings))
    # (Python compiles what is used of it; to pip, "no" to its option --no-compile means that it does not.)
    return {"PIP_CACHE_DIR": f"{cache}/pip", "PIP_NO_COMPILE": "no", "DEB_BUILD_OPTIONS": "nocheck", **found}
