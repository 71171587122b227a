"""What must hold on a node, whatever happened to a pass of its updater."""

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any

from testbed.bed import Node

from ivy.types import secrets_file
from ivy.types.config import ACCEPTED
from tests.node.kill_site import Lane, Prepared, pending_revisions
from tests.node.kills import UPDATER
from tests.support.installed import STEPS_USERS, unit_property
from tests.support.releases import THIS
from tests.support.update_site import wait_for_sample

ROOT = "/var/lib/ivy"
SERVICES = ["ivy-dummy-procedure", "ivy-system-checks", "ivy-tenta"]
# Unfinished files and directories, and what is kept during a trial.
LEFTOVER = re.compile(r"\..*\.new|\..*\.\d+-\d+|previous|config\.previous\.json|.*\.damaged-\d+|.*\.later")
SECONDS_TO_A_DECISION = 120
OWN = ("source.git", "data")

Tree = dict[str, tuple[int, int, int, str]]


def tree(directory: Path) -> Tree:
    """Each file but kept answers: mode, owner, group, and the content of code (bytecode has times in it)."""
    paths = (path for path in sorted(directory.rglob("*")) if path.parts[-2:] != (".venv", "fits"))
    return {str(path.relative_to(directory)): _file(path) for path in paths}


def _file(path: Path) -> tuple[int, int, int, str]:
    status = path.lstat()
    content = ""
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(status.st_mode) and path.suffix == ".py":
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return status.st_mode, status.st_uid, status.st_gid, content


def releases(node: Node) -> dict[str, Tree]:
    """All releases of a node, and under "" what else is there of the updater."""
    root = node.path(ROOT)
    found = {path.name: tree(path) for path in root.iterdir() if path.is_dir() and not path.is_symlink()}
    found[""] = {path.name: _file(path) for path in root.iterdir() if not path.is_dir() or path.is_symlink()}
    return {name: files for name, files in found.items() if name not in OWN}


def leftovers(node: Node) -> list[str]:
    """What a pass should have put away."""
    root = node.path(ROOT)
    paths = (path for path in root.rglob("*") if "source.git" not in path.parts)
    return sorted(str(path.relative_to(root)) for path in paths if LEFTOVER.fullmatch(path.name))


def assert_whole(node: Node, known: dict[str, Tree]) -> None:
    """Without power: what runs next is a release with all its files, and a config that can be read."""
    version = node.path(f"{ROOT}/current", follow=False).readlink().name
    found = tree(node.path(f"{ROOT}/{version}"))
    # A release that is undone is seen here only. It has the files of the others, if not their content.
    depth = 4 if version in known else 3
    whole = dict(known.get(version, known[THIS]))
    for copy in (secrets_file.COPY, ACCEPTED):
        whole.pop(f"config/{copy}", None)  # made when all is well: not yet, perhaps
    wrong = [name for name, file in whole.items() if found.get(name, ())[:depth] != file[:depth]]
    assert not wrong, f"{version} lacks {wrong}"
    json.loads(node.path("/etc/ivy/config.json").read_text())


def assert_well(node: Node, lane: Lane, prepared: Prepared) -> None:
    """The node has decided, once, and runs what it should."""
    answer = {"revision": prepared.revision, "success": prepared.case.accepted}
    node.wait_for(lambda: acknowledgments(lane), SECONDS_TO_A_DECISION, "the decision")
    wait_for_end(node)
    wait_for_sample(node, lane.recorder)
    assert acknowledgments(lane) == [answer]
    history = json.loads(node.path(f"{ROOT}/updates.json").read_text())
    [_, decision] = history["decisions"]  # the first one was about another offer
    about = decision["offer"]["general"]["config_revision"]
    assert (about, decision["accepted"]) == (prepared.revision, answer["success"])
    assert (decision["reported"], history["trial"]) == (True, None)
    case = prepared.case
    version = case.version if case.version and case.accepted else THIS
    general = json.loads(node.path("/etc/ivy/config.json").read_text())["general"]
    assert general["config_revision"] == (prepared.revision if case.accepted else prepared.revision_before)
    assert node.path(f"{ROOT}/current", follow=False).readlink().name == general["software_version"] == version
    assert node.run(["ivy", "--version"]).stdout.split()[-1] == version
    assert pending_revisions(node) == []
    assert not node.path("/run/ivy-backend/pending-config").exists()
    # What a service is writing at this moment has such a name, too.
    node.wait_for(lambda: not leftovers(node), 10, "what is unfinished to be put away")
    assert_quiet(node)


def wait_for_end(node: Node) -> None:
    """Wait until the updater has nothing to do."""
    node.wait_for(lambda: unit_property(node, UPDATER, "ActiveState") == "inactive", 60, "the end of the pass")


def acknowledgments(lane: Lane) -> list[dict[str, Any]]:
    """All that the node said about the offer. (The same message may come twice after a power cut.)"""
    said = {json.dumps(element, sort_keys=True) for element in lane.recorder.elements("acknowledgments")}
    elements = [json.loads(element) for element in sorted(said)]
    return [{name: element[name] for name in ("revision", "success")} for element in elements]


def assert_quiet(node: Node) -> None:
    """All services run; nothing failed; nothing that the updater started runs on."""
    active = node.run(["systemctl", "is-active", *SERVICES], check=False).stdout.split()
    assert active == ["active"] * len(SERVICES)
    assert not node.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout
    assert not node.run(["systemctl", "list-units", "--all", "--no-legend", "ivy_*"]).stdout
    assert not node.run(["pgrep", "--uid", STEPS_USERS], check=False).stdout
