"""A node that is updated over the air, and all that takes part: platform, operator, git server, signers."""

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from testbed.bed import Bed, Node
from testbed.git_server import GitServer, map_hosts

from tests.support.backend_node import SENSOR
from tests.support.installed import read_config, use_backend
from tests.support.platforms import Platform, TentaPlatform
from tests.support.recorder import Recorder
from tests.support.releases import Edit, ReleaseMaker, replace
from tests.support.signers import Signer, allowed_signers

REPOSITORY, PRIVATE_REPOSITORY = "university/ivy", "university/secret"
TOKEN = "a-token-for-tests"
MOVED_TO_HTTP, MOVED_TO_ANOTHER_HOST = "evil/http", "evil/elsewhere"
TRAP_PORT = 8082
DECISION_SECONDS = 90
SHORT_PROBATION = {"seconds_of_probation": 3, "max_seconds_of_probation": 20}
SHORTEST_PROBATION = {"seconds_of_probation": 1}  # where it is not what is tested


# An edit that lets each sample say by which config it was taken, which not every platform tells.
MARKED = replace(
    "ivy/procedures/dummy_procedure.py",
    '"random_walk_position": position',
    '"random_walk_position": position, "revision": config.general.config_revision',
)

# An edit that lets a backend store each offer as it comes. Usually one that follows another waits for five seconds,
# and tests send more of them than a person does.
AT_ONCE = replace("ivy/backend/delays.py", "between_offers: float = 5.0", "between_offers: float = 0.1")

_FEW_ARRIVALS = 20


class UpdateSite:
    """One node, `n1`, and its world. What is offered is retained, as platforms do."""

    def __init__(self, bed: Bed, node: Node, platform: Platform, directory: Path) -> None:
        self.node = node
        self.platform = platform
        self.git = GitServer(
            bed.address,
            directory=directory / "git",
            public=[REPOSITORY, "evil/ivy"],
            private=[PRIVATE_REPOSITORY],
            token=TOKEN,
            moved={
                MOVED_TO_HTTP: f"http://{bed.address}:{TRAP_PORT}/{PRIVATE_REPOSITORY}.git",
                MOVED_TO_ANOTHER_HOST: f"https://gitlab.com/{PRIVATE_REPOSITORY}.git",
            },
        )
        self.trusted, self.foreign = (Signer.make(directory, name) for name in ("trusted", "foreign"))
        self.git.start()
        self.maker = ReleaseMaker(self.git.repository(REPOSITORY), directory / "maker")
        map_hosts(node, self.git)
        node.path("/etc/ivy/allowed_signers").write_text(allowed_signers([self.trusted]))
        self.revision = 0

    def close(self) -> None:
        """Stop all but the node."""
        self.git.stop()
        self.platform.close()

    def config(self, **sections: Any) -> dict[str, Any]:
        """The node's config with some sections changed: those that are objects, field by field."""
        config = read_config(self.node)
        for name, section in sections.items():
            config[name] = {**(config.get(name) or {}), **section} if isinstance(section, dict) else section
        return config

    def connect(self, **settings: Any) -> None:
        """Give the node its first config with a backend, as an admin's editor does."""
        general = {**read_config(self.node)["general"], "config_revision": 0}
        provider = {"repository": REPOSITORY, "provider": "github", "provider_host": "github.com"}
        use_backend(
            self.node,
            self.platform.provider,
            self.platform.address,
            self.platform.port,
            backend={"max_drain_time": 5},
            general=general | {"system_identifier": SENSOR},
            updater={**provider, **SHORT_PROBATION, **settings.pop("updater", {})},
            dummy_procedure={"seconds_between_datapoints": 1},
            **settings,
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
        del config["general"]["config_revision"]  # each platform says it in its own way
        self.platform.offer(config, self.revision)
        return self.revision

    def decision(self, revision: int, timeout: float = DECISION_SECONDS) -> bool:
        """Wait for the decision about an offer. Returns whether it was accepted."""

        def find() -> list[bool]:
            return [accepted for accepted, number in self.platform.decisions() if number == revision]

        return self.node.wait_for(find, timeout, f"a decision about revision {revision}")[0]

    def reason(self, revision: int) -> str:
        """Why an offer was rejected, as the operator reads it."""
        return self.wait_for_log(f"Config revision {revision} for", "was rejected")

    def wait_for_log(self, *contained: str, timeout: float = 20) -> str:
        """The first log message to the operator that contains all of the given texts."""

        def find() -> list[str]:
            return [log for log in self.platform.logs() if all(text in log for text in contained)]

        return self.node.wait_for(find, timeout, f"a log message with {' and '.join(contained)}")[0]

    def accepts(self, version: str | None = None, **sections: Any) -> None:
        """Offer something that is good, and see new samples of it."""
        revision = self.offer(version, **sections)
        assert self.decision(revision), self.reason(revision)
        self.wait_for_samples()

    def rejects(self, version: str | None = None, **sections: Any) -> str:
        """Offer something that is not, and see that the old one samples. Returns the reason."""
        before = self.running()
        revision = self.offer(version, **sections)
        assert not self.decision(revision)
        reason = self.reason(revision)
        assert self.running() == before
        self.wait_for_samples()
        return reason

    def check_each_was_decided_once(self) -> None:
        """All that was offered so far has one decision, though the platform offers the last one at each connect."""
        told = Counter(revision for _, revision in self.platform.decisions())
        assert told == Counter(range(1, self.revision + 1))
        tried = re.findall(r"Deciding about config revision (\d+) ", self.node.journal("--unit=ivy-updater"))
        assert set(Counter(tried).values()) == {1}

    def running(self) -> tuple[str, str]:
        """The release that runs, and its config."""
        return self.node.path("/var/lib/ivy/current", follow=False).readlink().name, json.dumps(
            read_config(self.node)
        )

    def wait_for_samples(self, revision: int | None = None) -> None:
        """Wait for a sample that is taken from now on; by a certain config, if the release is `MARKED`."""
        since = time.time()

        def has_come() -> bool:
            values = [values for taken, values in self.platform.samples(-_FEW_ARRIVALS) if taken > since]
            walks = [each for each in values if "random_walk_position" in each]
            return any(revision in (None, each.get("revision")) for each in walks)

        self.node.wait_for(has_come, 30, f"new samples{f' of revision {revision}' if revision else ''}")


def with_tenta(bed: Bed, node: Node, directory: Path) -> UpdateSite:
    """A site whose platform is Tenta."""
    return UpdateSite(bed, node, TentaPlatform(directory / "broker", 1883, bed.address), directory)


def wait_for_sample(node: Node, recorder: Recorder) -> None:
    """Wait for a sample that a node takes from now on."""
    since, first = time.time(), len(recorder.arrivals)

    def has_come() -> bool:
        return any(element["timestamp"] > since for element in recorder.elements("measurements", first))

    node.wait_for(has_come, 30, "a new sample")
