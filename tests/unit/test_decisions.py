"""What the updater remembers, and that the operator is told of each decision once, whatever is killed when."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ivy import constants
from ivy.types.config import ForeignConfig
from ivy.types.messages import ConfigMessageBody, LogMessageBody
from ivy.types.updates import Offer
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.state_interface import StateInterface
from ivy.utils.updates import decisions, history
from ivy.utils.updates.history import HISTORY_FILE
from tests.support.helpers import make_config
from tests.support.killing import killed_at
from tests.unit.offers import foreign, offer

LOGGER = Logger(make_config(), "updater")
FLAG = Path(constants.PENDING_CONFIG_FLAG)


def pend(*revisions: int) -> None:
    """Let offers of the backend be pending."""
    with StateInterface.update() as state:
        state.pending_configs = [offer(revision).config for revision in revisions]
    FLAG.parent.mkdir(exist_ok=True)
    FLAG.touch()


def queued() -> list[tuple[str, int]]:
    """The decisions that are queued, and the reasons, as (text, number)."""
    agent = MessagingAgent()
    found: list[tuple[str, int]] = []
    for item in agent.get_n_latest_messages(1000):
        if isinstance(item.message_body, ConfigMessageBody):
            found.append((item.message_body.status, item.message_body.config.general.config_revision))
        elif isinstance(item.message_body, LogMessageBody):
            found.append((item.message_body.subject, 0))
    agent.teardown()
    return found


def test_there_is_no_history_at_first() -> None:
    assert history.load().decisions == [] and history.load().trial is None
    assert history.peek().accepted_revision == -1
    assert not Path(HISTORY_FILE).exists()


def test_what_is_not_well_although_it_was_accepted_is_told() -> None:
    decisions.record(offer(4), None, remark="ivy-wind.service failed, and had failed before")
    decisions.report(LOGGER)
    subject = (
        "updater - WARNING - Config revision 4 for version 1.0.0 was accepted:"
        " ivy-wind.service failed, and had failed before"
    )
    assert sorted(queued()) == [("accepted", 4), (subject, 0)]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b'{"decisions": 7}', b'{"trial": {}}', pytest.param(b"[" * 100_000, id="deep")],
)
def test_a_damaged_history_is_moved_aside_and_reported(
    content: bytes, root_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path(HISTORY_FILE).write_bytes(content)
    assert history.peek().accepted_revision == -1  # the backend only looks
    assert Path(HISTORY_FILE).read_bytes() == content
    decisions.record(offer(4), None)
    [aside] = root_dir.glob("updates.json.damaged-*")
    assert aside.read_bytes() == content
    assert f"{HISTORY_FILE} is damaged: moved to {aside}" in capfd.readouterr().err
    assert history.peek().accepted_revision == 4


def test_the_history_is_for_the_services_to_read_and_for_nobody_else() -> None:
    decisions.record(offer(4), None)
    status = os.stat(HISTORY_FILE)
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert status.st_gid == os.stat(constants.IVY_DATA_DIR).st_gid


def test_nothing_is_written_if_the_change_fails() -> None:
    decisions.record(offer(4), None)
    before = Path(HISTORY_FILE).read_bytes()
    with pytest.raises(ZeroDivisionError), history.update() as past:
        past.accepted_revision = 99
        raise ZeroDivisionError
    assert Path(HISTORY_FILE).read_bytes() == before


def test_fields_of_another_version_are_kept() -> None:
    Path(HISTORY_FILE).write_text(json.dumps({"decided_revision": 3, "of_another_version": [1]}))
    decisions.record(offer(4), None)
    assert json.loads(Path(HISTORY_FILE).read_text())["of_another_version"] == [1]


def test_a_decision_stands() -> None:
    decisions.record(offer(4), "no")
    decisions.record(offer(4), None)
    [decision] = history.load().decisions
    assert (decision.accepted, decision.reason) == (False, "no")
    assert history.peek().accepted_revision == -1


def test_the_admin_may_let_a_platform_count_anew() -> None:
    decisions.record(offer(9), None)
    decisions.record(offer(2, "rollback"), None)
    assert history.peek().accepted_revision == 9
    decisions.record(Offer(identifier="admin-2", config=foreign(2), source="admin"), "no")
    assert history.peek().accepted_revision == 9
    decisions.record(offer(2, "admin"), None)
    assert history.peek().accepted_revision == 2


def test_what_is_reported_is_kept_without_its_secrets() -> None:
    decisions.record(offer(4), "no\nbecause")
    assert "hidden" in Path(HISTORY_FILE).read_text()
    decisions.report(LOGGER)
    assert "hidden" not in Path(HISTORY_FILE).read_text()
    assert queued() == [
        ("rejected", 4),
        ("updater - ERROR - Config revision 4 for version 1.0.0 was rejected: no", 0),
    ]


def test_many_rejected_offers_make_no_large_history() -> None:
    for revision in range(60):
        general = {"config_revision": revision, "software_version": "1.0.0", "padding": "x" * 20_000}
        large = Offer.of_backend(ForeignConfig.model_validate({"general": general, "padding": "x" * 30_000}))
        decisions.record(large, "no")
    assert Path(HISTORY_FILE).stat().st_size < 100_000
    assert history.peek().is_decided(large.config)
    decisions.report(LOGGER)
    assert Path(HISTORY_FILE).stat().st_size < 40_000
    assert history.peek().is_decided(large.config), "it is known by its content"
    assert len([told for told in queued() if told[0] == "rejected"]) == 50


def test_of_many_decisions_the_newest_stay() -> None:
    for revision in range(1, 60):
        decisions.record(offer(revision), None)
    kept = [decision.revision for decision in history.load().decisions]
    assert kept == list(range(10, 60))


@pytest.mark.parametrize("what", ["file", "directory", "link", "nothing"])
def test_the_flag_goes_with_the_last_offer_whatever_it_is(what: str) -> None:
    pend(4, 5)
    FLAG.unlink()
    if what == "file":
        FLAG.touch()
    elif what == "directory":
        (FLAG / "inner").mkdir(parents=True)
    elif what == "link":
        FLAG.symlink_to("nowhere")
    decisions.record(offer(4), None)
    decisions.report(LOGGER)
    assert os.path.lexists(FLAG) is (what != "nothing")
    assert [config.general.config_revision for config in StateInterface.load().pending_configs] == [5]
    decisions.record(offer(5), None)
    decisions.report(LOGGER)
    assert not os.path.lexists(FLAG)
    assert StateInterface.load().pending_configs == []


@pytest.mark.slow
def test_an_offer_that_comes_while_the_last_one_is_told_of_keeps_the_flag_of_1_0() -> None:
    """It is in another directory, that backends lock nothing in: whoever lowers it must look again."""
    flag = Path(constants.IVY_RUN_DIR, FLAG.name)
    pend(4)
    decisions.record(offer(4), None)
    flag.parent.mkdir(exist_ok=True)
    flag.touch()
    decisions.report(LOGGER)
    assert not flag.exists()
    pend(4, 5)
    flag.touch()
    decisions.report(LOGGER)
    assert flag.exists()


def test_killed_at_any_step_each_decision_is_told_once() -> None:
    """Two decisions, one with a reason: the pass is killed at each of its steps, and another one follows."""

    def a_pass() -> None:
        decisions.record(offer(4), "no")
        decisions.record(offer(5), None)
        decisions.report(LOGGER)

    told: list[tuple[str, int]] = []
    step = 0
    while True:
        pend(4, 5)
        died = killed_at(step, a_pass)
        a_pass()
        now = queued()
        assert [what for what in now if what[1]] == [("rejected", 4), ("accepted", 5)], f"killed at step {step}"
        assert len(now) == 3
        assert StateInterface.load().pending_configs == [] and not FLAG.exists()
        told += now
        if not died:
            break
        for path in (HISTORY_FILE, ACTIVE_QUEUE_FILE, f"{ACTIVE_QUEUE_FILE}-wal", f"{ACTIVE_QUEUE_FILE}-shm"):
            Path(path).unlink(missing_ok=True)
        step += 3  # one by one takes a minute
    assert len(told) > 3 * 20, "hardly any step was tried"


def test_messages_are_added_once_under_a_key(agent: MessagingAgent) -> None:
    bodies = [LogMessageBody(level="ERROR", subject=text, body="") for text in ("a", "b")]
    for key in ("one", "one", "two"):
        agent.add_once(key, bodies)
    agent.add_once("none", [])
    subjects = [getattr(item.message_body, "subject", "") for item in agent.get_n_latest_messages(10)]
    assert subjects == ["a", "b", "a", "b"]


def test_messages_that_were_sent_are_not_added_again(agent: MessagingAgent) -> None:
    body = LogMessageBody(level="ERROR", subject="a", body="")
    agent.add_once("one", [body])
    agent.remove_messages([item.identifier for item in agent.get_n_latest_messages(10)])
    agent.add_once("one", [body])
    assert agent.get_queue_length() == 0


def test_messages_added_once_are_in_the_archive(agent: MessagingAgent) -> None:
    agent.add_once("one", [LogMessageBody(level="ERROR", subject="a", body="")])
    assert Path(MessagingAgent.get_message_archive_file()).read_text().count('""subject"":""a""') == 1


def test_what_was_rejected_stays_so_whatever_the_admin_lets_the_platform_count() -> None:
    decisions.record(Offer.of_backend(foreign(7)), "no")
    decisions.record(offer(5, "admin"), None)
    assert history.peek().is_decided(foreign(7))
    other = foreign(7, other={"than": "before"})
    assert not history.peek().is_decided(other)
    with StateInterface.update() as state:
        state.pending_configs = [foreign(7), other]
    decisions.report(LOGGER)
    assert StateInterface.load().pending_configs == [other]


HUGE = 2**31 - 1


def test_a_rejected_revision_does_not_count() -> None:
    decisions.record(offer(5), None)
    decisions.record(offer(HUGE), "no")
    assert history.peek().revision_to_exceed(5) == 5
    assert json.loads(Path(HISTORY_FILE).read_text())["decided_revision"] == 5, "version 1.0.0 reads that"


def test_after_an_accepted_one_that_is_huge_the_second_lower_one_is_taken() -> None:
    decisions.record(offer(HUGE), None)
    assert history.peek().revision_to_exceed(HUGE) == HUGE
    decisions.record(offer(6), "an old one", is_old=True)
    assert history.peek().revision_to_exceed(HUGE) == 6
    decisions.record(offer(7), None)
    assert history.peek().revision_to_exceed(7) == 7


def test_the_admin_ends_the_waiting_for_a_platform_that_counts_again() -> None:
    decisions.record(offer(9), None)
    decisions.record(offer(2), "an old one", is_old=True)
    decisions.record(offer(4, "admin"), None)
    assert history.peek().revision_to_exceed(4) == 4


def _of_1_0_0(*decided: tuple[str, int, bool], **more: Any) -> None:
    found = [
        {
            "identifier": f"{source}-{revision}-00000000",
            "offer": {"general": {"config_revision": revision, "software_version": "1.0.0"}},
            "accepted": accepted,
            "time": 1.5,
            "reported": True,
        }
        for source, revision, accepted in decided
    ]
    Path(HISTORY_FILE).write_text(json.dumps({"decided_revision": HUGE, "decisions": found, **more}))


@pytest.mark.parametrize(
    ("decided", "counts"),
    [
        ([("revision", 4, True), ("revision", HUGE, False)], 4),
        ([("revision", 7, True), ("admin", 3, True), ("revision", HUGE, False)], 3),
        ([("revision", 7, True), ("admin", 3, False), ("rollback", 2, True)], 7),
        ([("revision", HUGE, False)], -1),
    ],
)
def test_a_node_that_version_1_0_0_made_deaf_hears_again(decided: list[tuple[str, int, bool]], counts: int) -> None:
    _of_1_0_0(*decided)
    assert history.load().accepted_revision == counts
    assert history.load().decisions[0].revision == decided[0][1]


def test_what_version_1_0_0_decided_after_a_rollback_to_it_counts() -> None:
    _of_1_0_0(("revision", 8, True), ("revision", HUGE, False), accepted_revision=5, old_revision=2)
    assert history.load().revision_to_exceed(5) == 8
