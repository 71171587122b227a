"""What was published and not acknowledged yet, and how long a broker has answered nothing. Pure bookkeeping."""

from collections.abc import Iterable
from dataclasses import dataclass

from ivy.backend.dialect import Publication


@dataclass(frozen=True)
class Sent:
    """A publication with messages."""

    publication: Publication
    at: float
    """When it was published, monotonic."""
    under_way: int
    """Bytes that were under way then, its own included."""
    acknowledged: int
    """Bytes that the connection had carried by then, of all that it ever did."""
    since: float
    """When it had carried the last of these, monotonic; if nothing was under way, when this was published."""
    is_probe: bool = False
    """Whether it only asks whether the broker takes anything there again."""


class InFlight:
    """Publications of one connection, by the tokens that their acknowledgments will carry."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._sent: dict[int, Sent] = {}  # the oldest first
        self.size = 0
        """Bytes of all that is under way."""
        self.acknowledged = 0
        """Bytes of all that is not any more."""
        self._since = 0.0  # when that was so first, or there was something under way again

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def message_ids(self) -> set[int]:
        """The messages that are under way."""
        return {identifier for sent in self._sent.values() for identifier in sent.publication.message_ids}

    @property
    def publications(self) -> Iterable[Publication]:
        """The publications themselves."""
        return (sent.publication for sent in self._sent.values())

    @property
    def oldest(self) -> Sent | None:
        """The one that has waited longest; None if none waits."""
        return next(iter(self._sent.values()), None)

    def add(self, token: int, publication: Publication, now: float, *, is_probe: bool = False) -> None:
        """It is under way."""
        self._since = self._since if self._sent else now
        self.size += publication.size
        self._sent[token] = Sent(publication, now, self.size, self.acknowledged, self._since, is_probe)

    def pop(self, token: int, now: float) -> Sent | None:
        """It is answered. None for a token of another publication."""
        if (sent := self._sent.pop(token, None)) is not None:
            self.size -= sent.publication.size
            self.acknowledged += sent.publication.size
            self._since = now
        return sent

    def clear(self) -> None:
        """The connection is gone."""
        self._sent.clear()
        self.size = self.acknowledged = 0


class Answers:
    """A clock that runs while there is a connection, and something that waits for its acknowledgment.

    All times are monotonic.
    """

    def __init__(self) -> None:
        """Nothing waits."""
        self._since: float | None = None
        self._earlier = 0.0  # seconds over the connections before

    def sent(self, now: float) -> None:
        """Something was published that will be acknowledged."""
        if self._since is None:
            self._since = now - self._earlier

    def answered(self, *, is_waiting: bool, now: float) -> None:
        """The broker acknowledged something, in whatever way.

        Args:
            is_waiting: Whether something else waits still.
            now: What time it is.
        """
        self._earlier = 0.0
        self._since = now if is_waiting else None

    def lost(self, now: float) -> None:
        """The connection is gone, and with it what waited; it is sent again over the next one."""
        if self._since is not None:
            self._earlier, self._since = now - self._since, None

    def seconds(self, now: float) -> float:
        """How long nothing was answered; 0 while nothing waits."""
        return 0.0 if self._since is None else now - self._since
