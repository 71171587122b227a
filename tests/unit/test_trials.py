"""A trial that is interrupted is gone on with, as it was begun."""

import json
from pathlib import Path

import pytest

from ivy.types.config import ForeignConfig, UpdaterConfig, as_text
from ivy.utils import history, probation
from ivy.utils.logger import Logger
from ivy.utils.releases import Releases
from ivy.utils.trials import Trials
from ivy.utils.update_plan import Offer
from ivy.version import Version
from tests.unit.helpers import CONFIG, UPDATER, Node, make_config

VERSION = Version("1.0.0")


@pytest.fixture
def releases(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A release that runs, and could make the next update; no service of it runs, as there is no systemd."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(Trials, "_updater_failure", lambda _: None)
    node.fake("systemctl", {})
    releases = Releases()
    releases.config_file(VERSION).parent.mkdir(parents=True)
    releases.activate(VERSION)
    releases.write_config(VERSION, json.dumps(CONFIG))
    return releases


def trials(releases: Releases, seconds: int, most_seconds: int) -> Trials:
    """Of an updater whose config says this of a probation."""
    times = {"seconds_of_probation": seconds, "max_seconds_of_probation": most_seconds}
    logger = Logger(make_config(), "updater")
    return Trials(releases, UpdaterConfig.model_validate({**UPDATER, **times}), logger)


def test_an_interrupted_probation_takes_as_long_as_before_whatever_the_offered_config_says(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[probation.Terms] = []

    def run(watch: probation.Watch) -> None:
        watched.append(watch.terms)

    monkeypatch.setattr(probation.Watch, "run", run)
    offered = ForeignConfig.model_validate({**CONFIG, "general": {**CONFIG["general"], "config_revision": 4}})
    trials(releases, 40, 400).begin(Offer(offered, "backend", "offer-4"))
    releases.write_config(VERSION, as_text(offered))
    trials(releases, 1, 10).resume()  # after a power cut the config is the offered one
    assert [(terms.seconds, terms.most_seconds) for terms in watched] == [(40, 400)]
    [decision] = history.load().decisions
    assert decision.accepted and history.load().trial is None
