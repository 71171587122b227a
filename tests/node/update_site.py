"""A node that is updated over the air, and all that takes part: broker, operator, git server, signers."""

import json
import time
from pathlib import Path
from typing import Any

from testbed.bed import Bed, Node
from testbed.broker import Broker
from testbed.git_server import GitServer, map_hosts

from tests.node.conftest import read_config, use_tenta
from tests.node.recorder import Recorder
from tests.node.releases import Edit, ReleaseMaker
from tests.node.signers import Signer, allowed_signers

REPOSITORY = "university/ivy"
VERDICT_SECONDS = 90
SHORT_PROBATION = {"seconds_of_probation": 3, "max_seconds_of_probation": 20}


class UpdateSite:
    """One node, `name`, and its world. What is offered is retained, as platforms do."""

    def __init__(self, bed: Bed, node: Node, broker: Broker, recorder: Recorder, directory: Path) -> None:
        self.node = node
        self.broker = broker
        self.recorder = recorder
        self.git = GitServer(bed.address, directory=directory / "git", public=[REPOSITORY, "evil/ivy"])
        self.trusted, self.foreign = (Signer.make(directory, name) for name in ("trusted", "foreign"))
        self.git.start()
        self.maker = ReleaseMaker(self.git.repository(REPOSITORY), directory / "maker")
        map_hosts(node, self.git)
        node.path("/etc/ivy/allowed_signers").write_text(allowed_signers([self.trusted]))
        self.revision = 0

    def close(self) -> None:
        """Stop what was started here."""
        self.git.stop()

    def config(self, **sections: Any) -> dict[str, Any]:
        """The node's config with some sections changed: those that are objects, field by field."""
        config = read_config(self.node)
        for name, section in sections.items():
            config[name] = {**(config.get(name) or {}), **section} if isinstance(section, dict) else section
        return config

    def connect(self) -> None:
        """Give the node its first config with a backend, as an admin's editor does."""
        general = {**read_config(self.node)["general"], "config_revision": 0}
        provider = {"repository": REPOSITORY, "provider": "github", "provider_host": "github.com"}
        use_tenta(
            self.node,
            self.broker,
            backend={"max_drain_time": 5},
            general=general | {"system_identifier": "n1"},
            updater={**provider, **SHORT_PROBATION},
            dummy_procedure={"seconds_between_datapoints": 1},
        )

    def apply(self, config: dict[str, Any], status: int = 0) -> str:
        """`ivy config apply`. Returns all it said."""
        self.node.path("/root").joinpath("config.json").write_text(json.dumps(config))
        done = self.node.run(["ivy", "config", "apply", "/root/config.json"], check=False, timeout=120)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def release(self, version: str, edit: Edit | None = None, **how: Any) -> None:
        """Tag a release, signed by somebody who may if not said otherwise."""
        self.maker.release(version, edit, **{"signer": self.trusted, **how})

    def offer(self, version: str | None = None, **sections: Any) -> int:
        """Offer the active config for a version and with changes. Returns its revision."""
        self.revision += 1
        config = self.config(**sections)
        if version is not None:
            config["general"]["software_version"] = version
        del config["general"]["config_revision"]
        payload = json.dumps({"revision": self.revision, "configuration": config})
        self.recorder.publish("configurations/n1", payload, retain=True)
        return self.revision

    def verdict(self, revision: int, timeout: float = VERDICT_SECONDS) -> bool:
        """Wait for the verdict about an offer. Returns whether it was accepted."""

        def find() -> dict[str, Any] | None:
            found = (e for e in self.recorder.elements("acknowledgments") if e["revision"] == revision)
            return next(found, None)

        return bool(self.node.wait_for(find, timeout, f"a verdict about revision {revision}")["success"])

    def reason(self, revision: int) -> str:
        """Why an offer was rejected, as the operator reads it."""
        element = self.recorder.wait_for_element(
            "logs", 20, f"the reason for revision {revision}", f"Config revision {revision} for", "was rejected"
        )
        return str(element["message"])

    def accepts(self, version: str | None = None, **sections: Any) -> None:
        """Offer something that is good, and see new samples of it."""
        revision = self.offer(version, **sections)
        assert self.verdict(revision), self.reason(revision)
        self.wait_for_samples()

    def rejects(self, version: str | None = None, **sections: Any) -> str:
        """Offer something that is not, and see that the old one samples. Returns the reason."""
        before = self.running()
        revision = self.offer(version, **sections)
        assert not self.verdict(revision)
        reason = self.reason(revision)
        assert self.running() == before
        self.wait_for_samples()
        return reason

    def running(self) -> tuple[str, str]:
        """The release that runs, and its config."""
        return self.node.path("/var/lib/ivy/current", follow=False).readlink().name, json.dumps(
            read_config(self.node)
        )

    def wait_for_samples(self) -> None:
        """Wait for a sample that is taken from now on."""
        wait_for_sample(self.node, self.recorder)


def wait_for_sample(node: Node, recorder: Recorder) -> None:
    """Wait for a sample that a node takes from now on."""
    since = time.time()

    def has_come() -> bool:
        return any(element["timestamp"] > since for element in recorder.latest("measurements"))

    node.wait_for(has_come, 30, "a new sample")
