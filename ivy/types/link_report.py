"""What the backend says about its connection, for `ivy status` and others: a small file under /run."""

import contextlib
import os
from pathlib import Path

import pydantic

from ivy import constants, files
from ivy.types.model import Model

LINK_REPORT_FILE = os.path.join(constants.BACKEND_RUN_DIR, "link.json")
"""Only backends can write there."""

_FILE_OF_1_0 = os.path.join(constants.IVY_RUN_DIR, "link.json")


class LinkReport(Model):
    """The state of the connection to the broker."""

    broker: str = pydantic.Field(description="`host:port`.")
    connected: bool
    since: float = pydantic.Field(description="Unix time of the last change, in seconds.")
    reason: str | None = pydantic.Field(default=None, description="Why there is no connection.")
    warning: str | None = pydantic.Field(default=None, description="What is wrong with a connection that is there.")
    last_acknowledged: float | None = pydantic.Field(
        default=None, description="Unix time at which the broker last took messages, in seconds; a minute late."
    )
    has_delivered: bool | None = pydantic.Field(
        default=None, description="Whether this run has delivered a message; None: a release that does not say."
    )
    stuck_since: float | None = pydantic.Field(
        default=None,
        description="Since when something waits to be acknowledged although there is a connection, if that is long,"
        " in seconds since the boot.",
    )
    protocol: str | None = pydantic.Field(default=None, description="The version of MQTT that is spoken.")
    troubles: list[str] = pydantic.Field(
        default=[], description="What the broker does not take although there is a connection, and why."
    )
    nobody_listens: bool = pydantic.Field(
        default=False, description="Whether the broker has nobody to give messages to."
    )
    invocation: str = pydantic.Field(default="", description="The run of the service that says so, see systemd.")

    def write(self) -> None:
        """Publish this report.

        Raises:
            OSError: It could not be written.
        """
        text = self.model_dump_json()
        files.make_directory(constants.BACKEND_RUN_DIR)
        files.write_atomically(Path(LINK_REPORT_FILE), text, mode=0o644, durable=False)
        with contextlib.suppress(OSError):  # where 1.0 looks, which may be the one that judges this release
            files.write_atomically(Path(_FILE_OF_1_0), text, mode=0o644, durable=False, follow=False)

    @property
    def is_well(self) -> bool:
        """Whether messages get through, as far as is known."""
        return self.connected and not self.troubles and self.stuck_since is None

    def is_of(self, invocation: str) -> bool:
        """Whether this is of a certain run of the service. That of another run, or of none, tells nothing."""
        return bool(invocation) and self.invocation == invocation

    @staticmethod
    def load(user: str = "") -> "LinkReport | None":
        """The last report; None if there is none that can be read.

        Args:
            user: Whom the backend runs as: one of version 1.0 as the user of all, who writes elsewhere.
        """
        path = _FILE_OF_1_0 if user == constants.NAME else LINK_REPORT_FILE
        try:
            return LinkReport.model_validate_json(files.read(path))
        except (OSError, pydantic.ValidationError):
            return None
