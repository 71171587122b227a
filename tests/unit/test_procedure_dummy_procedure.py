"""The procedure `dummy-procedure`; goes with it."""

import json
import random
import subprocess
from collections.abc import Callable

import pytest

from ivy.types.config import Config, ConfigError
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface
from tests.support.helpers import CONFIG, make_config, wait_until
from tests.unit.procedures import check_that_a_state_held_elsewhere_stops_no_sampling, log_lines, samples


def set_load(load: float) -> None:
    """Let the state say what the load is."""
    with StateInterface.update() as state:
        state.system.last_5_min_load = load


def test_it_is_a_random_walk(start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent) -> None:
    process = start("dummy-procedure")
    wait_until(lambda: len(samples(agent)) >= 20)
    process.terminate()
    process.communicate(timeout=80)
    assert process.returncode == 0
    position, steps = 0.0, random.Random(7)
    for sample in samples(agent):
        position += steps.uniform(-1, 1)
        assert sample.data == {"random_walk_position": position}


def test_it_pauses_while_the_load_is_high(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent
) -> None:
    set_load(75.1)
    start("dummy-procedure")
    wait_until(lambda: log_lines(agent))
    assert log_lines(agent) == ["dummy-procedure - WARNING - Pausing: the load is 75 %, above 75 %"]
    assert samples(agent) == []
    set_load(75)
    wait_until(lambda: len(samples(agent)) >= 2)
    set_load(100)
    wait_until(lambda: len(log_lines(agent)) >= 2)  # said again, because it had gone on
    paused_at = len(samples(agent))
    set_load(0)
    wait_until(lambda: len(samples(agent)) > paused_at)
    positions = [sample.data["random_walk_position"] for sample in samples(agent)]
    position, steps = 0.0, random.Random(7)
    for found in positions:  # no step is made in a pause, and none is forgotten
        position += steps.uniform(-1, 1)
        assert found == position


def test_it_says_once_that_it_pauses(start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent) -> None:
    set_load(99)
    turns = "real = procedure.StateInterface.load\n"
    turns += "procedure.StateInterface.load = lambda: print('turn', flush=True) or real()"
    process = start("dummy-procedure", turns)
    assert process.stdout
    seen = 0
    while seen < 20:
        seen += process.stdout.readline() == "turn\n"
    assert len(log_lines(agent)) == 1


def test_a_state_that_another_process_holds_stops_no_sampling(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent
) -> None:
    check_that_a_state_held_elsewhere_stops_no_sampling(start, agent, "dummy-procedure")


@pytest.mark.parametrize("seconds", [1, 30, 7200])  # as in the predecessor
def test_its_section(seconds: int) -> None:
    config = make_config(dummy_procedure={"seconds_between_datapoints": seconds})
    assert config.dummy_procedure.seconds_between_datapoints == seconds


@pytest.mark.parametrize("seconds", [0, 7201, None])
def test_its_section_has_bounds(seconds: int | None) -> None:
    with pytest.raises(ConfigError, match=r"^dummy_procedure\.seconds_between_datapoints: "):
        make_config(dummy_procedure={"seconds_between_datapoints": seconds})


def test_its_section_cannot_be_left_out() -> None:
    sections = {name: section for name, section in CONFIG.items() if name != "dummy_procedure"}
    with pytest.raises(ConfigError, match=r"^dummy_procedure: "):
        Config.load_from_string(json.dumps(sections))
