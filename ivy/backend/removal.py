"""What leaves the queue: what was delivered or given up, and what is set aside. Sends nothing."""

import math
import time
from collections.abc import Iterable, Mapping

from ivy.backend.delays import Delays
from ivy.backend.resending import Resending
from ivy.types.config import Config, destination
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import contents
from ivy.utils.updates.standing import Standing

MOST_KEPT = 5000
"""Messages that are sent while they stay in the queue, as the config is on trial or the disk is sick."""


class Removal:
    """Remembers what is to leave the queue, until it has: many together cost less, or they must wait."""

    def __init__(
        self,
        queue: MessagingAgent,
        resending: Resending,
        config: Config,
        logger: Logger,
        delays: Delays,
        *,
        is_former: bool,
        window: int,
    ) -> None:
        """Nothing is to leave.

        Args:
            queue: What it leaves.
            resending: What it leaves if it is of the archive.
            config: The active one.
            logger: For what the operator should know of.
            delays: How long to wait for what.
            is_former: Whether messages go to a broker that is not that of the config.
            window: How many messages may come twice.
        """
        self._queue = queue
        self._resending = resending
        self._logger = logger
        self._delays = delays
        self._is_former = is_former
        self._standing = Standing(config)
        self._destination = destination(config.to_foreign_config())
        self._delivered: set[int] = set()  # or given up, and not removed from the queue yet
        self._torn: set[int] = set()  # messages of which a part was refused, while others are under way
        self._skipped: set[int] = set()  # what this broker does not take, but perhaps that of another config
        self._set_aside: dict[int, str] = {}  # what no broker will take, and why, and is in the queue still
        self._most_in_doubt = window // 4
        self._in_doubt = 0  # removed, and a power cut may bring them back
        self._reported: set[str] = set()  # what was told of messages that could not be sent
        self.next = math.inf
        """When to try again, monotonic."""
        self.must_wait = False
        """Whether it failed, or is not allowed now."""

    def __len__(self) -> int:
        """How many messages would come twice if this were killed."""
        return len(self._delivered)

    @property
    def not_to_send(self) -> set[int]:
        """The messages that are not to be sent again."""
        return self._delivered | self._skipped | self._set_aside.keys()

    def delivered(self, message_ids: Iterable[int], under_way: set[int]) -> None:
        """A publication was delivered. A message is, when nothing of it is under way or was refused."""
        self._plan()
        self._delivered.update(set(message_ids) - under_way - self._torn)
        self._torn &= under_way

    def refused(self, message_ids: Iterable[int], under_way: set[int]) -> None:
        """A publication was not taken, so none of its messages is delivered, whatever becomes of other parts."""
        self._torn = (self._torn | set(message_ids)) & under_way

    def disconnected(self) -> None:
        """Nothing is under way any more."""
        self._torn.clear()

    def give_up(self, message_ids: set[int], *, elsewhere: bool) -> None:
        """Let messages leave the queue, unless there is somewhere else that may take them."""
        self._plan()
        (self._skipped if elsewhere else self._delivered).update(message_ids)

    def set_aside(self, reasons: Mapping[int, str]) -> None:
        """Set messages aside that the broker does not take; not those that another broker may take yet."""
        if not reasons:
            return
        foreign = {identifier for identifier in reasons if identifier >= contents.FIRST_FOREIGN}
        self._resending.remove(foreign)  # whatever is decided: what stays there keeps what follows from being read
        for why in sorted({reasons[identifier] for identifier in foreign}):
            self.tell_once(f"A message of the archive is not sent again: {why}", "Ask for it again later.")
        queued = reasons.keys() - foreign
        if self._is_former or not self._is_accepted():
            self._skipped |= queued
            return
        in_memory = {identifier for identifier in queued if identifier < 0}  # until the disk takes messages again
        self._skipped |= in_memory
        self._set_aside.update((each, reasons[each]) for each in queued - in_memory)
        for why in sorted({reasons[identifier] for identifier in queued}):
            details = "It is tried again once a day, and given up after a week."
            self.tell_once(f"A message was set aside: {why}", details)

    def tell_once(self, subject: str, details: str = "") -> None:
        """Tell the operator of a message that is not sent; of others like it, nothing."""
        if subject not in self._reported:
            self._logger.warning(subject, f"{details} Others like it are not reported.".strip())
        self._reported.add(subject)

    def remove(self, *, at_once: bool) -> None:
        """Remove what was delivered, if its time has come, and it is allowed.

        A few that went out as they were sampled are not worth a sync of the card: the next sample's is theirs, too.

        Args:
            at_once: Whether its time has come in any case.

        Raises:
            sqlite3.Error: The disk does not let go of it. It is remembered.
        """
        now = time.monotonic()
        if not self._delivered:
            self.next = math.inf
        elif at_once or now >= self.next:
            self.next = now + self._delays.until_removal_is_tried_again
            self.must_wait = True  # if this fails, or is not allowed
            if not self._is_accepted():
                return
            removed = set(self._delivered)
            in_doubt = self._in_doubt + len(removed)
            is_durable = at_once or in_doubt > self._most_in_doubt
            self._queue.remove_and_forget(self._delivered, is_durable=is_durable)
            self._in_doubt = 0 if is_durable else in_doubt
            self._resending.remove(removed)
            self.next, self.must_wait = math.inf, False

    def move_set_aside(self) -> None:
        """Let messages leave the queue that are set aside.

        Raises:
            sqlite3.Error: The disk does not take them. They are remembered.
        """
        if self._set_aside:
            self._queue.set_aside(self._set_aside, time.time() + self._delays.between_retries)
            self._set_aside.clear()

    def next_retry(self) -> int | None:
        """A message that was set aside and is to have its next chance now; None if there is none.

        Raises:
            sqlite3.Error: The disk does not tell.
        """
        due = self._queue.get_set_aside(self._delays.between_retries)
        return None if due is None or due in self._delivered | self._skipped else due

    def _plan(self) -> None:
        self.next = min(self.next, time.monotonic() + self._delays.until_removed)

    def _is_accepted(self) -> bool:
        """Whether messages may leave the queue: not while they may yet belong to another broker or name."""
        rivals = self._standing.rivals()
        if rivals is not None and all(destination(rival) == self._destination for rival in rivals):
            return True
        # Where the admin has only edited the file, this goes on until somebody restarts the backend.
        return len(self._delivered) >= MOST_KEPT and not self._standing.is_on_trial
