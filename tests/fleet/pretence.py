"""Nodes that are directories of this machine with programs of their own, for plays that need no whole fleet."""

from pathlib import Path
from typing import Any

from tests.fleet.desk import Desk

NOWHERE = "192.0.2.1"  # no machine has this address
SHELL = """#!/bin/sh
PATH={programs}:$PATH NODE={directory}; export PATH NODE
exec /bin/sh "$@"
"""


class Pretence:
    """Nodes n1 to nN of a desk. Their programs find in `NODE` the directory of the node that they are on."""

    def __init__(self, directory: Path, size: int, canaries: int = 1, **variables: Any) -> None:
        self.directory = directory
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.desk = Desk(directory, forks=size)
        self.desk.install_collection()
        self._find_by_name(directory / "collections/ansible_collections/ivy/fleet/plugins/module_utils/node.py")
        self._canaries, self._variables = self.names[:canaries], variables
        self._here = {name: self._make(name) for name in self.names}
        self.take_away()

    def _find_by_name(self, module: Path) -> None:
        """Let modules call not the `ivy` of this machine, but the first one of the node's programs."""
        text = module.read_text()
        assert '"/usr/bin/ivy"' in text
        module.write_text(text.replace('"/usr/bin/ivy"', '"ivy"'))

    def _make(self, name: str) -> dict[str, Any]:
        programs = self.directory / name / "bin"
        programs.mkdir(parents=True)
        shell = self.directory / name / "sh"
        shell.write_text(SHELL.format(programs=programs, directory=self.directory / name))
        shell.chmod(0o755)
        return {"ansible_connection": "local", "ansible_shell_executable": str(shell)}

    def take_away(self, *names: str) -> None:
        """Let these be away from now on, and no others."""
        own = {name: found for name, found in self._here.items() if name not in names}
        shared = {"ansible_become": False, "ansible_timeout": 2, **self._variables}
        addresses = dict.fromkeys(self.names, NOWHERE)
        self.desk.write_inventory(addresses, self._canaries, shared, {"vault_nothing": ""}, own)

    def program(self, node: str, name: str, script: str) -> None:
        """Let a program of a node be a script."""
        path = self.directory / node / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def let_raw_be_of(self, node: str) -> None:
        """Let the module `raw`, which knows no shell but the desk's, run the programs of this node on all."""
        settings = self.directory / "ansible.cfg"
        shell = self.directory / node / "sh"
        settings.write_text(settings.read_text().replace("[defaults]\n", f"[defaults]\nexecutable = {shell}\n"))

    def close(self) -> None:
        """As `Desk.close`."""
        self.desk.close()
