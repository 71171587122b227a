"""Copies of a node that has an offer before it, each to be killed in its own way, and where they are tried out."""

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.bed import Bed, Node, Snapshot

from tests.node.kills import UPDATER
from tests.support.backend_node import SENSOR
from tests.support.installed import read_config
from tests.support.platforms import TentaPlatform
from tests.support.recorder import Recorder
from tests.support.update_site import UpdateSite

STATE = "/var/lib/ivy/backend/state.json"
BROKER_PORT = 1883


@dataclass(frozen=True)
class Case:
    """An offer, and what must become of it."""

    name: str
    sections: dict[str, Any]
    accepted: bool
    version: str | None = None


@dataclass(frozen=True)
class Prepared:
    """The disk of a node to which the offer of a case has come, among others, and nothing of it is begun."""

    case: Case
    snapshot: Snapshot
    payload: str
    state: str
    revision: int
    revision_before: int


def prepare(site: UpdateSite, recorder: Recorder, cases: Sequence[Case]) -> list[Prepared]:
    """Let all offers arrive at a node whose updater does not begin. The node is powered off then."""
    node = site.node
    before = read_config(node)["general"]["config_revision"]
    node.run(["systemctl", "mask", "--runtime", "--now", f"{UPDATER}.path", f"{UPDATER}.service"])
    arrived = [_let_arrive(site, case) for case in cases]
    offers = [arrival for arrival in recorder.arrivals if arrival.topic == f"configurations/{SENSOR}"]
    payloads = [offer.payload.decode() for offer in offers[-len(cases) :]]
    snapshot = node.snapshot("offers-have-come")
    return [
        Prepared(case, snapshot, payload, state, revision, before)
        for case, payload, (revision, state) in zip(cases, payloads, arrived, strict=True)
    ]


def _let_arrive(site: UpdateSite, case: Case) -> tuple[int, str]:
    """Returns the offer's revision, and the state then, as if no other offer had come before it."""
    revision = site.offer(case.version, **case.sections)
    site.node.wait_for(lambda: revision in pending_revisions(site.node), 30, f"the offer of {case.name}")
    state = json.loads(site.node.path(STATE).read_text())
    return revision, json.dumps({**state, "superseded": []}, indent=4)


def pending_revisions(node: Node) -> list[int]:
    """The revisions that the node still has to decide about."""
    state = json.loads(node.path(STATE).read_text())
    return [config["general"]["config_revision"] for config in state.get("pending_configs", [])]


class Lane:
    """Where one copy after the other is tried out: with a broker of its own, as all copies have one name."""

    def __init__(self, bed: Bed, number: int, directory: Path) -> None:
        self._bed = bed
        self._name = f"lane-{number}"
        self._port = BROKER_PORT + number
        platform = TentaPlatform(directory / self._name, self._port, bed.address)
        self.recorder, self.close = platform.recorder, platform.close

    @contextmanager
    def copy(self, prepared: Prepared) -> Generator[Node, None, None]:
        """A copy of the node, without power yet; to its broker the offer is retained."""
        self.recorder.publish(f"configurations/{SENSOR}", self._at_this_broker(prepared.payload), retain=True)
        self.recorder.arrivals.clear()
        node = self._bed.node(self._name, base=prepared.snapshot)
        try:
            node.path(STATE).write_text(self._at_this_broker(prepared.state))
            config = node.path("/etc/ivy/config.json")
            config.write_text(self._at_this_broker(config.read_text()))
            yield node
        finally:
            node.destroy()

    def _at_this_broker(self, text: str) -> str:
        return text.replace(f'"port": {BROKER_PORT}', f'"port": {self._port}')
