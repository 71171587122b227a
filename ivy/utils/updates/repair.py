"""Repairs a release whose environment cannot run it, as after an upgrade of Debian, or a power cut.

Until that is done /usr/bin/ivy runs the package's code, with the release's config: this code.
"""

import contextlib
import time
from pathlib import Path

from ivy.types.config import Config, is_usable
from ivy.utils.host import rights
from ivy.utils.logger import Logger
from ivy.utils.updates import activation, bundled, decisions, environment, retry
from ivy.utils.updates.errors import Rejected, Trouble
from ivy.utils.updates.releases import Releases

_SECONDS_WITHOUT_SAMPLES = 600.0


def repair(releases: Releases, config: Config, logger: Logger) -> bool:
    """Make the current release's environment again, if it does not fit.

    If that is impossible, and the package's code cannot use the config either, so that nothing is sampled or sent,
    the package's release becomes the current one.

    Args:
        config: As much of the active config as this code can read.

    Returns: Whether the services were restarted.

    Raises:
        OSError, CommandError: It could not be done. The next pass goes on.
    """
    version = releases.current()
    trouble = _trouble(releases.directory(version)) if version else None
    if version is None or trouble is None:
        return False
    logger.warning(f"The environment of version {version} cannot run it: making it again", details=trouble)
    is_served = is_usable(releases.active_text())
    try:
        _make_again(releases.directory(version), is_served, logger)
    except (Rejected, Trouble) as error:
        logger.error(f"Version {version} cannot run with this Python", details=str(error))
        if is_served:
            return False
        bundled.stand_in(releases, config)
        logger.error(f"The package's version {releases.current()} runs, with what it can read of the config")
        activation.switch(activation.backend_unit(releases.active_config()), is_undone=True)
        return True
    activation.renew(activation.backend_unit(releases.active_config()))
    return True


def _trouble(release: Path) -> str | None:
    """Why an environment does not fit. Asked twice, because the first thing that follows is to remove it."""
    return environment.why_not(release) and environment.why_not(release)


def _make_again(release: Path, is_served: bool, logger: Logger) -> None:
    deadline = time.monotonic() + _SECONDS_WITHOUT_SAMPLES

    def give_up(trouble: Trouble) -> None:
        is_wanted = False
        with contextlib.suppress(rights.NoAnswer):
            is_wanted = bool(decisions.undecided())
        if is_wanted or (not is_served and time.monotonic() > deadline):
            raise trouble

    what = f"the dependencies of version {release.name}"
    retry.fetch(what, lambda: environment.make_again(release), give_up, logger)
    environment.check(release)
