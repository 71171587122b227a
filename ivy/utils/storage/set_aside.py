"""Messages that the broker does not take: in a table of their own, tried again now and then, given up in the end.

Which they are, the backend finds out (`ivy.backend.poison`). The table is in the queue's database, so they survive
what messages survive; a release that does not know it leaves it alone. Each function takes an open connection.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping

from ivy.utils.storage import schema

MOST_TRIES = 7
"""A message that was refused so often is given up; the archive has it."""

MOST_BYTES = 16_000_000
"""Of all bodies together. Beyond that, the oldest are given up."""

GIVEN_UP = "poison"
"""How those are counted among what was dropped."""

_MOVE = (
    "INSERT OR IGNORE INTO POISON (internal_id, timestamp, message_body, reason, tries, next_try)"
    " SELECT internal_id, timestamp, message_body, ?, 0, ? FROM QUEUE WHERE internal_id = ?"
)
_EXCESS = (
    "SELECT internal_id FROM"
    " (SELECT internal_id, SUM(LENGTH(message_body)) OVER (ORDER BY internal_id DESC) AS size FROM POISON)"
    " WHERE size > ?"
)


def put(connection: sqlite3.Connection, reasons: Mapping[int, str], next_try: float) -> None:
    """Set messages aside, for a reason each; or those that are, until the next try, or give them up.

    Args:
        reasons: By number.
        next_try: Unix time.
    """
    for identifier, reason in reasons.items():
        if connection.execute(_MOVE, (reason, next_try, identifier)).rowcount:
            connection.execute("DELETE FROM QUEUE WHERE internal_id = ?", (identifier,))
        else:
            connection.execute(
                "UPDATE POISON SET reason = ?, tries = tries + 1, next_try = ? WHERE internal_id = ?",
                (reason, next_try, identifier),
            )
    _give_up(connection, f"SELECT internal_id FROM POISON WHERE tries >= {MOST_TRIES}")
    _give_up(connection, _EXCESS, MOST_BYTES)


def _give_up(connection: sqlite3.Connection, which: str, *parameters: int) -> None:
    count = connection.execute(f"DELETE FROM POISON WHERE internal_id IN ({which})", parameters).rowcount
    if count:
        schema.count_dropped(connection, {GIVEN_UP: count})


def due(connection: sqlite3.Connection, now: float, longest: float) -> int | None:
    """The number of the one whose next try is due; None if none is.

    Args:
        now: Unix time.
        longest: Seconds that the next try can be away: what is farther, a clock has said that was wrong.
    """
    row = connection.execute(
        "SELECT internal_id FROM POISON WHERE next_try <= ? OR next_try > ? ORDER BY tries, internal_id LIMIT 1",
        (now, now + 1.1 * longest),
    ).fetchone()
    return None if row is None else int(row[0])


def remove(connection: sqlite3.Connection, identifiers: Iterable[int]) -> int:
    """The broker took them after all. Returns how many of these were set aside."""
    wanted = "(SELECT value FROM json_each(?))"
    listed = json.dumps(list(identifiers))
    return connection.execute(f"DELETE FROM POISON WHERE internal_id IN {wanted}", (listed,)).rowcount


def count(connection: sqlite3.Connection) -> int:
    """How many are set aside."""
    return int(connection.execute("SELECT COUNT(*) FROM POISON").fetchone()[0])
