#!/usr/bin/python
"""The module ivy.fleet.config: lets a node use a config, if it does not already."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ivy.fleet.plugins.module_utils.node import run_ivy, wait_for_decision

DOCUMENTATION = r"""
module: config
short_description: Change the config of an ivy node
description:
  - Merges settings and secrets over the node's active config, and lets the node use the result by
    C(ivy config apply), if it differs. A config that the node rejects fails the task with the node's reason; the
    node goes on as before.
  - What is not named stays as it is on the node, as the operator may have changed it over the air.
  - The config keeps its revision and software version, if I(settings) do not name others under C(general).
options:
  settings:
    description: What the config is to say, by section. Only C(backend) and C(updater) may be null.
    type: dict
    default: {}
  secrets:
    description:
      - The same, for what must not be seen. Its values are hidden wherever Ansible would show them.
      - Those of a section that I(settings) set to null are left out.
    type: dict
    default: {}
  path:
    description: The active config.
    type: path
    default: /etc/ivy/config.json
  seconds:
    description: How long to wait for a change that is on trial already.
    type: int
    default: 900
attributes:
  check_mode:
    support: full
    description: Says whether the config would change, and fails if the node's version could not use it.
  diff_mode:
    support: full
    description: Secrets are hidden.
author:
  - ivy contributors (@ivy)
"""

EXAMPLES = r"""
- name: Sample every ten seconds
  ivy.fleet.config:
    settings: {system_checks: {seconds_between_checks: 10}}
    secrets: {backend: {mqtt_connection: {password: "{{ vault_password }}"}}}
"""

RETURN = r"""
revision:
  description: The number of the config that is active now.
  type: int
  returned: when ivy is installed
"""


HIDDEN_KEYS = {"password", "access_token"}
HIDDEN = "(hidden)"
HIDDEN_CHANGE = "(hidden, another one)"


def merged(below: Any, above: Any) -> Any:
    """`above` over `below`: objects field by field, all else as a whole."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


def applicable(secrets: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Secrets without those of sections that the settings take away: a node without backend shares them, too."""
    return {name: section for name, section in secrets.items() if settings.get(name, section) is not None}


def shown(config: Any, secrets: Any, other: Any = None) -> Any:
    """A config without what is secret: by its name, or because it stands in `secrets`. One that is not the same in
    `other` is said to be another one."""
    if not isinstance(config, dict):
        return config
    result = {}
    for key, value in config.items():
        secret = secrets.get(key) if isinstance(secrets, dict) else None
        beside = other.get(key) if isinstance(other, dict) else None
        is_secret = key in HIDDEN_KEYS or (secret is not None and not isinstance(secret, dict))
        if is_secret and value is not None:
            result[key] = HIDDEN if other is None or value == beside else HIDDEN_CHANGE
        else:
            result[key] = shown(value, secret, beside if other is not None else None)
    return result


def as_text(config: Any) -> str:
    """For the eye."""
    return json.dumps(config, indent=4, sort_keys=True) + "\n"


def read(module: AnsibleModule) -> Any:
    """The active config; None in check mode on a node without ivy."""
    try:
        with open(module.params["path"], encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and module.check_mode:
            return None
        # The text of a JSON error says where, and not what stands there.
        return module.fail_json(msg=f"{module.params['path']}: {error}")


def validate(module: AnsibleModule, before: Any, wanted: Any) -> None:
    """Let the node's version look at a config, unless it is for another one."""
    if wanted["general"].get("software_version") != before["general"]["software_version"]:
        return
    status, _, complained = run_ivy(module, "config", "validate", "/dev/stdin", text=json.dumps(wanted))
    if status != 0:
        module.fail_json(msg=f"the node could not use this config: {complained.strip()}")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "path": {"type": "path", "default": "/etc/ivy/config.json"},
            "seconds": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    before = read(module)
    if before is None:
        module.exit_json(changed=True, msg="ivy is not installed yet")
    if not module.check_mode:
        wait_for_decision(module, module.params["seconds"])
        before = read(module)
    settings, secrets = module.params["settings"], module.params["secrets"]
    wanted = merged(merged(before, settings), applicable(secrets, settings))
    revision = wanted["general"].get("config_revision")
    if wanted == before:
        module.exit_json(changed=False, revision=revision)
    if module.check_mode:
        validate(module, before, wanted)
    else:
        status, _, complained = run_ivy(module, "config", "apply", "-", text=json.dumps(wanted))
        if status != 0:
            module.fail_json(msg=f"the node goes on with the config it has: {complained.strip()}")
    difference = {"before": as_text(shown(before, secrets)), "after": as_text(shown(wanted, secrets, before))}
    module.exit_json(changed=True, revision=revision, diff=difference)


if __name__ == "__main__":
    main()
