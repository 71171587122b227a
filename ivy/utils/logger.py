"""Log lines of procedures and backends: to the journal or the terminal, and to the operator as messages."""

import contextlib
import datetime
import os
from typing import Literal, Optional

from ivy.types.config import Config
from ivy.types.messages import LogMessageBody
from ivy.utils.functions import log_level_is_visible
from ivy.utils.host import journal
from ivy.utils.messaging_agent import MessagingAgent

_Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"]
_DETAILS_WIDTH = 40


class Logger:
    """Writes log lines where `config.logging_verbosity` wants them: to the journal (`file_archive`) where this is a
    service, to the terminal (`console_prints`) where it is run by hand, to the message queue (`message_sending`)
    where there is a backend.

    A line on the terminal looks like this, the details being optional:

        2021-08-22 16:00:00.000 UTC+2 - origin           - INFO      - test message
        --- details ----------------------------
        test details
        ----------------------------------------

    Logging never raises: what cannot be queued stands in the journal, with the reason. What is no text, such as an
    exception for a message, is logged as `str` says it.
    """

    def __init__(self, config: Config, origin: str = "insert-name-here") -> None:
        """Make a logger for a part of ivy: `origin` is its name, e.g. `system-checks`."""
        self._config = config
        self._origin = origin
        self._messaging_agent: Optional[MessagingAgent] = None

    def without_messages(self) -> "Logger":
        """The same logger, but for trouble that must not go into the queue."""
        quiet = self._config.logging_verbosity.model_copy(update={"message_sending": None})
        return type(self)(self._config.model_copy(update={"logging_verbosity": quiet}), self._origin)

    def horizontal_line(self, fill_char: Literal["-", "=", ".", "_"] = "=") -> None:
        """Write a horizontal line to journal or terminal."""
        self._write_to_operator_here("INFO", fill_char * 46, [])

    def debug(self, message: str, details: Optional[str] = None) -> None:
        """Write a DEBUG line; the details come below it, on lines of their own."""
        self._write_log_line("DEBUG", message, [("details", details)])

    def info(self, message: str, details: Optional[str] = None) -> None:
        """Write an INFO line; see `debug`."""
        self._write_log_line("INFO", message, [("details", details)])

    def warning(self, message: str, details: Optional[str] = None) -> None:
        """Write a WARNING line; see `debug`."""
        self._write_log_line("WARNING", message, [("details", details)])

    def error(self, message: str, details: Optional[str] = None) -> None:
        """Write an ERROR line; see `debug`."""
        self._write_log_line("ERROR", message, [("details", details)])

    def exception(self, e: Exception, label: Optional[str] = None, details: Optional[str] = None) -> None:
        """Write an exception with its traceback; the subject is `(label, )ZeroDivisionError: division by zero`.

        Args:
            label: What was being done.
            details: More, e.g. the output of a failed program.
        """
        import traceback  # not at the top: 0.15 MB that a service without trouble does not need

        name = f"{type(e).__name__}: {journal.in_words(e)}"
        subject = f"{label}, {name}" if label else name
        has_trace = isinstance(e, BaseException)  # not where somebody has passed the text of one
        trace = "".join(traceback.format_exception(e)).strip() if has_trace else ""
        self._write_log_line("EXCEPTION", subject, [("exception details", details), ("traceback", trace)])

    def _write_log_line(self, level: _Level, subject: str, details: list[tuple[str, Optional[str]]]) -> None:
        """Write a line to wherever its level is visible; of the blocks below it, those that have text."""
        texts = [(title, journal.readable(text)) for title, text in details if text is not None]
        blocks = [(title, text) for title, text in texts if text]
        subject = journal.readable(subject)
        self._write_to_operator_here(level, subject, blocks)
        verbosity = self._config.logging_verbosity
        if self._config.backend is not None and log_level_is_visible(verbosity.message_sending, level):
            self._queue(level, subject, blocks)

    def _write_to_operator_here(self, level: _Level, subject: str, blocks: list[tuple[str, str]]) -> None:
        verbosity = self._config.logging_verbosity
        if journal.is_attached():
            if log_level_is_visible(verbosity.file_archive, level):
                # One block needs no title in the journal, where the reader sees it right below its subject.
                text = blocks[0][1] if len(blocks) == 1 else _format(blocks)
                journal.send(level, subject, text, self._origin)
        elif log_level_is_visible(verbosity.console_prints, level):
            now = datetime.datetime.now().astimezone()
            stamp = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d} UTC{_utc_offset(now)}"
            below = f"\n{_format(blocks)}\n{'-' * _DETAILS_WIDTH}" if blocks else ""
            with contextlib.suppress(OSError, ValueError):  # a terminal that is gone, or knows no such character
                print(f"{stamp} - {self._origin:<16} - {level:<9} - {subject}{below}", flush=True)

    def _queue(self, level: _Level, subject: str, blocks: list[tuple[str, str]]) -> None:
        message = LogMessageBody(level=level, subject=f"{self._origin} - {level} - {subject}", body=_format(blocks))
        try:
            if os.geteuid() == 0:
                from ivy.utils.host import rights  # not at the top: no service is root

                rights.ask(lambda: self._add(message))
            else:
                self._add(message)
        except Exception as error:  # whatever it is, a log line must not end what it tells about
            reason = f"{type(error).__name__}: {error}"
            journal.send("ERROR", f"a log message could not be queued: {reason}", subject, self._origin)

    def _add(self, message: LogMessageBody) -> None:
        if self._messaging_agent is None:
            self._messaging_agent = MessagingAgent()
        self._messaging_agent.add_message(message)


def _format(blocks: list[tuple[str, str]]) -> str:
    return "\n".join(f"{f'--- {title} ':-<{_DETAILS_WIDTH}}\n{text.strip()}" for title, text in blocks)


def _utc_offset(now: datetime.datetime) -> str:
    """`+2`, `-3.5`, `+0`: the difference to UTC in hours."""
    offset = now.utcoffset() or datetime.timedelta()
    return f"{offset.total_seconds() / 3600:+g}"
