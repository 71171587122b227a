"""A fleet from bare Debian 13: it samples and delivers, a second play changes nothing, no secret is seen."""

import json

import pytest
from testbed.waiting import wait_for

from tests.fleet.conftest import Provisioned
from tests.fleet.desk import Play
from tests.fleet.fleet import Fleet

SERVICES = ["ivy-dummy-procedure", "ivy-system-checks", "ivy-tenta", "ivy-thingsboard"]

MOST_BYTES_OF_A_QUESTION = 100_000


def is_well(fleet: Fleet, name: str) -> bool:
    """By its own account, and because its samples arrive."""
    return bool(fleet.status(name)["well"]) and bool(fleet.arrived(name))


def invocations(fleet: Fleet, name: str) -> dict[str, str]:
    """For each service what changes whenever it starts."""
    shown = fleet.nodes[name].run(["systemctl", "show", "--property=InvocationID", *SERVICES]).stdout
    return dict(zip(SERVICES, shown.strip().split("\n\n"), strict=True))


def assert_nothing_is_seen(fleet: Fleet, play: Play) -> None:
    """No secret in the whole output."""
    assert not [secret for secret in fleet.secrets() if secret in play.output]


def test_bare_nodes_sample_and_deliver_and_a_second_run_changes_nothing(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    provisioned.check.succeeded()
    provisioned.first.succeeded()
    for name in fleet.names:
        wait_for(lambda name=name: is_well(fleet, name), 60, f"{name} to be well")  # type: ignore[misc]
    lives = {name: invocations(fleet, name) for name in fleet.names}
    second = fleet.desk.play("provision", "--diff", ivy_batch="100%").succeeded()
    assert second.recap("changed") == 0, second.output[-6000:]
    assert {name: invocations(fleet, name) for name in fleet.names} == lives, "something was restarted"
    print(
        f"{len(fleet.names)} nodes: provisioned in {provisioned.first.seconds:.0f} s,"
        f" again with 0 changes in {second.seconds:.0f} s"
    )


def traffic(fleet: Fleet, name: str) -> int:
    """Bytes that a node has sent and received."""
    lines = fleet.nodes[name].run(["cat", "/proc/net/dev"]).stdout.splitlines()[2:]
    links = (line.split(":") for line in lines)
    counters = [list(map(int, fields.split())) for link, fields in links if link.strip() != "lo"]
    return sum(counter[0] + counter[8] for counter in counters)


def test_a_play_that_has_nothing_to_do_costs_little(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    costs = []
    for variables in ({"ivy_thorough": True}, {}):
        fleet.desk.play("provision", "--limit", "n1").succeeded()
        before = traffic(fleet, "n1")
        play = fleet.desk.play("provision", "--limit", "n1", **variables).succeeded()
        assert play.recap("changed") == 0
        costs.append(traffic(fleet, "n1") - before)
    print(f"bytes of a play without changes: {costs[0]} looking at everything, {costs[1]} asking for a digest")
    assert costs[1] < MOST_BYTES_OF_A_QUESTION < costs[0]


def test_no_secret_is_seen_and_those_of_a_node_are_for_ivy_only(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    assert_nothing_is_seen(fleet, provisioned.first)
    node = fleet.nodes["n1"]
    assert node.run(["stat", "--format=%U:%G %a", "/etc/ivy/node.key"]).stdout == "root:ivy 640\n"
    assert node.path("/etc/ivy/node.key").read_text() == fleet.private_key
    journal = node.journal()
    assert not [secret for secret in fleet.secrets() if secret in journal]


def test_a_check_says_what_would_change_and_changes_nothing(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    other = {"backend": {"mqtt_connection": {"password": "another-secret"}}}
    change = {"dummy_procedure": {"seconds_between_datapoints": 7}}
    before = fleet.config_text("n1")
    limit = ("--limit", "n1")
    check = fleet.desk.play(
        "provision", "--check", "--diff", "-vvv", *limit, ivy_config=change, ivy_secrets=other
    ).succeeded()
    assert check.recap("changed") == 1
    assert '+        "seconds_between_datapoints": 7' in check.output
    assert '+            "password": "(hidden, another one)"' in check.output
    assert_nothing_is_seen(fleet, check)
    assert "another-secret" not in check.output.split("TASK", 1)[1]
    assert fleet.config_text("n1") == before


@pytest.mark.thorough
def test_a_config_that_was_copied_from_the_platform_keeps_the_secrets_of_each_node(
    provisioned: Provisioned,
) -> None:
    """It says `***` for them. A node that has nothing there says so, and goes on."""
    fleet = provisioned.fleet
    limit = ("--limit", "n1", "--tags", "ivy_config")
    copied = json.loads(fleet.config_text("n1"))
    assert copied["backend"]["mqtt_connection"]["password"] == "***"
    copied["system_checks"]["seconds_between_checks"] = 61
    arrived = len(fleet.arrived("n1"))
    play = fleet.desk.play(
        "provision",
        *("--diff", "-vvv", *limit),
        ivy_config=copied,
        ivy_secrets={"backend": {"mqtt_connection": {"password": "***"}}},
    ).succeeded()
    assert play.recap("changed") == 1
    assert_nothing_is_seen(fleet, play)
    assert json.loads(fleet.config_text("n1")) == copied
    kept = fleet.nodes["n1"].path("/var/lib/ivy/current/config/secrets.json").read_text()
    assert fleet.passwords["n1"] in kept
    wait_for(lambda: len(fleet.arrived("n1")) > arrived and fleet.status("n1")["well"], 60, "new samples")
    nowhere = {**copied, "updater": {**copied["updater"], "access_token": "***"}}
    bad = fleet.desk.play("provision", *limit, ivy_config=nowhere, ivy_secrets={})
    assert bad.status != 0
    assert "updater.access_token: is ***" in bad.output, bad.output[-6000:]
    assert json.loads(fleet.config_text("n1")) == copied


@pytest.mark.thorough
def test_a_node_can_be_without_backend_though_all_have_a_secret_for_it(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    limit = ("--limit", "n1", "--tags", "ivy_config")
    check = fleet.desk.play("provision", "--check", "--diff", *limit, ivy_node_config={"backend": None}).succeeded()
    assert '+    "backend": null' in check.output
    assert_nothing_is_seen(fleet, check)


@pytest.mark.thorough
def test_a_new_file_restarts_the_backend_of_the_node_and_no_other(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    before = invocations(fleet, "n1")
    fleet.desk.play(
        "provision",
        *("--limit", "n1"),
        ivy_files={"another.pem": "another certificate"},
        ivy_config={"backend": {"provider": "thingsboard"}},
        ivy_node_config={"backend": {"provider": "tenta"}},
    ).succeeded()
    after = invocations(fleet, "n1")
    assert {service for service in SERVICES if after[service] != before[service]} == {"ivy-tenta"}


def test_a_secret_in_the_wrong_place_is_refused_and_not_seen(provisioned: Provisioned) -> None:
    wrong = {"backend": {"mqtt_connection": {"password": "a-misplaced-secret"}}}
    play = provisioned.fleet.desk.play("provision", "-vvv", "--limit", "n1", ivy_config=wrong)
    assert play.status != 0
    assert "Passwords and tokens belong into ivy_secrets" in play.output
    assert "a-misplaced-secret" not in play.output.split("TASK", 1)[1]


def test_a_bad_config_fails_the_play_with_the_reason_and_the_node_goes_on(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    before = fleet.config_text("n1")
    arrived = len(fleet.arrived("n1"))
    limit = ("--limit", "n1")
    bad = fleet.desk.play(
        "provision", "-vvv", *limit, ivy_config={"dummy_procedure": {"seconds_between_datapoints": 0}}
    )
    assert_nothing_is_seen(fleet, bad)
    assert bad.status != 0
    assert "dummy_procedure.seconds_between_datapoints: Input should be greater than or equal to 1" in bad.output
    assert fleet.config_text("n1") == before
    assert json.loads(before)["dummy_procedure"] == {"seconds_between_datapoints": 1}
    wait_for(lambda: len(fleet.arrived("n1")) > arrived, 30, "new samples")


def test_a_misspelt_variable_is_refused(provisioned: Provisioned) -> None:
    play = provisioned.fleet.desk.play("provision", ivy_confg={})
    assert play.status != 0 and "Nobody knows the variable ivy_confg" in play.output


def test_a_node_that_somebody_has_hurt_is_healed(provisioned: Provisioned) -> None:
    """Stopped and disabled, a file in the place of the link, a config that nobody can read, owners."""
    fleet = provisioned.fleet
    node, limit = fleet.nodes["n2"], ("--limit", "n2")
    config = node.path("/var/lib/ivy/current/config/config.json")
    good = json.loads(config.read_text())
    node.run(["systemctl", "disable", "--now", "ivy.target"])
    node.run(["sed", "-i", "s/dummy_procedure/dummy_procedur/", "/etc/ivy/config.json"])
    config.write_text(config.read_text().replace(",", "", 1))
    node.run(["chown", "--recursive", "root:root", "/var/lib/ivy/data"])
    node.run(["chown", "ivy", "/var/lib/ivy/current/config/config.json"])
    check = fleet.desk.play("provision", "--check", *limit).succeeded()
    assert check.recap("changed") == 2
    arrived = len(fleet.arrived("n2"))
    fleet.desk.play("provision", *limit).succeeded()
    assert json.loads(config.read_text()) == good
    assert node.run(["systemctl", "is-enabled", "ivy.target"]).stdout == "enabled\n"
    assert 'dummy_procedur"' in node.path("/etc/ivy/config.json.replaced").read_text()
    wait_for(lambda: len(fleet.arrived("n2")) > arrived and fleet.status("n2")["well"], 60, "new samples")
    again = fleet.desk.play("provision", *limit).succeeded()
    assert again.recap("changed") == 0, again.output[-6000:]


def test_one_service_that_was_stopped_runs_again_and_no_other_is_restarted(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    before = invocations(fleet, "n2")
    fleet.nodes["n2"].run(["systemctl", "stop", "ivy-dummy-procedure"])
    fleet.desk.play("provision", "--limit", "n2").succeeded()
    after = invocations(fleet, "n2")
    assert {service for service in SERVICES if after[service] != before[service]} == {"ivy-dummy-procedure"}
    assert fleet.nodes["n2"].run(["systemctl", "is-active", "ivy-dummy-procedure"]).stdout == "active\n"


@pytest.mark.thorough
def test_a_node_that_somebody_holds_is_left_alone(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    node, limit, reason = fleet.nodes["n1"], ("--limit", "n1"), "the mast is being painted"
    held = fleet.desk.play("provision", *limit, ivy_hold=reason).succeeded()
    assert held.recap("changed") == 1, held.output[-6000:]
    node.run(["systemctl", "stop", "ivy-dummy-procedure"])
    before = invocations(fleet, "n1"), fleet.config_text("n1")
    change = {"dummy_procedure": {"seconds_between_datapoints": 7}}
    for variables in ({"ivy_hold": reason}, {}):
        play = fleet.desk.play("provision", *limit, ivy_config=change, **variables).succeeded()
        assert play.recap("changed") == 0 and reason in play.output, play.output[-6000:]
    assert (invocations(fleet, "n1"), fleet.config_text("n1")) == before
    update = fleet.desk.play(
        "update", "--limit", "n1,localhost", ivy_target="9.9.9", ivy_soak_seconds=0
    ).succeeded()
    assert reason in update.output and update.recap("changed") == 0, update.output[-6000:]
    assert f"held: {reason}" in fleet.desk.play("status", *limit).output
    fleet.desk.play("provision", *limit, ivy_hold="").succeeded()
    assert node.run(["ivy", "hold"], check=False).stdout == "not held\n"
    node.run(["ivy", "start"])
