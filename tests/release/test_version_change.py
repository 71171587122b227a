"""What proves that this release can run on this node: the updater runs these before it activates the release.

They run with the release's own environment, as a user without rights, without network, and can only look. They use
nothing that a node does not have.
"""

import importlib
import os
import sqlite3
import subprocess
from pathlib import Path

import pydantic
import pytest

from ivy import constants, main
from ivy.types.config import Config
from ivy.types.messages import MessageQueueItem
from ivy.types.state import BackendState, State
from ivy.types.updates import History
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE
from ivy.utils.state_interface import BACKEND_STATE_FILE, STATE_FILE
from ivy.utils.updates import history

pytestmark = pytest.mark.version_change

RELEASE = Path(constants.PROJECT_DIR)
CONFIG = RELEASE / "config" / "config.json"
# In a checkout it is what somebody tried, for whichever version, and no release is given it.
IS_GIVEN = "IVY_VERSION_CHANGE" in os.environ and CONFIG.exists()
MODULES = sorted(
    ".".join(path.relative_to(RELEASE).with_suffix("").parts)
    for path in (RELEASE / "ivy").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
NEWEST_MESSAGES = 100


def test_the_template_is_valid_and_for_this_version() -> None:
    assert Config.load_template().general.software_version == constants.VERSION


def test_the_given_config_is_valid_and_for_this_version() -> None:
    config = Config.load() if IS_GIVEN else Config.load_template()
    assert config.general.software_version == constants.VERSION


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported(module: str) -> None:
    assert importlib.import_module(module)


def test_the_backend_of_the_config_has_a_module_and_a_unit() -> None:
    config = Config.load() if IS_GIVEN else Config.load_template()
    if config.backend is not None:
        assert config.backend.provider in main.service_names()
        assert (RELEASE / "units" / f"ivy-{config.backend.provider}.service").is_file()


@pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="systemd does not run here; on a node it does")
@pytest.mark.parametrize("unit", sorted(path.name for path in (RELEASE / "units").glob("ivy-*.service")))
def test_systemd_has_nothing_to_say_about_the_unit(unit: str) -> None:
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(RELEASE / "units" / unit)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("path", "model"), [(STATE_FILE, State), (BACKEND_STATE_FILE, BackendState), (history.HISTORY_FILE, History)]
)
def test_what_the_node_remembers_is_readable(path: str, model: type[pydantic.BaseModel]) -> None:
    # The updater of 1.0 lets tests look; after a way back to it, there is what is closed to procedures now.
    text = Path(path).read_text(encoding="utf-8") if os.access(path, os.R_OK) else "{}"
    assert model.model_validate_json(text)


def test_what_is_queued_is_readable() -> None:
    if not os.path.exists(ACTIVE_QUEUE_FILE):
        return
    database = sqlite3.connect(f"file:{ACTIVE_QUEUE_FILE}?mode=ro", uri=True)
    newest = "SELECT internal_id, timestamp, message_body FROM QUEUE ORDER BY internal_id DESC LIMIT ?"
    rows = database.execute(newest, (NEWEST_MESSAGES,)).fetchall()
    database.close()
    for identifier, timestamp, body in rows:
        text = f'{{"identifier": {identifier}, "timestamp": {timestamp}, "message_body": {body}}}'
        assert MessageQueueItem.model_validate_json(text)
