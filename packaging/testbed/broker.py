"""A real mosquitto for the nodes to talk to, set up like a Tenta deployment: passwords, rights, persistence.

It ends with the process that started it. Subscribing and looking at messages is not its job.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.run import run
from testbed.server import Server, write_private

OPERATOR = "operator"  # the user who sees and may write everything; its password is given like any other's

# %u is the user's name: a node reads and writes its own topics only.
ACCESS = f"""\
user {OPERATOR}
topic readwrite #

pattern write measurements/%u
pattern write logs/%u
pattern write acknowledgments/%u
pattern read configurations/%u
"""


def sensor_of(node: str) -> str:
    """What a node is to be called where it plays a sensor of Tenta: those have UUIDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, node))


@dataclass(frozen=True)
class Tls:
    certificate: Path
    key: Path


class Broker(Server):
    """The log and the database in `directory` survive stop, kill and restart.

    stop() is a clean end: it saves its database and says goodbye. kill() makes it forget what it did not save
    yet, which `autosave_on_changes` keeps small.
    """

    program = "mosquitto"
    log_name = "mosquitto.log"

    def __init__(
        self,
        address: str,
        port: int = 1883,
        users: Mapping[str, str] | None = None,
        *,
        directory: Path,
        tls: Tls | None = None,
        access: str = ACCESS,
    ) -> None:
        super().__init__(address, port, directory)
        self._users = dict(users or {})
        self._tls = tls
        self._access = access

    def _configure(self) -> list[str]:
        write_private(self._file("access"), self._access)
        write_private(self._file("passwords"), "".join(f"{u}:{p}\n" for u, p in self._users.items()))
        if self._users:
            run(["mosquitto_passwd", "-U", self._file("passwords")])
        write_private(self._file("mosquitto.conf"), "\n".join([*self._settings(), ""]))
        return ["mosquitto", "--config-file", str(self._file("mosquitto.conf"))]

    def _settings(self) -> list[str]:
        tls = [f"certfile {self._tls.certificate}", f"keyfile {self._tls.key}"] if self._tls else []
        return [
            "user root",  # it stays who it is, so that it can write here
            f"listener {self.port} {self.address}",
            *tls,
            "set_tcp_nodelay true",
            "allow_anonymous false",
            f"password_file {self._file('passwords')}",
            f"acl_file {self._file('access')}",
            "persistence true",
            f"persistence_location {self.directory}/",
            # Saved after every change: what it acknowledged should be there after a kill.
            "autosave_interval 1",
            "autosave_on_changes true",
            # No bound: a message lost on the broker's side must never look like one lost by a node.
            "max_queued_messages 0",
            "max_inflight_messages 0",
            f"log_dest file {self.log}",
            "log_type all",
            "log_timestamp_format %Y-%m-%dT%H:%M:%S",
        ]
