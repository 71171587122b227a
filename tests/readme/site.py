"""What is behind the names in the README: nodes roof-7, roof-1 and roof-2, a broker, a git server, a website."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from testbed.bed import Bed, Node, Snapshot
from testbed.broker import OPERATOR, Broker, Tls
from testbed.git_server import GitServer, map_hosts
from testbed.run import run

from tests.readme import four, sensor
from tests.readme.authority import Authority
from tests.readme.terminal import SHELL, Terminal, environment
from tests.support.file_server import FileServer
from tests.support.installed import be_calm
from tests.support.recorder import Recorder

REPOSITORY = "university/ivy"
HTTPS = 443
BROKER, WEB = "broker.example.org", "www.example.org"
# As in the config that the README shows, and in the vault that the collection's README does.
IDENTIFIER = "4d1fa09c-1c1e-4b59-9d2a-6d0f7a3f2b11"
# Of roof-1 and roof-2, as the collection's README calls them.
FLEET = {
    "0b9a7c1e-5d7e-4c43-9f6b-7f2f5be2a101": "correct-horse",
    "6c1d2f0a-93b4-4d0e-8a57-1c8f0d9e4b02": "battery-staple",
}
USERS = {IDENTIFIER: "…", **FLEET, OPERATOR: "operator"}
NODES = ("roof-7", "roof-1", "roof-2")
# For what a reader would install before: pictures.
FURTHER_PACKAGES = ("gnuplot-nox",)
COLLECTOR = "/var/lib/prometheus/node-exporter"
EDITOR = "/root/editor"
WANTED = "/root/wanted.json"


class Site:
    """Nodes are bare at first, but for an SSH server that lets a key in; the fleet's have what ivy depends on."""

    def __init__(self, bed: Bed, furnished: Snapshot, directory: Path, public_key: str) -> None:
        self._bed = bed
        self._furnished = furnished
        self.authority = Authority(directory / "authority", [BROKER, WEB], bed.address)
        tls = Tls(self.authority.server_certificate, self.authority.server_key)
        self.broker = Broker(bed.address, 8883, USERS, directory=directory / "broker", tls=tls)
        # Not the website's address: both are found at the port of HTTPS.
        self.git = GitServer(bed.second_address, directory=directory / "git", public=[REPOSITORY])
        self.web_root = directory / "www"
        self.web_root.mkdir()
        for server in (self.broker, self.git):
            server.start()
        # A clone of a shallow checkout is pushed there as well.
        run(["git", "-C", self.repository, "config", "receive.shallowUpdate", "true"])
        self.web = FileServer(bed.address, HTTPS, self.web_root, self.authority.tls())
        self.recorder = Recorder(
            bed.address, self.broker.port, OPERATOR, USERS[OPERATOR], self.authority.certificate
        )
        self.nodes = self._boot(public_key)
        self.roof = self.nodes["roof-7"]
        self._terminals: list[Terminal] = []

    @property
    def repository(self) -> Path:
        """What nodes take for that of GitHub."""
        return self.git.repository(REPOSITORY)

    def terminal(self, node: Node, **variables: str) -> Terminal:
        """A terminal of root's on a node."""

        def start(**streams: Any) -> Any:
            return node.popen(SHELL, env=environment(variables), **streams)

        terminal = Terminal(start)
        self._terminals.append(terminal)
        terminal.run("cd /root")
        return terminal

    def connect_sensor(self, node: Node) -> None:
        """Plug a thermometer in, and all else that the release samples; a node that is booted again has none."""
        inside = "/root/sensor.py"
        node.copy_in(Path(sensor.__file__), inside)
        node.run(["systemd-run", "--unit=sensor", "/usr/bin/python3", inside])
        node.wait_for(lambda: node.run(["test", "-c", sensor.PORT], check=False).returncode == 0, 20, "the sensor")
        four.plug_in(node)

    def wait_until_well(self, node: Node) -> None:
        """Wait until a node says so itself."""
        node.wait_for(lambda: node.run(["ivy", "status"], check=False).returncode == 0, 60, "all to be well")

    def wait_for_sample(self, identifier: str, key: str) -> None:
        """Wait for a sample of a node's that arrives from now on."""
        first = len(self.recorder.arrivals)

        def has_come() -> bool:
            pairs = self.recorder.timed_elements("measurements", first)
            return any(at.topic.endswith(f"/{identifier}") and key in each["value"] for at, each in pairs)

        self.roof.wait_for(has_come, 60, f"{key} of {identifier} at the broker")

    def close(self) -> None:
        """Stop what was started here; the nodes are the bed's."""
        for terminal in self._terminals:
            terminal.close()
        self.recorder.close()
        self.web.close()
        for server in (self.broker, self.git):
            server.stop()

    def _boot(self, public_key: str) -> dict[str, Node]:
        bare = self._with_ssh("bare", None, public_key)
        others = self._with_ssh("furnished", self._furnished, public_key)
        nodes = {name: self._bed.node(name, base=bare if name == "roof-7" else others) for name in NODES}
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._furnish, nodes.values()))
        return nodes

    def _with_ssh(self, name: str, base: Snapshot | None, public_key: str) -> Snapshot:
        first = self._bed.node(name, base=base)
        first.boot()
        first.run(["apt-get", "install", "--yes", "--no-install-recommends", "openssh-server"], timeout=300)
        keys = first.path("/root/.ssh")
        keys.mkdir(mode=0o700, exist_ok=True)
        (keys / "authorized_keys").write_text(public_key)
        first.copy_in(self.authority.certificate, "/usr/local/share/ca-certificates/authority.crt")
        first.run(["update-ca-certificates"])
        be_calm(first)
        map_hosts(first, self.git)
        return first.snapshot(name)

    def _furnish(self, node: Node) -> None:
        with node.path("/etc/hosts").open("a") as hosts:
            hosts.write(f"{self._bed.address} {BROKER} {WEB}\n")
        node.boot()
        if node.name == "roof-7":
            node.run(["apt-get", "install", "--yes", "--no-install-recommends", *FURTHER_PACKAGES], timeout=300)
            node.path(COLLECTOR).mkdir(parents=True)
            node.path(EDITOR).write_text(f'#!/bin/sh\nexec cp {WANTED} "$1"\n')
            node.path(EDITOR).chmod(0o755)


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with changes, section by section and field by field."""
    result = dict(config)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def write_wanted(node: Node, config: Mapping[str, Any]) -> str:
    """Put a config where the editor takes it from. Returns the path on the node."""
    node.path(WANTED).write_text(json.dumps(config, ensure_ascii=False))
    return WANTED
