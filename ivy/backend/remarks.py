"""Tells the operator once what a dialect cannot send as it was sampled. Decides nothing about that."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from ivy.backend.dialect import Dialect, Encoded, Remark
from ivy.types.messages import MessageQueueItem
from ivy.utils.logger import Logger

_MOST_REMEMBERED = 500
_MOST_AT_ONCE = 20
_MOST_IN_A_REASON = 3
_LONGEST_KEY = 80
_SUBJECT = "Not all values are sent as they were sampled"


def reporting(dialect: Dialect, logger: Logger) -> Dialect:
    """The dialect, which reports each of its remarks once.

    Those on messages that cannot be sent at all stand in the reasons for that, which the forwarder reports.
    """
    reporter = _Reporter(logger)

    def encode(items: Sequence[MessageQueueItem]) -> Encoded:
        encoded = dialect.encode(items)
        if encoded.remarks:
            reporter.tell(encoded.remarks)
        if not encoded.lost:
            return encoded
        reasons = {key: reporter.explain(text, encoded.lost[key]) for key, text in encoded.unsendable.items()}
        return dataclasses.replace(encoded, unsendable=reasons)

    return dataclasses.replace(dialect, encode=encode)


class _Reporter:
    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._told: set[Remark] = set()  # bounded: keys may be made of values
        self._reasons: dict[str, str] = {}  # the last explanation of each

    def tell(self, remarks: Iterable[Remark]) -> None:
        """Report those that are new."""
        new = self._new(remarks)
        if not new:
            return
        lines = _lines(new, _MOST_AT_ONCE)
        lines.append("Each is reported once. The archive has them as they were sampled.")
        self._logger.warning(_SUBJECT, "\n".join(lines))

    def explain(self, reason: str, remarks: Iterable[Remark]) -> str:
        """Why a message cannot be sent, with its keys if they are news; else as it was explained before."""
        if new := self._new(remarks):
            self._reasons[reason] = f"{reason} ({'; '.join(_lines(new, _MOST_IN_A_REASON))})"
        return self._reasons.get(reason, reason)

    def _new(self, remarks: Iterable[Remark]) -> Sequence[Remark]:
        new = sorted(set(remarks) - self._told)[: _MOST_REMEMBERED - len(self._told)]
        self._told.update(new)
        return new


def _lines(remarks: Collection[Remark], most: int) -> list[str]:
    lines = [f"{remark.key[:_LONGEST_KEY]!r}: {remark.text}" for remark in list(remarks)[:most]]
    return [*lines, f"and {len(remarks) - most} more"] if len(remarks) > most else lines
