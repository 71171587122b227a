"""What the backend says about its connection, for `ivy status` and others: a small file under /run/ivy."""

import os
from pathlib import Path

import pydantic

from ivy import constants, files
from ivy.types.model import Model

LINK_REPORT_FILE = os.path.join(constants.IVY_RUN_DIR, "link.json")


class LinkReport(Model):
    """The state of the connection to the broker."""

    broker: str = pydantic.Field(description="`host:port`.")
    connected: bool
    since: float = pydantic.Field(description="Unix time of the last change, in seconds.")
    reason: str | None = pydantic.Field(default=None, description="Why there is no connection.")
    last_acknowledged: float | None = pydantic.Field(
        default=None, description="Unix time at which the broker last took messages, in seconds; a minute late."
    )
    invocation: str = pydantic.Field(default="", description="The run of the service that says so, see systemd.")

    def write(self) -> None:
        """Publish this report.

        Raises:
            OSError: It could not be written.
        """
        files.write_atomically(Path(LINK_REPORT_FILE), self.model_dump_json(), mode=0o644, durable=False)

    @staticmethod
    def load() -> "LinkReport | None":
        """The last report; None if there is none that can be read."""
        try:
            return LinkReport.model_validate_json(files.read(LINK_REPORT_FILE))
        except (OSError, pydantic.ValidationError):
            return None
