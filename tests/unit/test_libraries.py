"""A service has all of Python: nothing that ivy saves is missing to a procedure and its libraries."""

import shutil
from importlib.metadata import version
from pathlib import Path

from ivy import constants
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
from tests.support.helpers import Node, wait_until

PROJECT = Path(constants.PROJECT_DIR)
UNIT = PROJECT / "units" / "ivy-.service.d" / "10-sandbox.conf"


def as_in_the_unit(node: Node) -> None:
    """Start its programs with the environment of all services."""
    for line in UNIT.read_text().splitlines():
        if line.startswith("Environment="):
            node.environment |= dict(word.split("=", 1) for word in line.removeprefix("Environment=").split())


def test_a_procedure_may_use_any_library(node: Node, agent: MessagingAgent) -> None:
    (node.release / "ivy").unlink()
    shutil.copytree(PROJECT / "ivy", node.release / "ivy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "tests" / "libraries_user.py", node.release / "ivy" / "procedures")
    node.write_config()
    as_in_the_unit(node)
    process = node.start("-m", "ivy", "run", "libraries-user")
    wait_until(lambda: agent.get_n_latest_messages(1) or process.poll() is not None)
    process.terminate()
    _, errors = process.communicate(timeout=80)
    assert process.returncode == 0, errors
    bodies = [item.message_body for item in agent.get_n_latest_messages(10)]
    [data] = [body.data for body in bodies if isinstance(body, DataMessageBody)]
    assert data["pydantic"] == version("pydantic")
