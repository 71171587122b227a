"""Offers, releases and a service user with bad intent: the node says no, and is as it was.

One node for all of them, one after the other: whatever one does to it, the next ones see.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from testbed.bed import Bed, Node, Snapshot

from tests.node import hostile_trees
from tests.support.installed import unit_property
from tests.support.releases import THIS, Graft, ReleaseMaker, add_zeros, grafts, remove, write
from tests.support.update_site import PRIVATE_REPOSITORY, REPOSITORY, TOKEN, UpdateSite, with_tenta

CANARY = "canary"
EXECUTE = f"$(touch${{IFS}}/var/lib/ivy/{CANARY})"
GIGABYTE = 1 << 30
SECONDS_TO_TEST = 5
SECONDS_BETWEEN_TRIES = 5  # RestartSec= of the updater
RELEASE_TESTS = Path(__file__).parent / "release_tests"

TREES: dict[str, tuple[Graft, str]] = {
    "9.1.1": (hostile_trees.file(["ivy", "..", "..", CANARY]), "objects that git does not accept"),
    "9.1.2": (hostile_trees.file([f"/var/lib/ivy/{CANARY}"]), "objects that git does not accept"),
    "9.1.3": (hostile_trees.file(["ivy", ".git", "hooks", CANARY]), "objects that git does not accept"),
    "9.1.4": (hostile_trees.symlink(["ivy", "link"], "/etc/passwd"), "ivy/link is a link that leads out"),
    "9.1.6": (
        grafts(
            hostile_trees.symlink(["ivy", "first"], "second"),
            hostile_trees.symlink(["ivy", "second"], "third/fourth"),
            hostile_trees.symlink(["ivy", "third", "fourth"], "../../../.."),
        ),
        "is a link that leads out",
    ),
    "9.1.7": (
        grafts(
            hostile_trees.symlink(["ivy", "double"], "/var/lib/ivy/data"),
            hostile_trees.file(["ivy", "double", CANARY]),
        ),
        "objects that git does not accept",
    ),
    "9.1.8": (hostile_trees.submodule(["ivy", "module"]), "is not a regular file (mode 160000)"),
    "9.1.9": (hostile_trees.bomb(["ivy", "bomb"]), "more files than a release may have"),
}


@pytest.fixture(scope="module")
def site(
    bed: Bed, installed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[UpdateSite, None, None]:
    directory = tmp_path_factory.mktemp("hostile")
    node = bed.node("n1", base=installed)
    node.boot()
    with closing(with_tenta(bed, node, directory)) as site:
        site.connect()
        yield site
    node.destroy()


@pytest.fixture(autouse=True)
def unharmed(site: UpdateSite) -> Generator[None, None, None]:
    """Whatever a test does: nothing was executed or left behind."""
    yield
    node = site.node
    node.wait_for(lambda: unit_property(node, "ivy-updater", "SubState") == "dead", 30, "the pass to end")
    found = site.node.run(["find", "/", "-xdev", "-name", f"{CANARY}*", "-o", "-path", "/proc", "-prune"]).stdout
    assert CANARY not in found
    assert site.node.run(["find", "/var/lib/ivy", "-perm", "/6000"]).stdout == ""
    assert site.node.run(["find", "/var/lib/ivy", "-maxdepth", "1", "-name", "*.new"]).stdout == ""
    assert site.node.run(["pgrep", "--uid", "ivy-updater"], check=False).stdout == ""
    site.wait_for_samples()


@pytest.mark.parametrize("version", TREES)
def test_a_release_with_a_hostile_tree_is_rejected(site: UpdateSite, version: str) -> None:
    graft, reason = TREES[version]
    site.release(version, graft=graft)
    assert reason in site.rejects(version)


def test_a_release_whose_directory_is_a_link_is_rejected(site: UpdateSite) -> None:
    """The config would be written there."""
    site.release("9.1.5", remove("config"), graft=hostile_trees.symlink(["config"], "../data"))
    assert "config is a link that leads out" in site.rejects("9.1.5")


def test_a_gigabyte_of_zeros_is_rejected(site: UpdateSite) -> None:
    site.release("9.2.0", add_zeros("ivy/zeros", GIGABYTE))
    assert "more than a release may have" in site.rejects("9.2.0")


def test_a_setuid_program_is_a_plain_file(site: UpdateSite) -> None:
    site.release("9.2.1", graft=hostile_trees.file(["ivy", "program"], "#!/bin/sh\n", hostile_trees.SET_USER_ID))
    site.accepts("9.2.1")
    assert site.node.path("/var/lib/ivy/current/ivy/program").stat().st_mode & 0o7777 == 0o755
    site.accepts(THIS)


def test_a_renamed_tag_is_rejected(site: UpdateSite) -> None:
    site.release("9.3.0", tag_version="9.2.9")
    assert "is a renamed 'v9.2.9'" in site.rejects("9.3.0")


@pytest.mark.parametrize("version", [f"9.2.3{EXECUTE}", "../../etc", "--upload-pack=x", "9.2.3\n"])
def test_a_version_that_is_none_is_rejected(site: UpdateSite, version: str) -> None:
    revision = site.offer(version)
    assert not site.decision(revision)
    assert CANARY not in site.wait_for_log("general.software_version", "must look like")


def test_an_offer_chooses_the_repository_but_neither_commands_nor_signers(
    site: UpdateSite, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site.accepts(updater={"repository": f"university/ivy{EXECUTE}"})  # the predecessor's schema took that, too
    assert "updater.repository: must look like" in site.rejects("9.4.0")
    evil = ReleaseMaker(site.git.repository("evil/ivy"), tmp_path_factory.mktemp("evil"))
    evil.release("6.6.6", signer=site.foreign)
    evil.release("6.6.7")
    site.accepts(updater={"repository": "evil/ivy"})
    assert "is signed by nobody who may" in site.rejects("6.6.6")
    assert "is not signed" in site.rejects("6.6.7")
    assert "only the admin may loosen this" in site.rejects(updater={"require_signed_tags": False})
    # Not even together with the version that would profit.
    assert "only the admin may loosen this" in site.rejects("6.6.7", updater={"require_signed_tags": False})
    site.accepts(updater={"repository": REPOSITORY})


def test_a_private_repository_needs_the_token(site: UpdateSite, tmp_path_factory: pytest.TempPathFactory) -> None:
    public = {name: site.config()["updater"].get(name) for name in ("repository", "provider", "provider_host")}
    ReleaseMaker(site.git.repository(PRIVATE_REPOSITORY), tmp_path_factory.mktemp("private")).release(
        "9.4.5", signer=site.trusted
    )
    private = {"repository": PRIVATE_REPOSITORY, "provider": "gitlab", "provider_host": "gitlab.com"}
    site.accepts(updater={**private, "access_token": "a-wrong-token"})
    reason = site.rejects("9.4.5")
    assert "refuses the login" in reason and "a-wrong-token" not in reason
    site.accepts(updater={"access_token": TOKEN})
    site.accepts("9.4.5")
    site.accepts(THIS, updater={**public, "access_token": None})


def test_the_tests_of_a_release_can_do_no_harm(site: UpdateSite) -> None:
    harm = (RELEASE_TESTS / "harm.py").read_text().replace("BROKER_ADDRESS", site.platform.address)
    site.release("9.5.0", write("tests/release/test_zz_harm.py", harm))
    # The last of them: what it starts leaves no room for others.
    processes = _main_processes(site.node)
    reason = site.rejects("9.5.0")
    assert "harm done: []" in reason
    assert _main_processes(site.node) == processes


def test_the_tests_of_a_release_that_never_end_are_ended(site: UpdateSite) -> None:
    drop_in = site.node.path("/etc/systemd/system") / "ivy_sandbox-test.service.d" / "short.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Service]\nRuntimeMaxSec={SECONDS_TO_TEST}\n")
    site.node.run(["systemctl", "daemon-reload"])
    never_ends = (RELEASE_TESTS / "never_ends.py").read_text()
    site.release("9.6.0", write("tests/release/test_never_ends.py", never_ends))
    assert "the tests of version 9.6.0 failed" in site.rejects("9.6.0")
    assert "ivy_sandbox-test.service: Service reached runtime time limit" in site.node.journal(
        "--unit=ivy_sandbox-test"
    )


def test_root_follows_no_link_of_a_compromised_service(site: UpdateSite) -> None:
    known = {name: site.node.path(name).read_text() for name in ("/etc/passwd", "/var/lib/ivy/updates.json")}
    names = sorted(path.name for path in site.node.path("/var/lib/ivy").iterdir())
    _as_service(
        site.node,
        "cd /var/lib/ivy/data",
        "rm -f state.json && ln -s /etc/passwd state.json",
        "mv messages kept && ln -s /var/lib/ivy messages",
        "rm -f /run/ivy/announced && ln -s /var/lib/ivy/updates.json /run/ivy/announced",
        "rm -f /run/ivy/link.json && mkfifo /run/ivy/link.json",
        "mkdir -m 000 /run/ivy/pending-config",
    )
    site.node.wait_for(lambda: not site.node.path("/run/ivy/pending-config").exists(), 30, "the flag to be taken")
    site.node.wait_for(lambda: unit_property(site.node, "ivy-updater", "SubState") == "dead", 30, "the pass to end")
    _as_service(site.node, "cd /var/lib/ivy/data", "rm messages && mv kept messages")
    assert {name: site.node.path(name).read_text() for name in known} == known
    assert sorted(path.name for path in site.node.path("/var/lib/ivy").iterdir()) == names
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
    site.accepts(dummy_procedure={"seconds_between_datapoints": 1})


def test_the_admins_commands_follow_none_either(site: UpdateSite) -> None:
    empty = site.node.path("/root") / "empty"
    empty.touch()
    _as_service(
        site.node,
        "cd /var/lib/ivy/data",
        "mv messages kept && ln -s /root messages",
        "rm -f /run/ivy/announced && ln -s /root/empty /run/ivy/announced",
        "rm -f state.json && ln -s /root/empty state.json",
    )
    site.apply(site.config(dummy_procedure={"seconds_between_datapoints": 3}))
    _as_service(site.node, "cd /var/lib/ivy/data", "rm messages && mv kept messages")
    assert empty.read_text() == ""
    assert not list(site.node.path("/root").glob("*.csv"))
    site.accepts(dummy_procedure={"seconds_between_datapoints": 1})


def test_a_pass_that_fails_again_and_again_is_not_started_at_once(site: UpdateSite) -> None:
    """Although there still is what it was started for."""
    before, began = int(unit_property(site.node, "ivy-updater", "NRestarts")), time.monotonic()
    _as_service(site.node, "ln -sf nowhere /var/lib/ivy/data/state.lock", "touch /run/ivy/pending-config")

    def is_tried_again() -> bool:
        return int(unit_property(site.node, "ivy-updater", "NRestarts")) >= before + 2

    site.node.wait_for(is_tried_again, 60, "two more tries")
    assert time.monotonic() - began > 2 * SECONDS_BETWEEN_TRIES
    _as_service(site.node, "rm /var/lib/ivy/data/state.lock")
    site.node.wait_for(lambda: not site.node.path("/run/ivy/pending-config").exists(), 60, "a pass that succeeds")


def _as_service(node: Node, *commands: str) -> None:
    user = ["setpriv", "--reuid=ivy", "--regid=ivy", "--clear-groups"]
    node.run([*user, "sh", "-ec", "\n".join(commands)])


def _main_processes(node: Node) -> Sequence[str]:
    units = ("ivy-dummy-procedure", "ivy-system-checks", "ivy-tenta")
    return [unit_property(node, unit, "MainPID") for unit in units]
