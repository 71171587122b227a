"""What arrives at a real Mosquitto from a node in normal operation, and who is told why nothing does."""

import time

from testbed.bed import Node
from testbed.broker import Broker

from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.installed import read_config, unit_property, use_tenta, write_config
from tests.support.recorder import Recorder
from tests.support.validators import tenta

RARELY = {
    "dummy_procedure": {"seconds_between_datapoints": 7200},
    "system_checks": {"seconds_between_checks": 7200},
}


def taken_since(recorder: Recorder, since: float, key: str = "") -> list[float]:
    """When samples that have arrived were taken; there may be older ones, of when ivy was installed."""
    elements = [element for element in recorder.elements("measurements") if key in str(element["value"])]
    return [element["timestamp"] for element in elements if element["timestamp"] > since]


def test_telemetry_has_tentas_exact_form(node: Node, broker: Broker, recorder: Recorder) -> None:
    since = time.time()
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})
    walk = node.wait_for(lambda: taken_since(recorder, since, "random_walk_position"), 30, "a step of the walk")
    assert walk[0] < time.time()
    recorder.wait_for_element(
        "measurements", 30, "the vital signs", "last_5_min_load_percent", "disk_usage_percent"
    )
    for arrival in recorder.arrivals:
        tenta.check(arrival.topic, arrival.payload, arrival.qos, SENSOR)
    status = unit_property(node, "ivy-tenta", "StatusText")
    assert status.startswith(f"connected to {broker.address}:1883, ")


def test_the_first_message_does_not_wait_for_an_interval_to_pass(
    node: Node, broker: Broker, recorder: Recorder
) -> None:
    use_tenta(node, broker, **RARELY)
    node.run(["systemctl", "stop", "ivy.target"])
    since = time.time()
    node.run(["systemctl", "start", "--no-block", "ivy.target"])
    node.wait_for(lambda: taken_since(recorder, since), 60, "the first message")


def test_wrong_credentials_are_named_and_not_hammered(node: Node, broker: Broker, recorder: Recorder) -> None:
    wrong = {
        "host": broker.address,
        "port": 1883,
        "client_id": SENSOR,
        "username": SENSOR,
        "password": PASSWORD + "?",
    }
    config = read_config(node)
    config["general"]["system_identifier"] = SENSOR
    write_config(node, {**config, "backend": {"provider": "tenta", "mqtt_connection": wrong}})
    began = time.monotonic()
    node.run(["ivy", "restart"])
    node.wait_for(lambda: broker.log.read_text().count("not authorised") >= 4, 30, "four tries")
    assert time.monotonic() - began >= 0.5 + 1.0 + 2.0  # the least of the waits that backoff may choose
    status = "refused the connection: Not authorized"
    node.wait_for(lambda: status in unit_property(node, "ivy-tenta", "StatusText"), 10, "the reason")
    said = node.journal("--unit=ivy-tenta", "--grep=refused", "--output=cat")
    assert said.count("Not authorized") == 1
    assert PASSWORD not in node.journal()
    assert node.run(["ivy", "status"], check=False).returncode == 1
