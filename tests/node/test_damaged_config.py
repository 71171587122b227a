"""A config that is damaged, mistyped or replaced costs a node no sample, and not its operator."""

import json
from pathlib import Path

import pytest
from testbed.bed import Node
from testbed.broker import Broker

from tests.support.backend_node import PASSWORD
from tests.support.installed import read_config, unit_property, use_tenta, wait_until_connected, write_config
from tests.support.recorder import Recorder
from tests.support.update_site import wait_for_sample

LINK = "/etc/ivy/config.json"
ACTIVE = Path("/var/lib/ivy/current/config/config.json")
ACCEPTED = ACTIVE.with_name("config.accepted.json")
SECONDS_FOR_A_PASS = 60
PROCEDURE = "ivy-dummy-procedure"
# As a power cut, a card and a slip leave it.
DAMAGES = {
    "zeros": "dd if=/dev/zero of={0} bs=851 count=1 conv=notrunc status=none",
    "nothing": "truncate --size=0 {0}",
    "gone": "rm {0}",
    "unreadable": "rm {0} && mkdir {0}",
}


@pytest.fixture(autouse=True)
def connected(node: Node, broker: Broker) -> None:
    """A node as an admin has set it up, with an editor; and one pass of the updater."""
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})
    node.wait_for(lambda: "tenta" in node.path(ACCEPTED).read_text(), SECONDS_FOR_A_PASS, "the config to be kept")


def restart_services(node: Node) -> None:
    """Without `ivy restart`, which refuses a config that cannot be used."""
    node.run(["systemctl", "restart", PROCEDURE, "ivy-system-checks", "ivy-tenta"])


def wait_until_well(node: Node) -> None:
    node.wait_for(lambda: node.run(["ivy", "status"], check=False).returncode == 0, 60, "all to be well")


def test_a_damaged_config_is_there_again_after_a_power_cut(node: Node, recorder: Recorder) -> None:
    assert PASSWORD not in node.path(ACCEPTED).read_text()
    for damage, command in DAMAGES.items():
        before, told = node.path(ACTIVE).read_text(), words(recorder)
        node.run(["sh", "-c", command.format(ACTIVE)])
        node.cut()
        node.boot()
        wait_until_connected(node)
        wait_for_sample(node, recorder)
        node.wait_for(lambda: words(recorder) > told, SECONDS_FOR_A_PASS, f"word of the damage: {damage}")  # noqa: B023
        assert node.path(ACTIVE).read_text() == before, damage
        wait_until_well(node)
    kept = [path.name for path in node.path(ACTIVE.parent).iterdir() if "damaged" in path.name]
    assert len(kept) == 1, "the last one is for whoever wants to know"


def words(recorder: Recorder) -> int:
    """How often the operator was told of damage. (The same may come twice after a power cut.)"""
    said = [log for log in recorder.elements("logs") if "The config was damaged" in json.dumps(log)]
    return len({json.dumps(log, sort_keys=True) for log in said})


@pytest.mark.thorough
def test_services_that_start_before_the_pass_run_with_the_accepted_one(node: Node, recorder: Recorder) -> None:
    node.run(["systemctl", "mask", "--runtime", "--now", "ivy-updater.service", "ivy-updater.path"])
    node.run(["sh", "-c", DAMAGES["zeros"].format(ACTIVE)])
    node.run(["systemctl", "daemon-reload"])
    restart_services(node)
    wait_until_connected(node)
    wait_for_sample(node, recorder)
    for command in ("status", "doctor"):
        said = node.run(["ivy", command], check=False)
        assert said.returncode == 1 and "accepted last is in use" in said.stdout, command
    journal = node.journal(f"--unit={PROCEDURE}")
    assert "config error" in journal and "config/config.json: Invalid JSON" in journal


def test_a_typo_is_named_and_left_to_whoever_made_it(node: Node, recorder: Recorder) -> None:
    text = node.path(LINK).read_text()
    wrong = text.replace('"port": ', '"port" ', 1)
    line = wrong[: wrong.index('"port" ')].count("\n") + 1
    node.path(LINK).write_text(wrong)
    restart_services(node)
    wait_until_connected(node)
    wait_for_sample(node, recorder)
    word = recorder.wait_for_element("logs", SECONDS_FOR_A_PASS, "word of the typo", "The config cannot be used")
    assert f"at line {line} " in json.dumps(word)
    for command in ("status", "doctor"):
        said = node.run(["ivy", command], check=False).stdout
        assert f"at line {line} " in said and "accepted last is in use" in said, command

    node.cut()
    node.boot()
    wait_until_connected(node)
    wait_for_sample(node, recorder)
    assert node.path(LINK).read_text() == wrong

    # As an editor of another system would, which begins a file with a byte order mark.
    node.path(LINK).write_text("\ufeff" + text)
    node.run(["ivy", "restart"])
    wait_until_connected(node)
    wait_until_well(node)
    wait_for_sample(node, recorder)


@pytest.mark.thorough
def test_a_mistake_beside_a_backend_that_is_away_keeps_the_operator(node: Node, recorder: Recorder) -> None:
    """The generator, which knows no schema, believes the file until the updater has looked at it."""
    config = read_config(node)
    config["dummy_procedure"]["seconds_between_datapoints"] = 0
    write_config(node, {**config, "backend": None})
    node.cut()
    node.boot()
    wait_until_connected(node)
    wait_for_sample(node, recorder)
    assert "dummy_procedure.seconds_between_datapoints" in node.run(["ivy", "status"], check=False).stdout
    assert "ivy-tenta.service" in unit_wants(node)


def unit_wants(node: Node) -> list[str]:
    return node.run(["systemctl", "show", "--value", "--property=Wants", "ivy.target"]).stdout.split()


@pytest.mark.thorough
def test_a_file_that_sed_left_in_the_place_of_the_link_is_seen_and_applied(node: Node, recorder: Recorder) -> None:
    node.run(["sed", "-i", 's/"seconds_between_datapoints": 1/"seconds_between_datapoints": 2/', LINK])
    assert node.run(["test", "-L", LINK], check=False).returncode == 1
    for command in ("status", "doctor"):
        said = node.run(["ivy", command], check=False)
        assert said.returncode == 1, command
        assert "says something else" in said.stdout and f"sudo ivy config apply {LINK}" in said.stdout, command
    node.run(["ivy", "config", "apply", LINK], timeout=120)
    assert node.run(["readlink", LINK]).stdout.strip() == str(ACTIVE)
    assert read_config(node)["dummy_procedure"] == {"seconds_between_datapoints": 2}
    wait_until_well(node)
    wait_for_sample(node, recorder)


def test_without_any_config_that_was_accepted_services_end_with_78(node: Node) -> None:
    node.run(["sh", "-c", DAMAGES["zeros"].format(ACTIVE)])
    node.run(["rm", str(ACCEPTED)])
    node.run(["systemctl", "restart", PROCEDURE], check=False)
    node.wait_for(lambda: unit_property(node, PROCEDURE, "ExecMainStatus") == "78", 30, "the procedure to end")
