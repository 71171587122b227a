"""What the machine can do without ivy: disk, SQLite, and paho with a local broker."""

import json
import os
import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from testbed.broker import Broker

from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.row import Row, Sizes, latency_rows

WINDOW = 50
_FORMS = {
    "tenta": (f"measurements/{SENSOR}", {"value": {"number": 123.456}, "revision": 2, "timestamp": 1.7e9}),
    "thingsboard": ("v1/devices/me/telemetry", {"ts": 1_700_000_000_000, "values": {"number": 123.456}}),
}
"""Topic and element of each platform's telemetry."""


def measure(directory: Path, _broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """Raw fsync and raw SQLite commits. Those of paho stand with each platform."""
    directory.mkdir()
    yield Row("limit: fdatasync of one page", sizes.added / _sync_seconds(directory, sizes.added), "/s")
    before = written(os.getpid())
    yield Row("limit: SQLite commit, WAL, FULL", commit_rate(directory, sizes.added), "/s")
    per_commit = (written(os.getpid()) - before) / sizes.added
    yield Row("limit: written to disk per SQLite commit", per_commit / 1e3, "kB")


def paho_rows(provider: str, port: int, sizes: Sizes) -> Iterator[Row]:
    """One publication after the other to a platform on this machine."""
    single = _puback_seconds(provider, port, sizes.samples, 1)
    yield from latency_rows(f"limit: paho, {provider}, one message to PUBACK", single)
    arrays = sum(_puback_seconds(provider, port, sizes.backlog // WINDOW, WINDOW))
    yield Row(f"limit: paho, {provider}, arrays of {WINDOW}", sizes.backlog / arrays, "/s")


def paho_rate(provider: str, port: int, window: int, count: int) -> float:
    """Messages a second, one window after the other, each in one publication."""
    return window / statistics.mean(_puback_seconds(provider, port, count, window))


def written(pid: int) -> int:
    """Bytes that a process has written to disk so far."""
    return int(Path(f"/proc/{pid}/io").read_text().partition("\nwrite_bytes: ")[2].split()[0])


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
        database.execute("INSERT INTO t (body) VALUES (?)", (json.dumps(_FORMS["tenta"]),))
    seconds = time.perf_counter() - began
    database.close()
    return count / seconds


def _puback_seconds(provider: str, port: int, count: int, elements: int) -> list[float]:
    """Seconds from each publish to its PUBACK, one after the other."""
    acknowledged = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="limit")
    client.username_pw_set(SENSOR, PASSWORD)
    client.on_connect = lambda *_: acknowledged.set()
    client.on_publish = lambda *_: acknowledged.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    topic, element = _FORMS[provider]
    payload = json.dumps([element] * elements)
    seconds = []
    for _ in range(count + 1):
        acknowledged.wait(10)
        acknowledged.clear()
        began = time.perf_counter()
        client.publish(topic, payload, qos=1)
        acknowledged.wait(10)
        seconds.append(time.perf_counter() - began)
        acknowledged.set()
    client.disconnect()
    client.loop_stop()
    return seconds[1:]
