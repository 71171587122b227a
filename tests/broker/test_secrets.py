"""A backend whose secrets are beside its config: as on a node, and from a checkout."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ivy.types import secrets_file
from ivy.types.config import split_text
from tests.support.backend_node import Node, ended


def hide(node: Node, *, beside: bool = True) -> dict[str, Any]:
    """Take the secrets out of a node's config. Returns that, without them."""
    shown, taken = split_text(json.dumps(node.config))
    node.config_file.write_text(shown)
    if beside:
        sets = {secrets_file.digest(shown): taken}
        node.config_file.with_name(secrets_file.NAME).write_text(json.dumps(sets))
    content: dict[str, Any] = json.loads(shown)
    return content


@pytest.mark.parametrize("edited", [False, True])
def test_what_is_hidden_is_beside_the_config_also_if_somebody_edits_that(node: Node, edited: bool) -> None:
    content = hide(node)
    assert content["backend"]["mqtt_connection"]["password"] == "***"
    if edited:
        content["system_checks"]["seconds_between_checks"] = 77
        node.config_file.write_text(json.dumps(content, indent=2))
    node.start()
    node.wait_until_connected()


def test_without_them_the_field_is_named_and_the_updater_asked(node: Node) -> None:
    hide(node, beside=False)
    backend = node.start()
    assert ended(backend) == 78
    assert "backend.mqtt_connection.password: is ***" in node.log and "sudo ivy config edit" in node.log
    assert any("backend.mqtt_connection.password: is ***" in text for text in node.status.texts)
    assert (node.data / "run-backend" / "pending-config").exists()


@pytest.mark.parametrize(("seconds_later", "status"), [(0, 75), (-60, 78)])
def test_a_config_that_was_replaced_as_it_started_is_read_anew(
    node: Node, tmp_path: Path, seconds_later: int, status: int
) -> None:
    """systemd hands over the secrets first; the updater may take them out of the file after that."""
    hide(node)
    handed = tmp_path / "credentials" / secrets_file.NAME
    handed.parent.mkdir()
    handed.write_text("{}")
    changed = handed.stat().st_mtime + seconds_later
    os.utime(node.config_file, (changed, changed))
    node.config_file.with_name(secrets_file.NAME).unlink()
    backend = node.spawn(["-m", "ivy", "run", "tenta"], {"CREDENTIALS_DIRECTORY": str(handed.parent)})
    assert ended(backend) == status
