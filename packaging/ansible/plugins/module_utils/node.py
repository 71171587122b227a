"""What the modules of this collection share: the `ivy` command of the node that they run on."""

from __future__ import annotations

import json
import time
from typing import Any

IVY = "/usr/bin/ivy"
SECONDS_BETWEEN_LOOKS = 2


def run_ivy(module: Any, *arguments: str, text: str | None = None) -> tuple[int, str, str]:
    """Run `ivy`. Returns its exit status and what it said on standard output and standard error."""
    status, said, complained = module.run_command([IVY, *arguments], data=text)
    return int(status), str(said), str(complained)


def releases(module: Any) -> dict[str, Any]:
    """What `ivy releases --json` knows."""
    status, said, complained = run_ivy(module, "releases", "--json")
    if status != 0:
        module.fail_json(msg=f"ivy releases: {complained.strip()}")
    found: dict[str, Any] = json.loads(said)
    return found


def running_version(found: dict[str, Any]) -> str | None:
    """The version that runs, whether it is on trial or not."""
    return next((release["version"] for release in found["releases"] if "runs" in release["roles"]), None)


def wait_for_decision(module: Any, seconds: int) -> tuple[dict[str, Any], bool]:
    """Wait until nothing is on trial. Returns what `releases` knows then, and whether there was a trial."""
    deadline = time.monotonic() + seconds
    found = releases(module)
    waited = found["on_trial"] is not None
    while found["on_trial"] is not None:
        if time.monotonic() > deadline:
            module.fail_json(msg=f"config revision {found['on_trial']} is still on trial after {seconds} s")
        time.sleep(SECONDS_BETWEEN_LOOKS)
        found = releases(module)
    return found, waited
