"""The desk that a fleet is run from: Ansible, an inventory, a vault. Knows no node but by its name."""

import json
import os
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.run import clean_environment, run

from tests.support.releases import PROJECT

ANSIBLE = PROJECT / ".venv-ansible" / "bin"
LONGEST_PLAY = 3600
# As the collection's README recommends, but for the keys of hosts, which are new each time, and less patient.
SETTINGS = """\
[defaults]
forks = {forks}
host_key_checking = False
interpreter_python = /usr/bin/python3
vault_password_file = {directory}/vault-password
local_tmp = {directory}/tmp

[ssh_connection]
pipelining = True
control_path_dir = {control}
ssh_args = -o ControlMaster=auto -o ControlPersist=60s -o ConnectTimeout=5 -o ServerAliveInterval=2 \
-o ServerAliveCountMax=3 -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR
"""


@dataclass(frozen=True)
class Play:
    """How a play went."""

    status: int
    output: str
    seconds: float

    def recap(self, name: str) -> int:
        """A number of the recap, of all nodes: `changed`, `failed`, `unreachable` …"""
        return sum(int(number) for number in re.findall(rf"^n\d+ +:.*\b{name}=(\d+)", self.output, re.MULTILINE))

    def succeeded(self) -> "Play":
        """The same; fails the test with the last that was said if it did not succeed."""
        assert self.status == 0, self.output[-6000:]
        return self


class Desk:
    """All its files are in `directory`, which must exist."""

    def __init__(self, directory: Path, forks: int) -> None:
        self.directory = directory
        self._control = tempfile.TemporaryDirectory(prefix="ivy-ssh-")  # a short path: sockets need one
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "desk"])
        self._write("ansible.cfg", SETTINGS.format(forks=forks, directory=directory, control=self._control.name))
        self._write("vault-password", secrets.token_urlsafe(18))

    def close(self) -> None:
        """Remove what is not in the directory."""
        self._control.cleanup()

    @property
    def public_key(self) -> str:
        """The key that a node must let in as root."""
        return (self.directory / "desk.pub").read_text()

    def install_collection(self) -> None:
        """As a team does."""
        command = ["ansible-galaxy", "collection", "install", "--force", str(PROJECT / "packaging/ansible")]
        self._ansible([*command, "--collections-path", str(self.directory / "collections")]).succeeded()

    def write_inventory(
        self,
        addresses: Mapping[str, str],
        canaries: Sequence[str],
        variables: Mapping[str, Any],
        vault: Mapping[str, Any],
        own: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """As the collection's README shows it; `vault` is encrypted, and `own` are variables of hosts."""
        hosts = {
            name: {"ansible_host": address, **(own or {}).get(name, {})} for name, address in addresses.items()
        }
        groups: dict[str, Any] = {"canaries": {"hosts": {name: {} for name in canaries}}}
        self._write("inventory.yml", json.dumps({"all": {"hosts": hosts, "children": groups}}))
        login = {"ansible_user": "root", "ansible_ssh_private_key_file": str(self.directory / "desk")}
        self._write("group_vars/all/main.yml", json.dumps({**login, **variables}))
        encrypted = self._write("group_vars/all/vault.yml", json.dumps(vault))
        self._ansible(["ansible-vault", "encrypt", str(encrypted)]).succeeded()

    def play(self, name: str, *arguments: str, **variables: Any) -> Play:
        """Run a playbook of the collection, with variables that go before the inventory's."""
        extra = ["--extra-vars", json.dumps(variables)] if variables else []
        inventory = ["--inventory", str(self.directory / "inventory.yml")]
        return self._ansible(["ansible-playbook", *inventory, f"ivy.fleet.{name}", *arguments, *extra])

    def _ansible(self, command: list[str]) -> Play:
        environment = {
            "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.directory / "collections"),
            "PATH": f"{ANSIBLE}:{os.environ['PATH']}",
        }
        began = time.monotonic()
        done = subprocess.run(
            command,
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_PLAY,
        )
        return Play(done.returncode, done.stdout, time.monotonic() - began)

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path
