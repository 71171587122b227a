"""`ivy.constants`: one version for all, and where things are."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ivy import constants

PROJECT = Path(constants.PROJECT_DIR)


def test_pyproject_names_the_same_version() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["version"]) == (constants.NAME, str(constants.VERSION))


def test_the_changelog_names_the_same_version() -> None:
    newest = (PROJECT / "debian" / "changelog").read_text().splitlines()[0]
    # Debian sorts "~" before the end, so that a release candidate is older than its release.
    # The epoch keeps Debian's own package of the name, Apache Ivy 2.5, from being the newer one.
    assert newest.startswith(f"ivy (1:{str(constants.VERSION).replace('-', '~')})")


def test_the_template_names_the_same_version() -> None:
    template = json.loads((PROJECT / "config" / "config.template.json").read_text())
    assert template["general"]["software_version"] == str(constants.VERSION)


def _places(package: Path, **environment: str) -> list[str]:
    """Root, data and run directory of a process with this environment."""
    code = "from ivy.constants import *; print(IVY_ROOT_DIR, IVY_DATA_DIR, IVY_RUN_DIR, sep='\\n')"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("IVY_")}
    command = [sys.executable, "-B", "-c", code]
    environment = {**clean, "PYTHONPATH": str(package), **environment}
    return subprocess.run(
        command, env=environment, cwd=package, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release as on a node."""
    (tmp_path / "ivy").symlink_to(PROJECT / "ivy")
    return tmp_path


def test_production_paths(release: Path) -> None:
    assert _places(release) == ["/var/lib/ivy", "/var/lib/ivy/data", "/run/ivy"]


def test_a_checkout_keeps_its_data_to_itself(release: Path) -> None:
    (release / "data").mkdir()
    assert _places(release) == ["/var/lib/ivy", f"{release}/data", f"{release}/data/run"]


def test_the_root_directory_can_be_overridden(release: Path) -> None:
    (release / "data").mkdir()  # which must not win over what the environment says
    assert _places(release, IVY_ROOT_DIR="/elsewhere") == ["/elsewhere", "/elsewhere/data", "/elsewhere/data/run"]


def test_the_data_directory_can_be_overridden(release: Path) -> None:
    (release / "data").mkdir()
    environment = {"IVY_ROOT_DIR": "/elsewhere", "IVY_DATA_DIR": "/disk"}
    assert _places(release, **environment) == ["/elsewhere", "/disk", "/disk/run"]


def test_levels_are_in_order() -> None:
    by_priority = sorted(constants.LOGGING_LEVEL_PRIORITIES.items(), key=lambda item: item[1])
    assert [level for level, _ in by_priority] == ["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"]


def test_the_units_keep_the_same_time_limits_and_statuses() -> None:
    settings = (PROJECT / "units" / "ivy-.service.d" / "20-supervision.conf").read_text().splitlines()
    assert f"WatchdogSec={constants.WATCHDOG_SECONDS}" in settings
    assert f"TimeoutStopSec={constants.SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN}" in settings
    assert f"RestartPreventExitStatus={constants.EXIT_CONFIG_ERROR}" in settings
