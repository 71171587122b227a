"""The stand-in for ThingsBoard as the test bed gives it to a person: what is printed, what can be typed."""

import os
import subprocess
import sys
from collections.abc import Generator
from typing import IO

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from testbed.roots import PROJECT
from testbed.waiting import wait_for

CALLS = "v1/devices/me/rpc/request/+"


@pytest.fixture
def stand_in() -> Generator[subprocess.Popen[str], None, None]:
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'packaging'}"}
    command = [sys.executable, "-m", "testbed.thingsboard", "127.0.0.1", "0", "n1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.kill()


def until(output: IO[str] | None, beginning: str) -> str:
    """The line that begins so; who waits in vain is ended by the limit of all tests."""
    assert output is not None
    return next(line for line in output if line.startswith(beginning))


def test_what_a_node_sends_is_printed_and_what_is_typed_is_sent(stand_in: subprocess.Popen[str]) -> None:
    address = until(stand_in.stdout, "127.0.0.1:").partition(",")[0]
    heard: list[str] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="n1")
    client.username_pw_set("n1", "-")
    client.on_message = lambda _client, _data, message: heard.append(message.payload.decode())
    client.connect("127.0.0.1", int(address.partition(":")[2]))
    client.loop_start()
    client.subscribe([(CALLS, 1), ("v1/devices/me/attributes", 1)])
    client.publish("v1/devices/me/telemetry", '{"rain": 8}', qos=1).wait_for_publish(30)
    assert until(stand_in.stdout, "v1/devices/me/telemetry") == 'v1/devices/me/telemetry {"rain": 8}\n'
    assert stand_in.stdin is not None
    stand_in.stdin.write('nonsense\nset rain {\ncall ping null\nset configuration {"a": 1}\n')
    stand_in.stdin.flush()
    assert until(stand_in.stdout, "Type: set NAME JSON")
    assert until(stand_in.stdout, "not JSON")
    wait_for(lambda: len(heard) == 2, 30, "the call and the attribute")
    assert heard == ['{"method": "ping", "params": null}', '{"configuration": {"a": 1}}']
    client.disconnect()
    client.loop_stop()
