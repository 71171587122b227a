#!/usr/bin/python
"""The module ivy.fleet.release: lets a node run a version, if it does not already."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Update an ivy node to a version
description:
  - Lets the node run a version by C(ivy update), which fetches the signed tag, tests it, tries it, and undoes it
    if it does not run well. That fails the task with the node's reason; the node goes on as before.
  - A node that somebody holds is left alone.
  - May be called again if the connection or the node's power was lost meanwhile. A trial that is under way is
    waited for and not begun again.
options:
  version:
    description: The version, without a C(v).
    type: str
    required: true
  seconds:
    description: How long to wait for a trial that is under way.
    type: int
    default: 900
  now:
    description:
      - Whether not to wait for procedures in the middle of something, such as a calibration.
      - Otherwise the task may take two hours more. A version that knows of no such thing refuses it.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says whether the node runs another version.
  diff_mode:
    support: none
    description: There is nothing to show.
author:
  - ivy contributors (@ivy)
"""

EXAMPLES = r"""
- name: Update
  ivy.fleet.release:
    version: 1.2.3
"""

RETURN = r"""
version:
  description: The version that runs now.
  type: str
  returned: always
held:
  description: For how long and why somebody holds the node.
  type: str
  returned: if somebody does
before:
  description: The version that ran before.
  type: str
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ivy.fleet.plugins.module_utils.node import (
    releases,
    run_ivy,
    running_version,
    wait_for_decision,
    why_held,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "seconds": {"type": "int", "default": 900},
            "now": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    wanted = module.params["version"]
    if (held := why_held(module)) is not None:
        before = running_version(releases(module))
        module.exit_json(changed=False, before=before, version=before, held=held)
    if module.check_mode:
        before = running_version(releases(module))
        module.exit_json(changed=before != wanted, before=before, version=before)
    found, waited = wait_for_decision(module, module.params["seconds"])
    before = running_version(found)
    if before == wanted:
        module.exit_json(changed=waited, before=before, version=wanted)
    if waited:
        reject_if_decided(module, found, wanted, before)
    status, _said, complained = run_ivy(module, "update", wanted, *(["--now"] if module.params["now"] else []))
    now = running_version(releases(module))
    if status != 0 or now != wanted:
        module.fail_json(
            msg=f"the node goes on with version {now}: {complained.strip()}", before=before, version=now
        )
    module.exit_json(changed=True, before=before, version=wanted)


def reject_if_decided(module: AnsibleModule, found: dict[str, Any], wanted: str, before: str | None) -> None:
    """The trial that was waited for may have been one of this version: once is enough."""
    last = found["decisions"][-1] if found["decisions"] else None
    if last and last["version"] == wanted and not last["accepted"]:
        module.fail_json(
            msg=f"the node goes on with version {before}: {last['reason']}", before=before, version=before
        )


if __name__ == "__main__":
    main()
