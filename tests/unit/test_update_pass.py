"""A pass of the updater: which offer it deals with, by which config, and what it says."""

import errno
import functools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ivy import constants, overview, update_pass
from ivy.types.config import ForeignConfig
from ivy.types.messages import ConfigMessageBody, DataMessageBody
from ivy.types.updates import Offer
from ivy.utils import notify
from ivy.utils.host import clock
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import BACKEND_STATE_FILE, STATE_FILE, StateInterface
from ivy.utils.updater import Updater
from ivy.utils.updates import bundled, damage, decisions, environment, history, probation, repair, retry, source
from ivy.utils.updates.errors import InstallTrouble, NetworkTrouble, NodeTrouble, Refused, Rejected
from ivy.utils.updates.policy import UPDATER_DEFAULTS
from ivy.utils.updates.releases import Releases
from ivy.utils.updates.source import Source
from ivy.utils.updates.trial import Trials
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, UPDATER, Node, make_config
from tests.unit.offers import foreign

VERSION = Version("1.0.0")
LOGGER = Logger(make_config(), "updater")
ADMINS = Offer(identifier="admin-1", config=foreign(3, "1.1.0"), source="admin")


@pytest.fixture(autouse=True)
def releases(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A release that runs; no service of it does, as there is no systemd."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemctl", {})
    releases = Releases()
    releases.config_file(VERSION).parent.mkdir(parents=True)
    releases.activate(VERSION)
    write(CONFIG)
    return releases


def write(content: object) -> None:
    """Let this be the active config."""
    Releases().write_config(VERSION, content if isinstance(content, str) else json.dumps(content))


def startups() -> list[int]:
    """The revisions of the start-up messages that are queued."""
    agent = MessagingAgent()
    bodies = [item.message_body for item in agent.get_n_latest_messages(100)]
    agent.teardown()
    configs = [body for body in bodies if isinstance(body, ConfigMessageBody)]
    return [body.config.general.config_revision for body in configs if body.status == "startup"]


def test_a_config_is_announced_once_for_each_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        update_pass.announce()
    assert startups() == [3]
    write({**CONFIG, "general": {**CONFIG["general"], "config_revision": 4}})
    update_pass.announce()
    update_pass.announce()
    assert startups() == [3, 4]
    monkeypatch.setattr(clock, "boot_id", lambda: "another boot")
    update_pass.announce()
    assert startups() == [3, 4, 4]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"general": {}}', "\ud800".encode(errors="replace").decode()])
def test_a_config_that_is_none_is_not_announced_and_stops_nothing(text: str) -> None:
    write(text)
    update_pass.announce()
    assert startups() == []


@pytest.mark.parametrize("what", ["directory", "link", "pipe", "noise"])
def test_whatever_stands_in_the_place_of_the_mark_is_replaced(what: str, root_dir: Path) -> None:
    mark, elsewhere = root_dir / "announced", root_dir / "elsewhere"
    elsewhere.write_text("as it was")
    if what == "directory":
        (mark / "inner").mkdir(parents=True)
    elif what == "link":
        mark.symlink_to(elsewhere)
    elif what == "pipe":
        os.mkfifo(mark)
    else:
        mark.write_bytes(b"\xff")
    update_pass.announce()
    update_pass.announce()
    assert startups() == [3]
    assert mark.is_file() and not mark.is_symlink() and elsewhere.read_text() == "as it was"


def test_the_running_config_is_the_active_one() -> None:
    write({**CONFIG, "updater": UPDATER})
    config = update_pass.running_config()
    assert config.general.config_revision == 3 and config.updater is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', pytest.param("[" * 100_000, id="deep")])
def test_of_a_config_that_cannot_be_read_at_all_the_template_stands_in(text: str) -> None:
    write(text)
    assert update_pass.running_config().general.system_identifier
    assert update_pass.running_config().backend is None


def test_of_a_config_of_another_version_what_this_one_understands_counts() -> None:
    """The package's updater stands in for that of a broken release: it must know where versions come from."""
    general = {**CONFIG["general"], "software_version": "9.0.0", "of_the_future": True}
    strange: dict[str, Any] = {"system_checks": {"of_the_future": 1}, "a_section_of_the_future": {}}
    write({**CONFIG, "general": general, "updater": {**UPDATER, "repository": "our/own"}, **strange})
    config = update_pass.running_config()
    assert config.updater is not None and config.updater.repository == "our/own"
    assert config.logging_verbosity.message_sending == "WARNING"


def test_what_guards_updates_is_not_lost_with_a_config_that_cannot_be_read() -> None:
    write({**CONFIG, "general": None, "updater": {**UPDATER, "oldest_version": "0.5.0", "of_the_future": 1}})
    updater = update_pass.running_config().updater or UPDATER_DEFAULTS
    assert updater.require_signed_tags


class Performed:
    """Stands in for the updater's work: it accepts or rejects, and remembers what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.revisions: list[int] = []

        def perform(_updater: Updater, offer: Offer) -> str | None:
            self.revisions.append(offer.revision)
            decisions.record(offer, None)
            decisions.report(LOGGER)
            return None

        monkeypatch.setattr(Updater, "perform", perform)
        monkeypatch.setattr(environment, "why_not", lambda _: None)


def pend(*revisions: int) -> None:
    with StateInterface.update() as state:
        state.pending_configs = [foreign(revision) for revision in revisions]


def test_the_newest_offer_is_dealt_with_and_the_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    performed = Performed(monkeypatch)
    pend(6, 8, 7, 3)
    update_pass.run()
    assert performed.revisions == [7], "it came last of those that can be accepted"
    found = [(d.revision, d.accepted, d.reason) for d in history.load().decisions]
    superseded = "superseded by revision 7"
    assert found == [(3, False, superseded), (6, False, superseded), (8, False, superseded), (7, True, "")]
    assert all(decision.reported for decision in history.load().decisions)
    assert StateInterface.load().pending_configs == []


def test_what_waits_after_the_trial_of_another_version_is_left_to_that_ones_updater(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    performed = Performed(monkeypatch)
    pend(7)
    releases.begin_probation()
    with history.update() as past:
        past.trial = Offer(identifier="admin-1", config=foreign(3), is_installed=True, failure="it crashed")
    update_pass.run()
    assert (performed.revisions, releases.previous()) == ([], None)
    update_pass.run()
    assert performed.revisions == [7]


@pytest.mark.parametrize("path", [history.HISTORY_FILE, STATE_FILE, BACKEND_STATE_FILE])
def test_the_operator_is_told_once_of_a_file_that_was_damaged(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    performed = Performed(monkeypatch)
    text = f"{path} was damaged: what it knew is lost, and kept in {path}.damaged as it was found"
    for noise in (bytes(20), bytes(30)):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(noise)
        capsys.readouterr()
        update_pass.run()
        assert text in capsys.readouterr().out
        assert Path(f"{path}.damaged").read_bytes() == noise, "the last one is kept"
        assert not list(Path(path).parent.glob("*.damaged-*"))
    update_pass.run()
    assert text not in capsys.readouterr().out
    pend(7)
    update_pass.run()
    assert performed.revisions == [7]


def test_a_pass_repairs_the_release_before_all_else(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    performed = Performed(monkeypatch)
    code = releases.directory(VERSION) / "ivy" / "agent.py"
    code.parent.mkdir()
    code.write_text("SECONDS = 10\n")
    shutil.copytree(releases.directory(VERSION), releases.directory(Version("0.9.0")))
    monkeypatch.setattr(Updater, "remove_old_venvs", lambda _: None)
    update_pass.run()
    code.write_bytes(bytes(13))
    pend(7)
    update_pass.run()
    assert code.read_text() == "SECONDS = 10\n" and performed.revisions == [7]


def test_a_pass_that_cannot_repair_goes_on_and_is_made_again(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    performed = Performed(monkeypatch)
    pend(7)

    def fail(*_: object) -> bool:
        raise OSError("No space left on device")

    monkeypatch.setattr(damage, "repair", fail)
    with pytest.raises(SystemExit) as ended:
        update_pass.run()
    assert ended.value.code == constants.EXIT_TRY_AGAIN and performed.revisions == [7]


def test_what_was_decided_is_not_decided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    performed = Performed(monkeypatch)
    for revision in (7, 8):
        decisions.record(Offer.of_backend(foreign(revision)), "no")
    pend(7, 8)
    update_pass.run()
    assert performed.revisions == [] and StateInterface.load().pending_configs == []


def test_no_revision_makes_the_node_deaf(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a rejected one nor, if whoever had the platform was let in once, an accepted one."""
    python = Path(environment.python_of(releases.directory(VERSION)))
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    monkeypatch.setattr(repair, "repair", lambda *_: False)
    huge = 2**31 - 1
    for revision, failure in ((huge, "no link"), (5, None), (huge, None), (6, None), (7, None)):
        monkeypatch.setattr(probation.Watch, "run", lambda _, failure=failure: failure)
        with StateInterface.update() as state:
            state.pending_configs = [foreign(revision, seconds=len(history.load().decisions))]
        update_pass.run()
    found = [(decision.revision, decision.accepted) for decision in history.load().decisions]
    assert found == [(huge, False), (5, True), (huge, True), (6, False), (7, True)]
    assert "offer it once more under its next revision" in history.load().decisions[3].reason


def test_after_many_decisions_there_is_a_pause_in_which_nobody_is_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    performed, pauses = Performed(monkeypatch), []

    def sleep(seconds: float) -> None:
        with update_pass.automation_lock(seconds=0):
            pauses.append(seconds)

    monkeypatch.setattr(notify, "sleep", sleep)
    Path(constants.PENDING_CONFIG_FLAG).parent.mkdir(exist_ok=True)
    most = decisions.MOST_IN_BURST
    for revision in range(4, 4 + most + 1):
        pend(revision)
        Path(constants.PENDING_CONFIG_FLAG).touch()
        update_pass.run()
    assert performed.revisions == list(range(4, 4 + most)), "as many are decided about at once"
    assert len(pauses) == 1 and 0 < pauses[0] <= decisions.SECONDS_BETWEEN_DECISIONS
    assert Path(constants.PENDING_CONFIG_FLAG).exists(), "so systemd starts the next pass"
    monkeypatch.setattr(time, "time", lambda now=time.time(): now + decisions.SECONDS_BETWEEN_DECISIONS)  # noqa: B008
    update_pass.run()
    assert performed.revisions[-1] == 4 + most


@pytest.mark.parametrize("error", [-86_400, 86_400])
def test_a_clock_that_is_set_makes_no_pause_longer(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for revision in range(4, 4 + decisions.MOST_IN_BURST):
        decisions.record(Offer.of_backend(foreign(revision)), "no")
    assert decisions.seconds_to_pause() > 0
    monkeypatch.setattr(time, "time", lambda now=time.time(): now + error)  # noqa: B008
    assert decisions.seconds_to_pause() == 0


def test_a_pass_tells_what_runs_and_deals_with_all_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    performed = Performed(monkeypatch)
    pend(5)
    update_pass.run()
    assert startups() == [3] and performed.revisions == [5]
    assert not Path(constants.PENDING_CONFIG_FLAG).exists()


def test_what_a_pass_that_was_cut_left_of_the_mark_is_removed(
    monkeypatch: pytest.MonkeyPatch, root_dir: Path
) -> None:
    Performed(monkeypatch)
    left = root_dir / ".announced.106-14981177416365545570"
    left.touch()
    update_pass.run()
    assert not left.exists()


def test_an_offer_that_is_repeated_in_the_state_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    performed = Performed(monkeypatch)
    pend(5, 5)
    update_pass.run()
    assert performed.revisions == [5] and len(history.load().decisions) == 1


def test_the_check_changes_nothing(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.write_config()
    before = {path for path in root_dir.rglob("*") if "lock" not in path.name}
    status, output, errors = node.ivy("check-updater")
    assert (status, output, errors) == (0, "", "")
    assert {path for path in root_dir.rglob("*") if "lock" not in path.name} == before


def test_the_check_fails_where_there_is_no_usable_config(node: Node) -> None:
    assert node.ivy("check-updater")[0] != 0


def test_a_startup_message_carries_the_config(releases: Releases) -> None:
    write({**CONFIG, "of_the_future": {"a": 1}})
    update_pass.announce()
    agent = MessagingAgent()
    [item] = agent.get_n_latest_messages(10)
    agent.teardown()
    body = item.message_body
    assert isinstance(body, ConfigMessageBody) and isinstance(body.config, ForeignConfig)
    assert (body.config.model_extra or {})["of_the_future"] == {"a": 1}


def test_a_config_that_is_gone_can_be_replaced(releases: Releases) -> None:
    releases.config_file(VERSION).unlink()
    assert releases.active_config().general.config_revision == -1
    releases.begin_probation()
    releases.write_config(VERSION, json.dumps(CONFIG))
    assert releases.active_config().general.config_revision == 3


def test_the_active_version_is_the_one_that_runs_whatever_its_config_says(releases: Releases) -> None:
    """Otherwise what is offered for it would be written over it before that is kept."""
    write({**CONFIG, "general": {**CONFIG["general"], "software_version": "1.1.0"}})
    assert releases.active_config().general.software_version == VERSION


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(notify, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 100_000, "nobody gives up"


def no_network(*_: object) -> None:
    raise NetworkTrouble("no route to host")


def test_the_admin_is_told_soon_that_there_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is decided while a command waits, and who gave it may be gone."""
    clock = Clock(monkeypatch)
    write({**CONFIG, "updater": UPDATER})
    monkeypatch.setattr(Source, "fetch", no_network)
    failure = Updater(update_pass.running_config()).perform(ADMINS)
    assert failure == "no route to host"
    assert 60 < clock.now - 1000 < 300


@pytest.mark.parametrize(
    ("trouble", "heading"),
    [
        (NetworkTrouble("no route"), "Cannot fetch the source; trying again in 5 s"),
        (InstallTrouble("no route"), "Cannot install what the source needs; trying again in 5 s"),
    ],
)
def test_it_is_said_what_the_network_is_missed_for(
    trouble: NetworkTrouble, heading: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Clock(monkeypatch)
    tries = [trouble]

    def work() -> None:
        if tries:
            raise tries.pop()

    retry.fetch("the source", work, lambda _: None, Logger(make_config()))
    assert heading in capsys.readouterr().out


def refused(*_: object) -> None:
    raise Refused("there is no such tag")


def test_a_no_of_the_server_counts_after_half_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    write({**CONFIG, "updater": UPDATER})
    monkeypatch.setattr(Source, "fetch", refused)
    failure = Updater(update_pass.running_config()).perform(Offer.of_backend(foreign(4, "1.1.0")))
    assert failure == "there is no such tag"
    assert 1800 <= clock.now - 1000 < 3600


def test_the_admin_is_told_at_once_that_there_is_no_such_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    write({**CONFIG, "updater": UPDATER})
    monkeypatch.setattr(Source, "fetch", refused)
    assert Updater(update_pass.running_config()).perform(ADMINS) == "there is no such tag"
    assert clock.now == 1000


def test_a_tag_that_comes_after_its_offer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    write({**CONFIG, "updater": UPDATER})

    def fetch(*_: object) -> None:
        raise Refused("there is no such tag") if clock.now < 2000 else Rejected("what comes is looked at")

    monkeypatch.setattr(Source, "fetch", fetch)
    failure = Updater(update_pass.running_config()).perform(Offer.of_backend(foreign(4, "1.1.0")))
    assert failure == "what comes is looked at"


def test_a_corrected_offer_does_not_wait_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    write({**CONFIG, "updater": UPDATER})
    monkeypatch.setattr(Source, "fetch", no_network)
    newer = Offer.of_backend(foreign(5))
    monkeypatch.setattr(decisions, "undecided", lambda _active: [newer] if clock.now > 2000 else [])
    failure = Updater(update_pass.running_config()).perform(Offer.of_backend(foreign(4, "1.1.0")))
    assert failure is not None and failure.startswith("superseded by revision 5")
    assert clock.now <= 2000 + 60


def test_an_offer_waits_for_what_the_node_lacks_and_the_operator_learns_what(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    told: list[str] = []

    class Ear(Logger):
        """Hears what the operator is told."""

        def warning(self, message: str, details: str | None = None) -> None:
            told.append(f"{message}: {details}")

        def without_messages(self) -> Logger:
            return LOGGER

    def fetch(*_: object) -> None:
        if clock.now < 20_000:
            raise NodeTrouble("/tmp is full") if clock.now < 10_000 else OSError(errno.ENOSPC, "nor is there any")
        raise Rejected("there is room at last")

    write({**CONFIG, "updater": UPDATER})
    monkeypatch.setattr(Updater, "make_logger", Ear)
    monkeypatch.setattr(Source, "fetch", fetch)
    failure = Updater(update_pass.running_config()).perform(Offer.of_backend(foreign(4, "1.1.0")))
    assert failure == "there is room at last"
    lack = "This node lacks what it needs for the source of version 1.1.0"
    assert told == [f"{lack}; trying again in 5 s: /tmp is full"]


def test_the_admin_is_told_at_once_what_the_node_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    write({**CONFIG, "updater": UPDATER})
    full = SimpleNamespace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
    failure = Updater(update_pass.running_config()).perform(ADMINS)
    assert failure == "no space left for a version: 0 MB are free, 100 are needed"
    assert clock.now == 1000


def test_a_node_without_pytest_has_not_tested_a_version(node: Node, releases: Releases) -> None:
    test = releases.directory(VERSION) / "tests" / "release" / "test_it.py"
    test.parent.mkdir(parents=True)
    test.write_text("import pytest\n\n\n@pytest.mark.version_change\ndef test_it(): ...\n")
    node.fake("systemd-run", {"*": "echo '/usr/bin/python3: No module named pytest' >&2; exit 1"})
    with pytest.raises(NodeTrouble, match="No module named pytest"):
        Updater(update_pass.running_config()).run_pytests(VERSION)


def test_what_fills_the_disk_is_removed_before_the_decision_is_written(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = releases.unfinished(Version("1.1.0"))

    def fill(_: Source, version: Version) -> None:
        unfinished.mkdir()
        raise Rejected("No space left on device")

    monkeypatch.setattr(Source, "fetch", fill)
    there: list[bool] = []
    monkeypatch.setattr(decisions, "record", lambda *_, **__: there.append(unfinished.exists()))
    write({**CONFIG, "updater": UPDATER})
    assert Updater(update_pass.running_config()).perform(ADMINS) == "No space left on device"
    assert there == [False]


def test_versions_come_from_where_the_active_config_says(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The offered one is not trusted yet."""
    Clock(monkeypatch)
    monkeypatch.setattr(source, "ALLOWED_SIGNERS", Path(__file__))
    node.fake("systemd-run", {"*fetch*": "echo couldn\\'t find remote ref >&2; exit 128"})
    write({**CONFIG, "updater": UPDATER})
    evil = {**UPDATER, "repository": "evil/name", "provider_host": "evil"}
    offer = Offer.of_backend(foreign(4, "1.1.0", updater=evil))
    failure = Updater(update_pass.running_config()).perform(offer)
    assert failure == "v1.1.0 of https://github.com/org/name.git: there is no such tag in the repository"


def test_tests_that_were_stopped_have_not_passed(node: Node, releases: Releases) -> None:
    """systemd takes the end by a SIGTERM for a success."""
    test = releases.directory(VERSION) / "tests" / "release" / "test_it.py"
    test.parent.mkdir(parents=True)
    test.write_text("import pytest\n\n\n@pytest.mark.version_change\ndef test_it(): ...\n")
    updater = Updater(update_pass.running_config())
    node.fake("systemd-run", {"*": "echo '1 passed in 0.01s'"})
    updater.run_pytests(VERSION)
    node.fake("systemd-run", {"*": "echo .."})
    with pytest.raises(Rejected, match="were stopped"):
        updater.run_pytests(VERSION)


STRICT = """[tool.pytest.ini_options]
addopts = "--strict-markers -W error"
filterwarnings = ["error"]
markers = ["version_change: ..."]
"""
UNKNOWN = "strict_config = true\nof_a_later_pytest = true\n"
# What a release's tests are told by another Python, pytest or library than those that its maintainer has.
WARNED_OF = {
    "a deprecated function": "    warnings.warn('use another one', DeprecationWarning)",
    "a dropped socket": "    socket.socket(socket.AF_UNIX); gc.collect()",
    "a file that is open at the end": "    global kept; kept = open(__file__)",
    "a fixture of an old pytest": "    ...\n\nwarnings.warn('while collecting', pytest.PytestDeprecationWarning)",
    "a thread that fails": "    t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
}


@pytest.fixture
def judge(releases: Releases, node: Node) -> Callable[..., None]:
    """Lets the updater run tests of a release with warnings that are errors, by the pytest that is installed."""
    release = releases.directory(VERSION)
    python = Path(environment.python_of(release))
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    node.fake("systemd-run", {"*": f'cd "{release}"; while [ "$1" != -- ]; do shift; done; shift; exec "$@"'})
    (release / "tests").mkdir()

    def run(*bodies: str, settings: str = "") -> None:
        (release / "pyproject.toml").write_text(STRICT + settings)
        imports = "import gc, socket, threading, warnings\n\nimport pytest\n\n\n"
        tests = (f"@pytest.mark.version_change\ndef test_{n}():\n{body}\n\n\n" for n, body in enumerate(bodies))
        (release / "tests" / "test_it.py").write_text(imports + "".join(tests))
        Updater(update_pass.running_config()).run_pytests(VERSION)

    return run


def test_no_release_is_rejected_for_warnings_and_settings_that_another_pytest_knows(
    judge: Callable[..., None],
) -> None:
    judge(*WARNED_OF.values(), settings=UNKNOWN)


def test_the_operator_reads_which_test_failed_and_no_warnings(judge: Callable[..., None]) -> None:
    noise = "    for n in range(200): warnings.warn_explicit(f'warning {n}', UserWarning, 'x.py', n)\n"
    with pytest.raises(Rejected, match="assert 2 == 3") as rejected:
        judge(f"{noise}    assert 2 == 3")
    assert "FAILED tests/test_it.py::test_0" in str(rejected.value)
    assert "warning 1" not in str(rejected.value)


def test_a_version_on_disk_that_no_python_can_run_is_made_anew(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(_: Source, version: Version) -> None:
        raise Rejected(f"{version} is made again")

    monkeypatch.setattr(Source, "fetch", fetch)
    write({**CONFIG, "updater": UPDATER})
    releases.directory(Version("1.1.0")).mkdir()
    failure = Updater(update_pass.running_config()).perform(ADMINS)
    assert failure == "1.1.0 is made again"


def test_a_release_that_needs_what_the_node_has_not_waits(monkeypatch: pytest.MonkeyPatch, node: Node) -> None:
    """Before its libraries are fetched. The admin, who can help, reads it at once."""
    node.fake("dpkg-query", {"*": "echo python3 installed"})

    def unpack(_: Source, version: Version, release: Path) -> None:
        release.mkdir()
        (release / "pyproject.toml").write_text(f'[tool.{constants.NAME}]\ndebian = ["python3-lgpio"]\n')

    monkeypatch.setattr(Source, "fetch", lambda *_: None)
    monkeypatch.setattr(Source, "check_signature", lambda *_: None)
    monkeypatch.setattr(Source, "unpack", unpack)
    write({**CONFIG, "updater": UPDATER})
    failure = Updater(update_pass.running_config()).perform(ADMINS)
    assert failure is not None and failure.startswith("missing: python3-lgpio; play provision")
    assert "systemd-run" not in " ".join(node.calls())


@pytest.fixture
def golden_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the package brought."""
    (tmp_path / "bundled" / "ivy").mkdir(parents=True)
    (tmp_path / "bundled" / "config").mkdir()
    (tmp_path / "bundled" / "pyproject.toml").write_text('[project]\nversion = "0.9.0"\n')
    monkeypatch.setattr(bundled, "stand_in", functools.partial(bundled.stand_in, bundled=tmp_path / "bundled"))
    return tmp_path / "bundled"


@pytest.mark.parametrize("fails", [no_network, lambda _: (_ for _ in ()).throw(Rejected("no wheel"))])
def test_a_release_that_no_python_can_run_is_replaced_if_nothing_can_use_its_config(
    golden_release: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path], None]
) -> None:
    Clock(monkeypatch)
    monkeypatch.setattr(environment, "make_again", fails)
    write({**CONFIG, "backend": BACKEND, "of_a_newer_version": {}})
    repair.repair(releases, update_pass.running_config(), Logger(make_config(), "updater"))
    assert releases.current() == Version("0.9.0")
    config = json.loads(releases.read_config(Version("0.9.0")))
    assert config["backend"]["mqtt_connection"]["host"] == "localhost", "the operator is kept"
    assert config["general"]["software_version"] == "0.9.0" and "of_a_newer_version" not in config
    last_good = history.load().last_good
    assert last_good and last_good.general.software_version == VERSION, "it can be gone back to"


def test_only_the_last_resort_does_without_libraries(
    golden_release: Path, releases: Releases, node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.fake("systemd-run", {"*": "echo 'No matching distribution found' >&2; exit 1"})
    (golden_release / "pyproject.toml").write_text('[project]\nversion = "1.5.0"\n')
    (golden_release / "requirements.lock").write_text("wheel==1.0 --hash=sha256:00\n")
    with pytest.raises(bundled.ReleaseError, match="its dependencies cannot be installed"):
        bundled.install_bundled(golden_release, releases)
    assert releases.current() == VERSION
    bundled.stand_in(releases, update_pass.running_config())
    assert releases.current() == Version("1.5.0")
    assert "goes on without what it depends on" in capsys.readouterr().err


def test_a_release_that_no_python_can_run_stays_while_the_package_serves_it(
    golden_release: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "make_again", lambda _: (_ for _ in ()).throw(Rejected("no wheel")))
    repair.repair(releases, update_pass.running_config(), Logger(make_config(), "updater"))
    assert releases.current() == VERSION


def test_a_release_is_mended_when_the_network_is_back(
    golden_release: Path, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, made = Clock(monkeypatch), []

    def make_again(release: Path) -> None:
        if clock.now < 5000:
            no_network()
        made.append(release)

    monkeypatch.setattr(environment, "make_again", make_again)
    repair.repair(releases, update_pass.running_config(), Logger(make_config(), "updater"))
    assert made == [releases.directory(VERSION)] and releases.current() == VERSION


def named(name: str, revision: int = 4, **sections: Any) -> Offer:
    """An admin's offer of another name of the node."""
    general = {**CONFIG["general"], "system_identifier": name, "config_revision": revision}
    config = ForeignConfig.model_validate({**CONFIG, "backend": BACKEND, **sections, "general": general})
    return Offer(identifier=f"admin-{revision}", config=config, source="admin")


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """Decides about an offer; none is tried."""
    monkeypatch.setattr(Trials, "begin", lambda *_: None)
    monkeypatch.setattr(Trials, "watch", lambda *_: None)
    return lambda offer, **how: Updater(update_pass.running_config()).perform(offer, **how)


def wait_for_a_link(seconds: float = 0) -> None:
    """A message that nobody has got yet, that long."""
    agent = MessagingAgent()
    agent.add_message(DataMessageBody(data={"t": 1}))
    agent.database.execute("UPDATE QUEUE SET timestamp = timestamp - ?", (seconds,))
    agent.teardown()


def be_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend says so."""
    link = SimpleNamespace(connected=True)
    monkeypatch.setattr(overview, "services", lambda: [])
    monkeypatch.setattr(overview, "link", lambda *_: link)


def test_another_name_is_refused_while_messages_wait(decided: Callable[..., str | None]) -> None:
    write({**CONFIG, "backend": BACKEND})
    wait_for_a_link()
    reason = decided(named("roof-7"))
    assert reason is not None and reason.startswith("general.system_identifier: 1 messages wait that were taken as")
    assert "node-1" in reason and "as roof-7" in reason and "--yes" in reason
    assert decided(named("node-1", 5)) is None
    assert decided(named("roof-7", 6), is_sure=True) is None


def test_a_platform_that_gives_another_name_has_a_link_to_send_them(decided: Callable[..., str | None]) -> None:
    write({**CONFIG, "backend": BACKEND})
    wait_for_a_link()
    assert decided(Offer.of_backend(named("roof-7").config)) is None


@pytest.mark.parametrize(("seconds", "is_refused"), [(0, False), (3600, True)])
def test_what_is_on_its_way_is_no_backlog(
    decided: Callable[..., str | None], monkeypatch: pytest.MonkeyPatch, seconds: float, is_refused: bool
) -> None:
    write({**CONFIG, "backend": BACKEND})
    wait_for_a_link(seconds)
    be_connected(monkeypatch)
    assert (decided(named("roof-7")) is not None) is is_refused


def test_a_node_without_a_backlog_or_a_former_name_takes_any(decided: Callable[..., str | None]) -> None:
    write({**CONFIG, "backend": BACKEND})
    assert decided(named("roof-7")) is None
    write(CONFIG)  # which nobody knows by a name
    wait_for_a_link()
    assert decided(named("roof-8", 5)) is None
    write({**CONFIG, "backend": BACKEND})
    assert decided(named("roof-9", 6, backend=None)) is None  # nothing is sent
