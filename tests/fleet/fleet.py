"""A fleet in the test bed: nodes with an SSH server, all that they talk to, and the desk that they are run from."""

import json
import secrets
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from testbed.bed import Bed, Node, Snapshot
from testbed.broker import OPERATOR, Broker
from testbed.git_server import GitServer, map_hosts
from testbed.run import Argv, run
from testbed.web_server import WebServer

from tests.fleet.desk import Desk
from tests.support.installed import be_calm
from tests.support.recorder import Recorder
from tests.support.releases import PROJECT, ReleaseMaker
from tests.support.signers import Signer, allowed_signers

REPOSITORY = "university/ivy"
AT_ONCE = 4
# At each login, as bash does on a node without the locale of the desk.
COMPLAINT = 'echo "bash: warning: setlocale: LC_ALL: cannot change locale (de_DE.UTF-8)" >&2\n'
TEXT_OF_FILE = "{{ lookup('ansible.builtin.file', '%s') }}"
IDENTIFIER = "{{ inventory_hostname | ansible.builtin.to_uuid }}"
ANSIBLES_NAMESPACE = uuid.UUID("361e6d51-faec-444a-9079-341386da8e2e")
UPDATER = {
    "repository": REPOSITORY,
    "provider": "github",
    "provider_host": "github.com",
    "seconds_of_probation": 3,
    "max_seconds_of_probation": 120,
}


def identifier_of(name: str) -> str:
    """The sensor that a node is in Tenta: what Ansible's filter `to_uuid` makes of its name."""
    return str(uuid.uuid5(ANSIBLES_NAMESPACE, name))


class Fleet:
    """Nodes n1 to nN, of which the first `canaries` are what they are called."""

    def __init__(
        self,
        bed: Bed,
        directory: Path,
        size: int,
        canaries: int,
        forks: int = 20,
        furnished: Snapshot | None = None,
    ) -> None:
        """With a disk that has the packages which ivy depends on, all nodes but the last one begin with it."""
        self.directory = directory
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.canaries = self.names[:canaries]
        self.passwords = {name: secrets.token_urlsafe(18) for name in self.names}
        self.private_key = secrets.token_urlsafe(40)
        sensors = {identifier_of(name): password for name, password in self.passwords.items()}
        users = {**sensors, OPERATOR: secrets.token_urlsafe(18)}
        self.broker = Broker(bed.address, users=users, directory=directory / "broker")
        self.git = GitServer(bed.address, directory=directory / "git", public=[REPOSITORY])
        self.web = WebServer(bed.address, root=directory / "apt", directory=directory / "web")
        for server in (self.broker, self.git, self.web):
            server.start()
        self.recorder = Recorder(bed.address, self.broker.port, OPERATOR, users[OPERATOR])
        self.signer = Signer.make(directory, "maintainer")
        self.maker = ReleaseMaker(self.git.repository(REPOSITORY), directory / "maker")
        self.desk = Desk(directory, forks)
        self.nodes: dict[str, Node] = {}
        self._bed = bed
        self._furnished = furnished

    def close(self) -> None:
        """Stop what was started here, and destroy the nodes."""
        self.recorder.close()
        for server in (self.broker, self.git, self.web):
            server.stop()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(Node.destroy, self.nodes.values()))
        self.desk.close()

    def set_up(self) -> None:
        """The desk is ready, the repository has the package, the nodes are bare."""
        self.publish()
        self.desk.install_collection()
        self._boot()
        addresses = {name: node.address for name, node in self.nodes.items()}
        vault = {"vault_passwords": self.passwords, "vault_private_key": self.private_key}
        self.desk.write_inventory(addresses, self.canaries, self._variables(), vault)

    def _boot(self) -> None:
        bare = self._with_ssh("bare")
        others = self._with_ssh("furnished", self._furnished) if self._furnished else bare
        bases = {**dict.fromkeys(self.names, others), self.names[-1]: bare}
        self.nodes = {name: self._bed.node(name, base=base) for name, base in bases.items()}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(Node.boot, self.nodes.values()))

    def _with_ssh(self, name: str, base: Snapshot | None = None) -> Snapshot:
        """Bare Debian 13, or another disk, with an SSH server, which lets the desk's key in, and nothing else."""
        first = self._bed.node(name, base=base)
        first.boot()
        first.run(["apt-get", "install", "--yes", "--no-install-recommends", "openssh-server"], timeout=300)
        keys = first.path("/root/.ssh")
        keys.mkdir(mode=0o700, exist_ok=True)
        (keys / "authorized_keys").write_text(self.desk.public_key)
        first.path("/root/.bashrc").write_text(COMPLAINT)
        be_calm(first)
        map_hosts(first, self.git)
        return first.snapshot(name)

    def publish(self, *packages: Path, keys: Sequence[str] = ("apt",), options: Sequence[str] = ()) -> None:
        """Make the APT repository, or add packages to it."""
        signers = [word for name in keys for word in ("--key", self.directory / f"{name}.key")]
        command: Argv = [PROJECT / "packaging/apt-repository", "--make-key", *signers, *options]
        run([*command, "--output", self.web.root, *packages], timeout=120)

    def _variables(self) -> dict[str, Any]:
        """What all nodes share, but for what is in the vault."""
        return {
            "ivy_repository_url": self.web.url,
            "ivy_repository_key": TEXT_OF_FILE % (self.web.root / "ivy-archive-keyring.asc"),
            "ivy_unattended_upgrades": True,
            "ivy_allowed_signers": allowed_signers([self.signer]),
            "ivy_files": {"authority.pem": "a certificate"},
            "ivy_secret_files": {"node.key": "{{ vault_private_key }}"},
            "ivy_system_identifier": IDENTIFIER,
            "ivy_config": self._config(),
            "ivy_secrets": {
                "backend": {"mqtt_connection": {"password": "{{ vault_passwords[inventory_hostname] }}"}}
            },
        }

    def _config(self) -> dict[str, Any]:
        broker = {"host": self.broker.address, "port": self.broker.port}
        backend = {
            "provider": "tenta",
            "max_drain_time": 5,
            "mqtt_connection": {**broker, "client_id": IDENTIFIER, "username": IDENTIFIER},
        }
        return {"backend": backend, "updater": UPDATER, "dummy_procedure": {"seconds_between_datapoints": 1}}

    def secrets(self) -> Iterable[str]:
        """All that nobody may see."""
        return [*self.passwords.values(), self.private_key]

    def status(self, name: str) -> dict[str, Any]:
        """What a node says of itself."""
        status: dict[str, Any] = json.loads(self.nodes[name].run(["ivy", "status", "--json"], check=False).stdout)
        return status

    def config_text(self, name: str) -> str:
        """The active config of a node."""
        return self.nodes[name].path("/etc/ivy/config.json").read_text()

    def versions(self) -> dict[str, str]:
        """The version that each node runs."""
        links = {name: node.path("/var/lib/ivy/current", follow=False) for name, node in self.nodes.items()}
        return {name: link.readlink().name for name, link in links.items()}

    def arrived(self, name: str) -> list[float]:
        """The timestamps of all samples of a node that arrived at the broker."""
        pairs = self.recorder.timed_elements("measurements")
        topic = f"measurements/{identifier_of(name)}"
        return [element["timestamp"] for arrival, element in pairs if arrival.topic == topic]
