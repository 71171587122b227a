#!/usr/bin/python
"""The module ivy.fleet.config: lets a node use a config, if it does not already."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config
short_description: Change the config of an ivy node
description:
  - Merges settings and secrets over the node's active config, and lets the node use the result by
    C(ivy config apply), if it differs. A config that the node rejects fails the task with the node's reason; the
    node goes on as before.
  - What is not named stays as it is on the node, as the operator may have changed it over the air.
  - The config keeps its revision and software version, if I(settings) do not name others under C(general).
  - Where the active config cannot be used, so that the one that was accepted last runs, that one is applied with
    the changes. Where a program has made a file of the link in C(/etc/ivy), it becomes the link again. What was
    there is kept beside, as C(config.json.replaced).
options:
  settings:
    description:
      - What the config is to say, by section. Only C(backend) and C(updater) may be null.
      - The value C(***) means the one that the node has.
    type: dict
    default: {}
  secrets:
    description:
      - The same, for what must not be seen. Its values are hidden wherever Ansible would show them.
      - Those of a section that I(settings) set to null are left out.
      - The value C(***) means the one that the node has, here as well.
    type: dict
    default: {}
  files:
    description:
      - Texts by name, for files in C(/etc/ivy) that the config names, such as certificates. All may read them.
      - They are on trial together with the config, and what was there before comes back with it. A version that
        knows of no such thing gets them at once.
    type: dict
    default: {}
  secret_files:
    description: The same, for what only ivy may read, such as keys.
    type: dict
    default: {}
  path:
    description: The active config.
    type: path
    default: /var/lib/ivy/current/config/config.json
  link:
    description: The link to it that admins know.
    type: path
    default: /etc/ivy/config.json
  seconds:
    description:
      - How long to wait for a decision about what is asked for. Then the task fails, and says what was waited for,
        such as a link; a trial goes on on the node.
      - Another config that is on trial is replaced at once; a version that is on trial is waited for.
    type: int
    default: 9000
  now:
    description:
      - Whether not to wait for procedures in the middle of something, such as a calibration.
      - Otherwise the task may take two hours more. A version that knows of no such thing refuses it.
    type: bool
    default: false
  rename:
    description:
      - Whether a node that gets another name sends under it what waits under the old one.
      - Otherwise it refuses the name until that is sent. A version that knows of no such thing refuses this.
    type: bool
    default: false
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
files:
  description: The names of the files that are other ones now.
  type: list
  elements: str
  returned: when ivy is installed
"""

import hashlib
import json
import os
import re
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ivy.fleet.plugins.module_utils import admin_files
from ansible_collections.ivy.fleet.plugins.module_utils.node import (
    TOO_LATE,
    is_version_on_trial,
    run_ivy,
    wait_for_decision,
)

HIDDEN_KEYS = re.compile(
    r"(password|passphrase|passwd|pwd|psk|token|secret|username|credentials?|api.?key|private.?key|auth|authorization|pin)$",
    re.I,
)
USER_IN_URL = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s]*@", re.I)
# Not the link to it in /etc, which an editor may have replaced by a file.
ACTIVE = "/var/lib/ivy/current/config/config.json"
LINK = "/etc/ivy/config.json"
REPLACED = ".replaced"
UNUSABLE = 78
"""What `ivy config validate` ends with where the config of the node is of no use."""

ACCEPTED = "config.accepted.json"
BACKENDS = ("ivy-tenta.service", "ivy-thingsboard.service")
AS_IT_IS = "***"
HIDDEN = "(hidden)"
HIDDEN_CHANGE = "(hidden, another one)"


def merged(below: Any, above: Any) -> Any:
    """`above` over `below`: objects field by field, all else as a whole."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


def secrets_of(path: str, text: str) -> Any:
    """What is hidden in a config and kept beside it, which root may read. Version 1.0 hides nothing."""
    try:
        with open(os.path.join(os.path.dirname(os.path.realpath(path)), "secrets.json"), encoding="utf-8") as file:
            sets = json.load(file)
        if not isinstance(sets, dict):
            return {}
        return sets.get(hashlib.sha256(text.encode()).hexdigest(), next(iter(sets.values()), {}))
    except (OSError, ValueError):
        return {}


def with_secrets(shown: Any, secrets: Any) -> Any:
    """A config with what is hidden in it; in a list, by the number of the element."""
    if shown == AS_IT_IS and isinstance(secrets, str):
        return secrets
    if not isinstance(secrets, dict):
        return shown
    if isinstance(shown, dict):
        return {key: with_secrets(value, secrets.get(key)) for key, value in shown.items()}
    if isinstance(shown, list):
        return [with_secrets(value, secrets.get(str(number))) for number, value in enumerate(shown)]
    return shown


def as_it_is(wanted: Any, before: Any) -> Any:
    """What is wanted, with what the node has where that says so."""
    if isinstance(wanted, dict):
        known = before if isinstance(before, dict) else {}
        return {key: as_it_is(value, known.get(key)) for key, value in wanted.items()}
    if isinstance(wanted, list):
        old = before if isinstance(before, list) else []
        return [as_the_same(value, [*old[number : number + 1], *old]) for number, value in enumerate(wanted)]
    return before if wanted == AS_IT_IS and before is not None else wanted


def as_the_same(wanted: Any, known: list[Any]) -> Any:
    """An element of a list: it is known by all that is not secret in it. The node judges what is not known here."""
    return next((element for element in known if as_it_is(wanted, element) == element), wanted)


def applicable(secrets: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Secrets without those of sections that the settings take away: a node without backend shares them, too."""
    return {name: section for name, section in secrets.items() if settings.get(name, section) is not None}


def shown(config: Any, secrets: Any, other: Any = None) -> Any:
    """A config without what is secret: by its name, or because it stands in `secrets`. One that is not the same in
    `other` is said to be another one."""
    if isinstance(config, list):
        return [shown(element, None) for element in config]
    if not isinstance(config, dict):
        return USER_IN_URL.sub(rf"\1{HIDDEN}@", config) if isinstance(config, str) else config
    result = {}
    for key, value in config.items():
        secret = secrets.get(key) if isinstance(secrets, dict) else None
        beside = other.get(key) if isinstance(other, dict) else None
        is_secret = bool(HIDDEN_KEYS.search(key)) or (secret is not None and not isinstance(secret, dict))
        if is_secret and value is not None:
            result[key] = HIDDEN if other is None or value == beside else HIDDEN_CHANGE
        else:
            result[key] = shown(value, secret, beside if other is not None else None)
    return result


def as_text(config: Any) -> str:
    """For the eye."""
    return json.dumps(config, indent=4, sort_keys=True) + "\n"


def read(module: AnsibleModule) -> tuple[Any, bool]:
    """The config that a node runs with, and whether it is the active one: else it was accepted before that.

    None in check mode on a node without ivy.
    """
    path = module.params["path"]
    accepted = os.path.join(os.path.dirname(os.path.realpath(path)), ACCEPTED)
    try:
        found = read_file(path)
        if not os.path.exists(accepted) or run_ivy(module, "config", "validate")[0] != UNUSABLE:
            return found, True
        return read_file(accepted), False
    except (OSError, ValueError) as error:
        try:
            return read_file(accepted), False
        except (OSError, ValueError):
            if isinstance(error, FileNotFoundError) and module.check_mode:
                return None, True
            # The text of a JSON error says where, and not what stands there.
            return module.fail_json(msg=f"{path}: {error}")


def is_link_lost(module: AnsibleModule) -> bool:
    """Whether what admins know as the config is something else."""
    return os.path.realpath(module.params["link"]) != os.path.realpath(module.params["path"])


def renew_link(module: AnsibleModule) -> None:
    """Let it be the link again; what is there is kept."""
    link = module.params["link"]
    keep(link)
    beside = os.path.join(os.path.dirname(link), f".{os.path.basename(link)}.link")
    if os.path.lexists(beside):
        os.unlink(beside)
    os.symlink(module.params["path"], beside)
    os.replace(beside, link)


def keep(path: str) -> None:
    """Keep what somebody has written, for root only, as there may be secrets in it."""
    kept = path + REPLACED
    if os.path.islink(path) or not os.path.isfile(path):
        return
    if os.path.lexists(kept):
        os.unlink(kept)
    descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as copy, open(path, "rb") as file:
        shutil.copyfileobj(file, copy)


def read_file(path: str) -> Any:
    """A config that is JSON. Some editors begin it with a byte order mark."""
    with open(path, encoding="utf-8-sig") as file:
        text = file.read()
    return with_secrets(json.loads(text), secrets_of(path, text))


def validate(module: AnsibleModule, before: Any, wanted: Any) -> None:
    """Let the node's version look at a config, unless it is for another one."""
    if wanted["general"].get("software_version") != before["general"]["software_version"]:
        return
    status, _said, complained = run_ivy(module, "config", "validate", "/dev/stdin", text=json.dumps(wanted))
    if status != 0:
        module.fail_json(msg=f"the node could not use this config: {complained.strip()}")


def new_files(module: AnsibleModule) -> list[admin_files.AdminFile]:
    """Those of the files that the node has not, as they are to be."""
    place = os.path.dirname(module.params["link"])
    some = admin_files.wanted(module.params["files"], module.params["secret_files"])
    if below := [file.name for file in some if "/" in file.name]:
        module.fail_json(msg=f"ivy_files, ivy_secret_files: {below[0]} must be a name in {place}, without a /")
    return [file for file in some if not file.is_in(place)]


def can_try_files(module: AnsibleModule) -> bool:
    """Whether the node's version puts files on trial."""
    return "--files" in run_ivy(module, "config", "apply", "--help")[1]


def bring_untried(module: AnsibleModule, files: list[admin_files.AdminFile]) -> None:
    """Have files in their place, and let the backend use them, whichever it is."""
    for file in files:
        admin_files.write(os.path.dirname(module.params["link"]), file)
    module.run_command(["systemctl", "try-restart", *BACKENDS])


def apply(module: AnsibleModule, wanted: Any, *options: str) -> None:
    """Let the node decide about a config."""
    how = [f"--{word}" for word, name in (("now", "now"), ("yes", "rename")) if module.params[name]]
    seconds, text = module.params["seconds"], json.dumps(wanted)
    status, said, complained = run_ivy(module, "config", "apply", "-", *options, *how, text=text, seconds=seconds)
    if status == TOO_LATE:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        module.fail_json(msg=f"not decided within {seconds} s: {last} {complained.strip()}")
    if status != 0:
        module.fail_json(msg=f"the node goes on with the config it has: {complained.strip()}")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "files": {"type": "dict", "default": {}},
            "secret_files": {"type": "dict", "default": {}, "no_log": True},
            "path": {"type": "path", "default": ACTIVE},
            "link": {"type": "path", "default": LINK},
            "seconds": {"type": "int", "default": 9000},
            "now": {"type": "bool", "default": False},
            "rename": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    before, is_active = read(module)
    if before is None:
        module.exit_json(changed=True, msg="ivy is not installed yet")
    settings, secrets = module.params["settings"], module.params["secrets"]
    wanted = as_it_is(merged(merged(before, settings), applicable(secrets, settings)), before)
    if not module.check_mode and ((wanted == before and is_active) or is_version_on_trial(module)):
        # It may be on trial, by a play that was interrupted. Another config on trial is replaced.
        wait_for_decision(module, module.params["seconds"])
        before, is_active = read(module)
        wanted = as_it_is(merged(merged(before, settings), applicable(secrets, settings)), before)
    revision = wanted["general"].get("config_revision")
    is_same, link_was_lost = wanted == before and is_active, is_link_lost(module)
    files = new_files(module)
    if not is_same and module.check_mode:
        validate(module, before, wanted)
    elif not module.check_mode and (files or not is_same):
        if not is_active:
            keep(module.params["path"])
        if not files:
            apply(module, wanted)
        elif can_try_files(module):
            with admin_files.laid_out(files) as directory:
                apply(module, wanted, "--files", directory)
        else:
            bring_untried(module, files)
            if not is_same:
                apply(module, wanted)
    if not module.check_mode and is_link_lost(module):
        renew_link(module)
    names = [file.name for file in files]
    if is_same:
        module.exit_json(changed=link_was_lost or bool(files), revision=revision, files=names)
    difference = {"before": as_text(shown(before, secrets)), "after": as_text(shown(wanted, secrets, before))}
    module.exit_json(changed=True, revision=revision, files=names, diff=difference)


if __name__ == "__main__":
    main()
