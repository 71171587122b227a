"""What the machine can do without ivy: disk, SQLite, and paho with a local broker."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from testbed.broker import Broker

from tests.benchmarks.row import Row, Sizes, latency_rows
from tests.broker.node import PASSWORD, SENSOR

ELEMENT = {"value": {"number": 123.456}, "revision": 2, "timestamp": 1.7e9}
WINDOW = 50


def measure(directory: Path, broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """Raw fsync, raw SQLite commits, raw paho."""
    directory.mkdir()
    yield Row("limit: fdatasync of one page", sizes.added / _sync_seconds(directory, sizes.added), "/s")
    yield Row("limit: SQLite commit, WAL, FULL", commit_rate(directory, sizes.added), "/s")
    yield from latency_rows("limit: paho, one message to PUBACK", _puback_seconds(broker, sizes.samples, 1))
    seconds = sum(_puback_seconds(broker, sizes.backlog // WINDOW, WINDOW))
    yield Row(f"limit: paho, arrays of {WINDOW} messages", sizes.backlog / seconds, "/s")


def _sync_seconds(directory: Path, count: int) -> float:
    descriptor = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
    began = time.perf_counter()
    for number in range(count):
        os.pwrite(descriptor, bytes(4096), 4096 * number)
        os.fdatasync(descriptor)
    os.close(descriptor)
    return time.perf_counter() - began


def commit_rate(directory: Path, count: int) -> float:
    """How many transactions a second SQLite can commit to the disk of a directory, one row each."""
    database = sqlite3.connect(directory / "sqlite3", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body TEXT)")
    began = time.perf_counter()
    for _ in range(count):
        database.execute("INSERT INTO t (body) VALUES (?)", (json.dumps(ELEMENT),))
    database.close()
    return count / (time.perf_counter() - began)


def _puback_seconds(broker: Broker, count: int, elements: int) -> list[float]:
    """Seconds from each publish to its PUBACK, one after the other."""
    acknowledged = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="limit")
    client.username_pw_set(SENSOR, PASSWORD)
    client.on_connect = lambda *_: acknowledged.set()
    client.on_publish = lambda *_: acknowledged.set()
    client.connect(broker.address, broker.port)
    client.loop_start()
    payload = json.dumps([ELEMENT] * elements)
    seconds = []
    for _ in range(count + 1):
        acknowledged.wait(10)
        acknowledged.clear()
        began = time.perf_counter()
        client.publish(f"measurements/{SENSOR}", payload, qos=1)
        acknowledged.wait(10)
        seconds.append(time.perf_counter() - began)
        acknowledged.set()
    client.disconnect()
    client.loop_stop()
    return seconds[1:]
