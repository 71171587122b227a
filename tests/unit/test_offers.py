"""Config offers on their way into the state."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivy import constants
from ivy.backend import offers
from ivy.types.config import ConfigError, ForeignConfig
from ivy.types.messages import ConfigMessageBody
from ivy.types.updates import Offer, Superseded
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import BACKEND_STATE_FILE, StateInterface
from ivy.utils.updates import decisions
from tests.support.helpers import make_config

CONFIG = make_config(
    general={"config_revision": 2, "software_version": "1.0.0", "system_identifier": "s"},
    logging_verbosity={"file_archive": None, "console_prints": None, "message_sending": None},
)

_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def _offer(anything: Any, revision: int) -> ForeignConfig:
    general = {"config_revision": revision, "software_version": "1.0.0"}
    return ForeignConfig.load_from_string(json.dumps({"general": general, "x": anything}))


def _store(anything: Any, revision: int = 3) -> ForeignConfig:
    offer = _offer(anything, revision)
    agent = MessagingAgent()
    try:
        offers.store(offer, CONFIG, Logger(CONFIG), agent)
    finally:
        agent.teardown()
    return offer


def _damaged(root_dir: Path) -> list[str]:
    return [path.name for path in Path(BACKEND_STATE_FILE).parent.glob("*.damaged*")]


@pytest.mark.slow
@given(st.lists(_JSON, max_size=4))
def test_what_is_stored_can_be_read_again(root_dir: Path, anything: list[Any]) -> None:
    Path(BACKEND_STATE_FILE).unlink(missing_ok=True)
    try:
        offer = _store(anything)
    except ValueError:  # infinity and the like, which JSON does not know
        assert StateInterface.load().pending_configs == []
        return
    assert StateInterface.load().pending_configs == [offer]


def test_no_depth_makes_the_state_unreadable(root_dir: Path) -> None:
    refused = []
    for depth in range(185, 200):  # what a JSON parser takes ends somewhere here
        try:
            _store(json.loads("[" * depth + "]" * depth), revision=depth)
        except ConfigError:
            break  # no parser took it, so it was never an offer
        except ValueError:
            refused.append(depth)
        StateInterface.load()
    assert refused != []  # else this test has missed the depths that matter
    assert _damaged(root_dir) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_the_state_would_change_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="infinite"):
        _store({"a": [number]})
    assert StateInterface.load().pending_configs == []


def test_an_enormous_offer_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        _store("x" * 1_000_000)
    assert StateInterface.load().pending_configs == []


def test_what_is_known_is_ignored() -> None:
    decisions.record(Offer.of_backend(_offer("rejected", 9)), "no")
    decisions.record(Offer.of_backend(_offer("accepted", 1)), None)
    for anything, revision in (("rejected", 9), ("accepted", 1), (None, 6), (None, 5), (None, 5), (None, 6)):
        _store(anything, revision)
    assert _stored() == [5], "the other one was replaced by it, and a broker sends it again at each connect"


def _stored() -> list[int]:
    return [config.general.config_revision for config in StateInterface.load().pending_configs]


@pytest.mark.parametrize("revision", [2**31 - 1, 8, 1])
def test_what_is_new_is_stored_whatever_was_rejected_before(revision: int) -> None:
    decisions.record(Offer.of_backend(_offer("rejected", 2**31 - 1)), "no")
    _store("something else", revision)
    assert [config.general.config_revision for config in StateInterface.load().pending_configs] == [revision]


def test_the_config_in_use_is_no_offer_however_it_came_here(agent: MessagingAgent) -> None:
    content = CONFIG.model_dump(mode="json", exclude_defaults=True)
    offers.store(ForeignConfig.model_validate(content), CONFIG, Logger(CONFIG), agent)
    assert StateInterface.load().pending_configs == [] and agent.get_queue_length() == 0
    content["system_checks"]["seconds_between_checks"] = 2
    offers.store(ForeignConfig.model_validate(content), CONFIG, Logger(CONFIG), agent)
    assert len(StateInterface.load().pending_configs) == 1


def test_of_many_offers_the_newest_waits_and_of_the_others_little_is_kept() -> None:
    for revision in range(3, 30):
        _store("x" * 50_000, revision)
    assert _stored() == [29]
    assert [offer.revision for offer in decisions.undecided()] == list(range(13, 30)), "they are to be answered"
    assert Path(BACKEND_STATE_FILE).stat().st_size < 60_000


@pytest.mark.parametrize(
    ("first", "second", "waits"), [(2**31 - 1, 5, 5), (5, 2**31 - 1, 2**31 - 1), (5, 2, 5), (1, 2, 2), (1, 5, 5)]
)
def test_what_came_last_is_the_newest_unless_its_number_will_be_rejected(
    first: int, second: int, waits: int
) -> None:
    """The config in use has revision 2. A platform that counts from the beginning again is heard all the same."""
    _store(None, first)
    with contextlib.suppress(ValueError):
        _store(None, second)
    assert _stored() == [waits]


def test_a_known_revision_with_another_content_is_answered_while_a_better_one_waits() -> None:
    _store("waits", 6)
    with pytest.raises(ValueError, match="2 is not higher than 2, which is known, and 6 waits; use 7"):
        _store("another content", 2)
    assert _stored() == [6]


def test_what_is_decided_about_meanwhile_is_answered_by_that(agent: MessagingAgent) -> None:
    replaced = _store(None, 5)
    _store(None, 6)
    decisions.record(Offer.of_backend(replaced), None)
    assert [offer.revision for offer in decisions.undecided()] == [6]
    decisions.report(Logger(CONFIG))
    assert _statuses(agent) == [("received", 5), ("received", 6), ("accepted", 5)]


@pytest.mark.parametrize("name", ["admin-1", "revision-5"])
def test_no_backend_can_have_what_is_not_its_own_rejected(name: str) -> None:
    _store(None, 5)
    state = json.loads(Path(BACKEND_STATE_FILE).read_text())
    of_pending = Superseded.of(_offer(None, 5)).model_dump(mode="json")
    state["superseded"] = [of_pending if name == "revision-5" else {**of_pending, "identifier": name}]
    Path(BACKEND_STATE_FILE).write_text(json.dumps(state))
    found = decisions.undecided()
    assert [offer.identifier for offer in found] == [Offer.of_backend(_offer(None, 5)).identifier]
    assert found[0].config == _offer(None, 5)


def test_a_stored_offer_raises_the_flag_for_the_updater() -> None:
    flag = Path(constants.PENDING_CONFIG_FLAG)
    decisions.record(Offer.of_backend(_offer(None, 2)), "no")
    _store(None, 2)
    assert not flag.exists()
    _store(None, 3)
    assert flag.exists()
    flag.unlink()
    _store(None, 3)  # a flag that was lost is raised again, when the broker sends the offer again
    assert flag.exists()


def _statuses(agent: MessagingAgent) -> list[tuple[str, int]]:
    bodies = [item.message_body for item in agent.get_n_latest_messages(100)]
    return [(b.status, b.config.general.config_revision) for b in bodies if isinstance(b, ConfigMessageBody)]


def test_offers_are_answered(agent: MessagingAgent) -> None:
    _store(None, 3)
    offers.reject(4, CONFIG, Logger(CONFIG), agent)
    offers.reject(2, CONFIG, Logger(CONFIG), agent)  # is in use: nothing to reject
    assert _statuses(agent) == [("received", 3), ("rejected", 4)]


def test_an_answer_outlives_a_full_disk(agent: MessagingAgent) -> None:
    def fail(_work: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with pytest.MonkeyPatch.context() as full_disk:
        full_disk.setattr(agent.database, "run", fail)
        offers.reject(3, CONFIG, Logger(CONFIG), agent)
    offers.reject(4, CONFIG, Logger(CONFIG), agent)
    assert _statuses(agent) == [("rejected", 3), ("rejected", 4)]
