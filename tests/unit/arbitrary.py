"""Any messages and any JSON: strategies that the tests of all dialects draw from."""

from typing import Any

from hypothesis import strategies as st

from ivy.types.config import ForeignConfig
from ivy.types.messages import (
    RESERVED_KEYS,
    ConfigMessageBody,
    DataMessageBody,
    LogMessageBody,
    MessageBody,
    MessageQueueItem,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_KEYS = TEXT.filter(lambda key: key not in RESERVED_KEYS)
_NUMBERS = st.one_of(st.floats(), st.integers(), st.integers(10**17, 10**400))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


def long_text(least: int, most: int) -> st.SearchStrategy[str]:
    """Short texts, and some with so many characters, each of three bytes."""
    return st.one_of(TEXT, st.integers(least, most).map(lambda size: "\N{SNOWMAN}" * size))


def data(text: st.SearchStrategy[str]) -> st.SearchStrategy[DataMessageBody]:
    """Data messages with numbers and texts."""
    return st.builds(DataMessageBody, data=st.dictionaries(_KEYS, st.one_of(_NUMBERS, text), max_size=8))


def logs(text: st.SearchStrategy[str]) -> st.SearchStrategy[LogMessageBody]:
    """Log messages of any level."""
    levels = st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"])
    return st.builds(LogMessageBody, level=levels, subject=text, body=text)


def configs(of: st.SearchStrategy[ForeignConfig]) -> st.SearchStrategy[ConfigMessageBody]:
    """Config messages of any status."""
    statuses = st.sampled_from(["received", "accepted", "rejected", "startup"])
    return st.builds(ConfigMessageBody, status=statuses, config=of)


def items(*bodies: st.SearchStrategy[Any]) -> st.SearchStrategy[list[MessageQueueItem]]:
    """What may stand in the queue: any number of any of these, taken at any time."""
    pairs = st.lists(st.tuples(st.floats(1e9, 3e9), st.one_of(*bodies)), max_size=20)
    return pairs.map(lambda each: [item(body, number, time) for number, (time, body) in enumerate(each, start=1)])


def item(body: MessageBody, identifier: int = 1, timestamp: float = 1.7e9) -> MessageQueueItem:
    """A message in the queue."""
    return MessageQueueItem(identifier=identifier, timestamp=timestamp, message_body=body)
