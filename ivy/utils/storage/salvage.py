"""Queues again what can be read of a damaged queue that was moved aside (see `aside`).

That takes minutes: a unit of its own does it in the background (`ivy-salvage.service`), goes on where it was
killed, and takes the lock of the writers for some rows at a time.
"""

import contextlib
import itertools
import math
import os
import sqlite3
import time

from ivy.types.messages import LogMessageBody
from ivy.utils import notify
from ivy.utils.host import journal, mounts
from ivy.utils.storage import aside, ballast, contents, errors, page_scan, schema
from ivy.utils.storage.store import Store

_ROWS_AT_ONCE = 200
_MOST_KEPT = 3
_VARIANT_OF = f"SELECT {schema.VARIANT} FROM (SELECT CAST(? AS TEXT) AS message_body)"


def work(path: str, store: Store) -> None:
    """Queue again what can be read of all that was moved aside, the oldest first.

    Raises:
        OSError, sqlite3.Error: The queue takes nothing now; to be tried again.
    """
    for old in aside.waiting(path):
        kept = aside.unused_name(f"{path}.damaged")
        result = _salvage_or_give_up(old, path, store)
        journal.send("WARNING", f"{path} was damaged: {result}; the rest is in {kept}")
        store.add((time.time(), _report(result, f"the damaged file is {kept}")))
        aside.keep(old, kept)
        for superfluous in aside.damaged_files(path)[:-_MOST_KEPT]:
            aside.remove(superfluous)
    store.forget_salvages()


def _report(result: str, details: str) -> str:
    subject = f"queue - WARNING - The message queue was damaged: {result}"
    return LogMessageBody(level="WARNING", subject=subject, body=details).model_dump_json()


def _salvage_or_give_up(old: str, path: str, store: Store) -> str:
    """Returns what came of it. What fails by more than the disk would fail each time."""
    try:
        return _salvage(old, path, store)
    except Exception as error:
        if errors.may_pass(error):
            raise
        journal.send("ERROR", f"{old} cannot be read", details=repr(error))
        return f"it could not be read: {error!r}"


def _salvage(old: str, path: str, store: Store) -> str:
    first = _first_that_fits(old, path)
    done = store.salvaged_rows(old)
    count = dropped = 0
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as seen:  # a file that goes with it
        seen.execute("CREATE TABLE SEEN (internal_id INTEGER PRIMARY KEY, timestamp)")
        if done == 0:
            store.add_dropped(_dropped(old))
        rows, durable = page_scan.rows(old), _durable(old)
        while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            new = [row for row in some if _is_new(seen, row)]
            if done > 0:  # these were queued before this was killed
                done -= len(some)
                continue
            kept = [row for row in new if row[0] >= first]
            dropped += len(new) - len(kept)
            lost = _variants(seen, [row for row in new if row[0] < first])
            store.put_salvaged(old, kept, len(some), lost, durable)
            count += len(kept)
            notify.heartbeat()
    without_room = f", the {dropped} oldest dropped for lack of room" if dropped else ""
    return f"{count} messages salvaged{without_room}"


def _is_new(seen: sqlite3.Connection, row: page_scan.Row) -> bool:
    """Whether a row did not come before. Where numbers rotted, another message may have the same."""
    identifier, timestamp, _ = row
    if seen.execute("INSERT OR IGNORE INTO SEEN VALUES (?, ?)", (identifier, timestamp)).rowcount:
        return True
    return not seen.execute(
        "SELECT 1 FROM SEEN WHERE internal_id = ? AND timestamp = ?", (identifier, timestamp)
    ).fetchall()


def _variants(database: sqlite3.Connection, rows: list[page_scan.Row]) -> dict[str, int]:
    lost: dict[str, int] = {}
    for row in rows:
        [[variant]] = database.execute(_VARIANT_OF, (row[2],))
        lost[variant or "data"] = lost.get(variant or "data", 0) + 1
    return lost


def _first_that_fits(old: str, path: str) -> int:
    """The smallest number of the newest rows that there is room for, once all that may go has gone."""
    size = os.lstat(old).st_size
    for evidence in aside.damaged_files(path):
        if _room(path) >= size:
            break
        aside.remove(evidence)
    if _room(path) < size:
        ballast.release()
    share = min(1.0, _room(path) / max(1, size))
    if share == 1.0:
        return -(1 << 63)
    # Numbers that rotted must not count for much.
    sample = sorted(row[0] for row in itertools.islice(page_scan.rows(old), 0, None, 100))
    return sample[int(len(sample) * (1 - share))] if sample else -(1 << 63)


def _room(path: str) -> float:
    return 0.9 * mounts.disk(os.path.dirname(path)).free_bytes


def _durable(old: str) -> float:
    """Up to which number the archive has all durably; where that cannot be read, all of them are believed to be."""
    return aside.ask_damaged(old, "MARKS", contents.archived, 0) or math.inf


def _dropped(old: str) -> dict[str, int]:
    """What was counted in the old file, if it can be read."""

    def ask(database: sqlite3.Connection) -> dict[str, int]:
        rows = database.execute("SELECT variant, count FROM DROPPED LIMIT 10").fetchall()
        return {str(variant): int(count) for variant, count in rows}

    return aside.ask_damaged(old, "DROPPED", ask, {})
