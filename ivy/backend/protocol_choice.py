"""Which version of MQTT a connection is begun with. Pure bookkeeping: connects nothing."""

from typing import Literal

Protocol = Literal["5", "3.1.1"]

_SILENT_REFUSALS = 2
"""So often in a row must a broker have broken off MQTT 5 without a word, and taken 3.1.1, to be believed: one that
is being restarted does so, too, and by 3.1.1 nobody learns whether anybody listens."""


class ProtocolChoice:
    """MQTT 5, and where the broker does not know that, 3.1.1: remembered until the service is started again."""

    def __init__(self, fixed: Protocol | None = None) -> None:
        """Begin with MQTT 5, or what the config says."""
        self.current: Protocol = fixed or "5"
        self._fixed = fixed
        self._is_known = fixed is not None
        self._silent_refusals = 0

    @property
    def may_change(self) -> bool:
        """Whether another version is tried, should the broker not answer to this one."""
        return self._fixed is None and self.current == "5"

    def not_accepted(self, *, in_words: bool) -> bool:
        """A connection ended before the broker accepted or refused it.

        Args:
            in_words: Whether the broker said that it wants another version.

        Returns: Whether the other version is to be tried at once.
        """
        if self._fixed is not None:
            return False
        if self.current == "5":
            self.current, self._is_known = "3.1.1", in_words
            return True
        if in_words or not self._is_known:  # it speaks another version now, or did not answer at all
            self.current, self._is_known = "5", False
        return False

    def accepted(self) -> None:
        """The broker accepted a connection."""
        if self.current == "5":
            self._silent_refusals = 0
        elif not self._is_known:
            self._silent_refusals += 1
            self._is_known = self._silent_refusals >= _SILENT_REFUSALS

    def ended(self) -> None:
        """A connection ended that the broker had accepted, or refused for another reason."""
        if not self._is_known:
            self.current = "5"
