"""Config offers on their way into the state."""

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
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface
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


def _store(anything: Any, revision: int = 3) -> ForeignConfig:
    general = {"config_revision": revision, "software_version": "1.0.0"}
    offer = ForeignConfig.load_from_string(json.dumps({"general": general, "x": anything}))
    agent = MessagingAgent()
    try:
        offers.store(offer, CONFIG, Logger(CONFIG), agent)
    finally:
        agent.teardown()
    return offer


def _damaged(root_dir: Path) -> list[str]:
    return [path.name for path in root_dir.glob("data/state.json.damaged*")]


@pytest.mark.slow
@given(st.lists(_JSON, max_size=4))
def test_what_is_stored_can_be_read_again(root_dir: Path, anything: list[Any]) -> None:
    (root_dir / "data" / "state.json").unlink(missing_ok=True)
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


def test_what_is_not_newer_is_ignored() -> None:
    for revision in (2, 1, 5, 5, 4, 6):
        _store(None, revision)
    stored = [config.general.config_revision for config in StateInterface.load().pending_configs]
    assert stored == [5, 6]


def test_of_too_many_offers_the_newest_stay() -> None:
    for revision in range(3, 30):
        _store(None, revision)
    stored = [config.general.config_revision for config in StateInterface.load().pending_configs]
    assert stored == list(range(14, 30))


def test_a_stored_offer_raises_the_flag_for_the_updater() -> None:
    flag = Path(constants.PENDING_CONFIG_FLAG)
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
