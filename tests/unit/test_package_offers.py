"""Update packages in the updater: the states that the platform is told, and how they meet configs."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy import constants, update_pass
from ivy.types.config import ForeignConfig, as_text
from ivy.types.messages import ConfigMessageBody, DataMessageBody, LogMessageBody
from ivy.types.state import BackendState
from ivy.types.updates import Offer, Package, PackageKind
from ivy.utils import notify
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.state_interface import BACKEND_STATE
from ivy.utils.updater import Updater
from ivy.utils.updates import activation, decisions, environment, history, probation, repair
from ivy.utils.updates.errors import NetworkTrouble, Rejected
from ivy.utils.updates.releases import Releases
from ivy.utils.updates.source import Source
from ivy.version import Version
from tests.support.helpers import CONFIG, UPDATER, Node, make_release
from tests.support.killing import killed_at
from tests.unit.offers import foreign

VERSION = Version("1.0.0")
NEW = Version("9.1.0")
FLAG = Path(constants.PENDING_CONFIG_FLAG)
ROAD = ["DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING"]


class World:
    """What becomes of versions here; each step can be told to fail."""

    def __init__(self, releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
        self.releases = releases
        self.fails: dict[str, Callable[[], object]] = {}
        self.failure_on_trial: str | None = None
        self.tried: list[ForeignConfig] = []
        """The configs that were on probation."""

        def step(name: str) -> Callable[..., None]:
            def take(*_: object) -> None:
                self.fails.get(name, lambda: None)()

            return take

        def unpack(_source: Source, version: Version, directory: Path) -> None:
            make_release(directory)
            (directory / "ivy").mkdir()
            (directory / "ivy" / "constants.py").write_text(f'VERSION: Version = Version("{version}")\n')
            (directory / "pyproject.toml").write_text(f'[project]\nname = "ivy"\nversion = "{version}"\n')
            give_python(directory)

        def watch(_watch: probation.Watch) -> str | None:
            self.tried.append(releases.active_config())
            self.fails.get("trial", lambda: None)()
            return self.failure_on_trial

        monkeypatch.setattr(os, "chown", lambda *_, **__: None)  # a package is built by a user without rights
        monkeypatch.setattr(Source, "fetch", step("fetch"))
        monkeypatch.setattr(Source, "check_signature", step("signature"))
        monkeypatch.setattr(Source, "unpack", unpack)
        monkeypatch.setattr(Source, "vouches_for", lambda *_: True)
        monkeypatch.setattr(Updater, "install_dependencies", step("install"))
        monkeypatch.setattr(Updater, "run_pytests", step("tests"))
        monkeypatch.setattr(Updater, "remove_old_venvs", lambda _: None)
        monkeypatch.setattr(environment, "check", lambda _: None)
        monkeypatch.setattr(environment, "fits", lambda release: release.is_dir())
        monkeypatch.setattr(environment, "why_not", lambda _: None)
        monkeypatch.setattr(repair, "repair", lambda *_: False)
        monkeypatch.setattr(activation, "switch", lambda *_, **__: [])
        monkeypatch.setattr(probation.Watch, "run", watch)

    def run(self) -> None:
        """A pass, by the code of whatever version runs."""
        constants.VERSION = self.releases.current() or VERSION
        update_pass.run()


@pytest.fixture
def world(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> World:
    """A node whose release can make updates."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(constants, "VERSION", VERSION)
    node.fake("systemctl", {})
    releases = Releases()
    make_release(releases.directory(VERSION))
    give_python(releases.directory(VERSION))
    releases.activate(VERSION)
    use(releases)
    return World(releases, monkeypatch)


def give_python(release: Path) -> None:
    """An environment whose updater can start."""
    python = Path(environment.python_of(release))
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")


def sleep_by(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object] = lambda: None) -> None:
    """Let something happen whenever somebody sleeps, which takes no time."""
    most = iter(range(100))

    def sleep(_seconds: float) -> None:
        assert next(most, None) is not None, "nobody gives up"
        happens()

    monkeypatch.setattr(notify, "sleep", sleep)


def use(releases: Releases, **sections: Any) -> None:
    """Let this be the active config."""
    releases.write_config(VERSION, json.dumps({**CONFIG, "updater": UPDATER, **sections}))


def package(version: Version = NEW, kind: PackageKind = "sw", assignment: str = "00000001") -> Package:
    """A package, as a backend stores it."""
    return Package(kind=kind, version=version, assignment=assignment)


def assign(*packages: Package) -> None:
    """Let packages wait, and no others."""
    with BACKEND_STATE.update() as state:
        state.packages = list(packages)
    FLAG.parent.mkdir(exist_ok=True)
    FLAG.touch()


def offer(*configs: ForeignConfig) -> None:
    """Let configs wait."""
    with BACKEND_STATE.update() as state:
        state.pending_configs = list(configs)


def told(key: str = "sw_state") -> list[Any]:
    """What the platform is told under a key, in its order."""
    agent = MessagingAgent()
    bodies = [item.message_body for item in agent.get_n_latest_messages(1000)]
    agent.teardown()
    return [body.data[key] for body in bodies if isinstance(body, DataMessageBody) and key in body.data]


def said_of_configs() -> list[tuple[str, int]]:
    """What the platform is told of configs, but for the ones that were started with."""
    agent = MessagingAgent()
    bodies = [item.message_body for item in agent.get_n_latest_messages(1000)]
    agent.teardown()
    configs = [body for body in bodies if isinstance(body, ConfigMessageBody) and body.status != "startup"]
    return [(body.status, body.config.general.config_revision) for body in configs]


def fail(error: BaseException) -> Callable[[], object]:
    """What raises that."""

    def raise_it() -> None:
        raise error

    return raise_it


def test_an_accepted_package_takes_the_whole_road_with_the_active_config(world: World) -> None:
    assign(package())
    world.run()
    assert told() == [*ROAD, "UPDATED"]
    assert told("current_sw_title") == [constants.NAME] and told("current_sw_version") == ["9.1.0"]
    assert told("sw_error") == ["", ""], "what the last one failed for is no error of this one"
    assert world.releases.current() == NEW
    active = world.releases.active_config()
    assert active.general.config_revision == CONFIG["general"]["config_revision"]
    assert active.section("updater")["access_token"] == UPDATER["access_token"], "the node's own secrets stay"
    assert [decision.package for decision in history.load().decisions] == [package()]
    assert BACKEND_STATE.load().packages == [] and not FLAG.exists()
    assert said_of_configs() == [], "no config was offered"


def test_the_kind_firmware_has_states_of_its_own(world: World) -> None:
    assign(package(kind="fw"))
    world.run()
    assert told("fw_state") == [*ROAD, "UPDATED"] and told("current_fw_version") == ["9.1.0"]
    assert told() == []


@pytest.mark.parametrize(
    ("step", "states"),
    [
        ("fetch", ["DOWNLOADING"]),
        ("signature", ["DOWNLOADING", "DOWNLOADED"]),
        ("install", ["DOWNLOADING", "DOWNLOADED", "VERIFIED"]),
        ("tests", ["DOWNLOADING", "DOWNLOADED", "VERIFIED"]),
    ],
)
def test_a_rejected_package_fails_at_its_step_with_the_reason(world: World, step: str, states: list[str]) -> None:
    world.fails[step] = fail(Rejected(f"{step}: no"))
    assign(package())
    world.run()
    world.run()
    assert told() == [*states, "FAILED"] and told("sw_error")[-1] == f"{step}: no"
    assert told("current_sw_version") == [] and world.releases.current() == VERSION
    assert said_of_configs() == [], "the revision that is active was not rejected"


def test_a_package_that_does_not_run_well_is_undone(world: World) -> None:
    world.failure_on_trial = "ivy-wind.service failed"
    assign(package())
    world.run()
    assert told() == [*ROAD, "FAILED"] and told("sw_error")[-1] == "ivy-wind.service failed"
    assert world.releases.current() == VERSION and world.releases.previous() is None


class PowerCut(BaseException):
    """Ends the pass at once."""


@pytest.mark.parametrize("failure", [None, "it crashed"])
@pytest.mark.parametrize("step", ["fetch", "signature", "install", "tests", "trial"])
def test_after_a_power_cut_the_states_go_on(world: World, step: str, failure: str | None) -> None:
    world.fails[step] = fail(PowerCut())
    assign(package())
    with pytest.raises(PowerCut):
        world.run()
    before = told()
    world.fails.clear()
    world.failure_on_trial = failure
    FLAG.unlink()  # /run is gone, and a pass is made at each boot
    update_pass.run()
    assert told()[: len(before)] == before, "none is told again"
    assert told() == [*ROAD, "FAILED" if failure else "UPDATED"]
    assert world.releases.current() == (VERSION if failure else NEW)


def test_killed_at_any_step_each_state_is_told_once_and_in_order(world: World) -> None:
    queue = [Path(f"{ACTIVE_QUEUE_FILE}{end}") for end in ("", "-wal", "-shm")]
    step, rounds, died = 40, 0, True
    while died:
        rounds += 1
        assign(package())
        died = killed_at(step, world.run)
        world.run()
        world.run()
        assert told() == [*ROAD, "UPDATED"], f"killed at step {step}"
        for path in (*queue, Path(history.HISTORY_FILE)):
            path.unlink(missing_ok=True)
        world.releases.activate(VERSION)
        shutil.rmtree(world.releases.directory(NEW))
        step += 211  # one by one takes minutes
    assert rounds > 5, "hardly any step was tried"


def test_what_the_network_keeps_away_is_told_of_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep_by(monkeypatch)
    tries = iter([NetworkTrouble("no route")] * 5)

    def fetch() -> None:
        if (trouble := next(tries, None)) is not None:
            raise trouble

    world.fails["fetch"] = fetch
    world.fails["install"] = lambda: fetch()
    assign(package())
    world.run()
    assert told() == [*ROAD, "UPDATED"]


def test_an_older_version_is_a_change_like_any_other(world: World) -> None:
    assign(package())
    world.run()
    assign(package(Version("9.0.0"), assignment="00000002"))
    world.run()
    assert world.releases.current() == Version("9.0.0") and told() == [*ROAD, "UPDATED"] * 2


def test_what_runs_already_is_updated_at_once(world: World) -> None:
    world.fails["fetch"] = fail(AssertionError("nothing is to be fetched"))
    assign(package(VERSION))
    world.run()
    assert told() == ["UPDATED"] and told("current_sw_version") == [str(VERSION)] and world.tried == []


def test_a_config_is_decided_about_first_and_the_package_runs_with_it(world: World) -> None:
    """Whichever came last, as the platform names both at a connect; and the config names the version of before."""
    assign(package())
    offer(foreign(7, system_checks={"seconds_between_checks": 77}, updater=UPDATER))
    world.run()
    assert [(config.general.config_revision, config.general.software_version) for config in world.tried] == [
        (7, VERSION),
        (7, NEW),
    ]
    assert world.releases.active_config().section("system_checks") == {"seconds_between_checks": 77}
    assert told() == [*ROAD, "UPDATED"] and said_of_configs() == [("accepted", 7)]


def test_the_same_version_in_both_is_tried_once(world: World) -> None:
    assign(package())
    offer(foreign(7, "9.1.0", updater=UPDATER))
    world.run()
    world.run()
    assert len(world.tried) == 1 and told() == ["UPDATED"] and said_of_configs() == [("accepted", 7)]


def test_a_config_that_is_rejected_takes_no_package_with_it(world: World) -> None:
    assign(package())
    offer(foreign(7, system_checks={"seconds_between_checks": "often"}))
    world.run()
    assert said_of_configs() == [("rejected", 7)] and told() == [*ROAD, "UPDATED"]


def test_a_config_that_comes_while_the_network_is_away_does_not_wait_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may say where versions are to be had."""
    sleep_by(monkeypatch, lambda: offer(foreign(7, updater={**UPDATER, "repository": "org/moved"})))

    def fetch() -> None:
        if world.releases.active_config().section("updater")["repository"] != "org/moved":
            raise NetworkTrouble("no such host")

    world.fails["fetch"] = fetch
    assign(package())
    world.run()
    assert said_of_configs() == [("accepted", 7)] and told() == [*ROAD, "UPDATED"]


def test_a_newer_package_takes_the_place_of_one_that_cannot_be_fetched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = package(Version("9.2.0"), assignment="00000002")
    sleep_by(monkeypatch, lambda: assign(newer))
    world.fails["fetch"] = lambda: assign_or_fail()

    def assign_or_fail() -> None:
        if BACKEND_STATE.load().packages != [newer]:
            raise NetworkTrouble("no route")

    assign(package())
    world.run()
    assert told() == ["DOWNLOADING", "FAILED", *ROAD, "UPDATED"]
    assert "superseded by version 9.2.0" in told("sw_error")[1] and world.releases.current() == newer.version


def test_packages_of_both_kinds_are_decided_about_one_after_the_other(world: World) -> None:
    assign(package(), package(kind="fw"))
    world.run()
    assert told() == [*ROAD, "UPDATED"] and told("fw_state") == []
    assert FLAG.exists(), "by which systemd starts the next pass"
    world.run()  # by the version that runs now
    assert told() == [*ROAD, "UPDATED"] and told("fw_state") == ["UPDATED"]


def test_a_package_that_was_decided_about_is_not_tried_again_but_one_that_is_assigned_again_is(
    world: World,
) -> None:
    world.fails["tests"] = fail(Rejected("no"))
    assign(package())
    world.run()
    assign(package())
    world.run()
    assert told().count("FAILED") == 1 and BACKEND_STATE.load().packages == []
    assign(package(assignment="00000002"))
    world.fails.clear()
    world.run()
    assert told()[-5:] == [*ROAD, "UPDATED"]


@pytest.mark.parametrize(
    ("updater", "version", "reason"),
    [
        (None, "9.1.0", "updater: is null"),
        ({"oldest_version": "1.0.0"}, "0.9.0", "older than updater.oldest_version"),
        ({"locked": ["general"]}, "9.1.0", "general: is locked"),
        ({"locked": ["general.software_version"]}, "9.1.0", "general.software_version: is locked"),
    ],
)
def test_what_guards_updates_guards_packages(world: World, updater: Any, version: str, reason: str) -> None:
    use(world.releases, updater=updater and {**UPDATER, **updater})
    assign(package(Version(version)))
    world.run()
    assert told() == ["FAILED"] and reason in told("sw_error")[0]


def test_a_config_that_cannot_be_read_is_none_to_try_a_version_with(world: World) -> None:
    world.releases.write_config(VERSION, "{")
    assign(package())
    world.run()
    assert told() == ["FAILED"] and "the active config, with which it would run" in told("sw_error")[0]


def test_an_update_does_not_wait_for_a_queue_that_takes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_once = MessagingAgent.add_once

    def refuse_steps(agent: MessagingAgent, key: str, bodies: Any) -> None:
        if not key.startswith("decision"):
            raise OSError("the disk takes nothing")
        add_once(agent, key, bodies)

    monkeypatch.setattr(MessagingAgent, "add_once", refuse_steps)
    assign(package())
    world.run()
    assert told() == ["UPDATED"] and world.releases.current() == NEW


def test_the_operator_reads_of_a_package_what_became_of_it(world: World) -> None:
    world.fails["tests"] = fail(Rejected("no"))
    assign(package())
    world.run()
    agent = MessagingAgent()
    logs = [i.message_body for i in agent.get_n_latest_messages(100) if isinstance(i.message_body, LogMessageBody)]
    agent.teardown()
    subject = "updater - ERROR - Update package (sw) of version 9.1.0 was rejected: no"
    assert subject in [log.subject for log in logs]


def test_no_backend_can_give_a_package_the_name_of_another_offer() -> None:
    content = {"packages": [{"kind": "sw", "version": "9.1.0", "assignment": "admin-1"}]}
    with pytest.raises(ValueError, match="assignment"):
        BackendState.model_validate(content)


def test_releases_that_know_no_packages_read_what_is_written_of_them(world: World) -> None:
    """To them it is an offer of the backend's, which is no revision of theirs."""
    assign(package())
    world.run()
    content = json.loads(Path(history.HISTORY_FILE).read_text())
    [decision] = content["decisions"]
    assert decision["source"] == "backend" and not decision["identifier"].startswith(("revision-", "admin-"))
    assert content["decided_revision"] == -1


def test_what_is_told_of_a_package_survives_that_its_content_is_forgotten() -> None:
    config = foreign(3, "9.1.0")
    decided = Offer.of_package(package(), 3).model_copy(update={"config": config})
    decisions.record(decided, "no")
    left = decided.without_content()
    assert left.package == package() and as_text(left.config) != as_text(config)
