"""What the modules of this collection share: the `ivy` command of the node that they run on."""

from __future__ import annotations

import json
import time
from typing import Any

IVY = "/usr/bin/ivy"
SECONDS_BETWEEN_LOOKS = 2


TOO_LATE = 124
"""What a command ends with whose time is up."""


def run_ivy(
    module: Any, *arguments: str, text: str | None = None, seconds: int | None = None
) -> tuple[int, str, str]:
    """Run `ivy`. Returns its exit status and what it said on standard output and standard error.

    After `seconds` it is ended, as by Ctrl-C, and the status is `TOO_LATE`. Not by its own --wait, which versions
    before have not.
    """
    limit = [] if seconds is None else ["timeout", "--kill-after=60", str(seconds)]
    status, said, complained = module.run_command([*limit, IVY, *arguments], data=text)
    return int(status), str(said), str(complained)


def releases(module: Any) -> dict[str, Any]:
    """What `ivy releases --json` knows."""
    status, said, complained = run_ivy(module, "releases", "--json")
    if status != 0:
        module.fail_json(msg=f"ivy releases: {complained.strip()}")
    found: dict[str, Any] = json.loads(said)
    return found


def why_held(module: Any) -> str | None:
    """For how long and why somebody holds the node; None if nobody does, or its version knows of no such thing."""
    status, said, _complained = run_ivy(module, "hold")
    return said.strip() if status == 0 else None


def running_version(found: dict[str, Any]) -> str | None:
    """The version that runs, whether it is on trial or not."""
    return next((release["version"] for release in found["releases"] if "runs" in release["roles"]), None)


def is_version_on_trial(module: Any) -> bool:
    """Whether what is on trial is a version, and no config of the one that ran before."""
    found = releases(module)
    before = [release["version"] for release in found["releases"] if "before the trial" in release["roles"]]
    return found["on_trial"] is not None and before not in ([], [running_version(found)])


def wait_for_decision(module: Any, seconds: int) -> tuple[dict[str, Any], bool]:
    """Wait until nothing is on trial. Returns what `releases` knows then, and whether there was a trial."""
    deadline = time.monotonic() + seconds
    found = releases(module)
    waited = found["on_trial"] is not None
    while found["on_trial"] is not None:
        if time.monotonic() > deadline:
            what = f"config revision {found['on_trial']} is still on trial after {seconds} s"
            module.fail_json(msg=f"{what}: {what_is_waited_for(module)}")
        time.sleep(SECONDS_BETWEEN_LOOKS)
        found = releases(module)
    return found, waited


def what_is_waited_for(module: Any) -> str:
    """What the updater says of itself."""
    shown = module.run_command(["systemctl", "show", "--property=StatusText", "--value", "ivy-updater.service"])
    return str(shown[1]).strip() or "nothing says what it waits for"
