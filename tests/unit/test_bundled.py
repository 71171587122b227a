"""What a Debian package brings is put on trial, and told of; how releases are made is in tests/package."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy.types.config import UpdaterConfig, as_text
from ivy.types.updates import Offer
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.updates import activation, history, probation
from ivy.utils.updates.bundled import ReleaseError, install_bundled
from ivy.utils.updates.releases import Releases
from ivy.utils.updates.trial import Trials
from ivy.version import Version
from tests.support.helpers import UPDATER, Node, make_config
from tests.unit.offers import foreign

OLD, NEW, OLDER = Version("5.1.0"), Version("5.2.0"), Version("5.0.0")
NOT_WELL = "ivy-wind.service ended 3 times"

Brings = Callable[..., None]


@pytest.fixture
def releases(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A release that runs, on a node whose systemd does what it is told."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemctl", {})
    monkeypatch.setattr(activation, "switch", lambda *_, **__: [])
    releases = Releases()
    releases.config_file(OLD).parent.mkdir(parents=True)
    releases.activate(OLD)
    releases.write_config(OLD, as_text(foreign(3, str(OLD))))
    return releases


@pytest.fixture
def trials(releases: Releases) -> Trials:
    return Trials(releases, UpdaterConfig.model_validate(UPDATER), Logger(make_config(), "updater"))


@pytest.fixture
def brings(tmp_path: Path, releases: Releases, trials: Trials) -> Brings:
    """Installs a package that brings a version, as its script does."""

    def install(version: Version, *, is_older_wanted: bool = False) -> None:
        bundled = tmp_path / "bundled"
        for directory in ("ivy", "config"):
            (bundled / directory).mkdir(parents=True, exist_ok=True)
        (bundled / "ivy" / "__init__.py").touch()
        # It could make the next update.
        (bundled / "ivy" / "__main__.py").write_text("")
        (bundled / "pyproject.toml").write_text(f'[project]\nname = "ivy"\nversion = "{version}"\n')
        install_bundled(bundled, releases, trials, is_older_wanted=is_older_wanted)

    return install


def ends(monkeypatch: pytest.MonkeyPatch, failure: str | None) -> None:
    """Let all probations end so, at once."""
    monkeypatch.setattr(probation.Watch, "run", lambda _: failure)


def decided() -> list[tuple[str, bool | None, str]]:
    """What the history says of packages: version, whether it was accepted, why."""
    known = history.load().decisions
    return [(str(found.version), found.accepted, found.reason) for found in known if found.is_installed]


def told() -> list[str]:
    """What is queued for the operator: statuses of configs, subjects of logs."""
    agent = MessagingAgent()
    bodies = [item.message_body for item in agent.get_n_latest_messages(1000)]
    agent.teardown()
    return [str(getattr(body, "status", getattr(body, "subject", ""))) for body in bodies]


def test_a_newer_version_is_on_trial_until_it_was_watched(
    brings: Brings, releases: Releases, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = releases.active_config()
    brings(NEW)
    assert (releases.current(), releases.previous()) == (NEW, OLD)
    assert history.load().last_good is None and decided() == []
    ends(monkeypatch, None)
    trials.resume()
    assert (releases.current(), releases.previous()) == (NEW, None)
    assert decided() == [(str(NEW), True, "")]
    assert history.load().last_good == before


def test_what_is_not_well_is_undone(
    brings: Brings, releases: Releases, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = releases.active_config()
    brings(NEW)
    ends(monkeypatch, NOT_WELL)
    trials.resume()
    assert (releases.current(), releases.previous()) == (OLD, None)
    assert releases.active_config() == before
    assert decided() == [(str(NEW), False, NOT_WELL)]
    # Whoever installs it again wants it tried again.
    ends(monkeypatch, None)
    brings(NEW)
    trials.resume()
    assert releases.current() == NEW


def test_a_power_cut_at_any_time_leaves_what_the_next_pass_can_go_on_with(
    brings: Brings, releases: Releases, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends(monkeypatch, None)
    with monkeypatch.context() as cut:
        cut.delattr(Releases, "activate")
        with pytest.raises(AttributeError):
            brings(NEW)
    trials.resume()
    assert (releases.current(), releases.previous(), decided()) == (OLD, None, [])
    brings(NEW)
    brings(NEW)  # by `dpkg --configure -a`
    assert (releases.current(), releases.previous()) == (NEW, OLD)
    trials.resume()
    assert decided() == [(str(NEW), True, "")]


def test_the_same_version_is_on_no_trial(brings: Brings, releases: Releases) -> None:
    brings(OLD)
    assert (releases.current(), releases.previous()) == (OLD, None)
    assert history.load().trial is None


def test_an_older_version_runs_only_if_somebody_wants_that(
    brings: Brings, releases: Releases, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    brings(OLDER)
    assert (releases.current(), history.load().trial) == (OLD, None)
    brings(OLDER, is_older_wanted=True)
    assert (releases.current(), releases.previous()) == (OLDER, OLD)
    ends(monkeypatch, None)
    trials.resume()
    assert (releases.current(), releases.previous()) == (OLDER, None)


def test_the_admins_package_replaces_what_is_on_trial(
    brings: Brings, releases: Releases, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = releases.active_config()
    offered = foreign(7, str(OLD), dummy_procedure={"seconds_between_datapoints": 77})
    trials.begin(Offer(identifier="offer-7", config=offered))
    releases.write_config(OLD, as_text(offered))
    brings(NEW)
    [decision] = history.load().decisions
    assert decision.identifier == "offer-7" and str(NEW) in decision.reason and not decision.accepted
    assert (releases.current(), releases.previous()) == (NEW, OLD)
    assert releases.config_before() == before
    assert releases.active_config().section("dummy_procedure") == before.section("dummy_procedure")
    ends(monkeypatch, None)
    trials.resume()
    assert decided() == [(str(NEW), True, "")]


def test_a_config_that_it_cannot_use_is_told_by_ivy_releases(brings: Brings, releases: Releases) -> None:
    text = json.loads(releases.active_text())
    releases.write_config(OLD, json.dumps({**text, "a_section_of_the_future": {}}))
    with pytest.raises(ReleaseError):
        brings(NEW)
    [(version, is_accepted, reason)] = decided()
    assert (version, is_accepted) == (str(NEW), False) and "a_section_of_the_future" in reason
    assert (releases.current(), releases.previous()) == (OLD, None)


def test_the_operator_is_told_of_the_package_and_of_no_config(
    brings: Brings, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    brings(NEW)
    ends(monkeypatch, NOT_WELL)
    trials.resume()
    assert f"updater - ERROR - Debian package of version {NEW} was rejected: {NOT_WELL}" in told()
    assert "rejected" not in told()
    brings(NEW)
    ends(monkeypatch, None)
    trials.resume()
    assert "accepted" in told()
