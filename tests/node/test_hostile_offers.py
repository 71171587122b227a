"""Offers and service users with bad intent: the node says no, and is as it was.

One node for all of them, one after the other: whatever one does to it, the next ones see.
"""

import time
from collections.abc import Generator
from contextlib import closing

import pytest
from testbed.bed import Bed, Snapshot

from tests.node.hostile_site import CANARY, as_service, assert_unharmed, open_site
from tests.support.cases import with_few
from tests.support.installed import be_synchronised, unit_property
from tests.support.releases import THIS, ReleaseMaker
from tests.support.token_trap import TokenTrap
from tests.support.update_site import (
    MOVED_TO_ANOTHER_HOST,
    MOVED_TO_HTTP,
    PRIVATE_REPOSITORY,
    REPOSITORY,
    TOKEN,
    TRAP_PORT,
    UpdateSite,
)

FLAG = "/run/ivy-backend/pending-config"
EXECUTE = f"$(touch${{IFS}}/var/lib/ivy/{CANARY})"
HUGE = 2**31 - 1
SECONDS_BETWEEN_TRIES = 5  # RestartSec= of the updater


@pytest.fixture(scope="module")
def site(
    bed: Bed, installed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[UpdateSite, None, None]:
    with open_site(bed, installed, tmp_path_factory.mktemp("hostile")) as site:
        yield site


@pytest.fixture(autouse=True)
def unharmed(site: UpdateSite) -> Generator[None, None, None]:
    yield
    assert_unharmed(site)


@pytest.mark.parametrize("version", with_few([f"9.2.3{EXECUTE}", "../../etc", "--upload-pack=x", "9.2.3\n"]))
def test_a_version_that_is_none_is_rejected(site: UpdateSite, version: str) -> None:
    revision = site.offer(version)
    assert not site.decision(revision)
    assert CANARY not in site.wait_for_log("general.software_version", "must look like")


@pytest.mark.thorough
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


def test_no_offer_changes_what_the_admin_has_locked(site: UpdateSite) -> None:
    site.apply(site.config(updater={"locked": ["backend", "archive.max_days"]}))
    reason = site.rejects(archive={"max_days": 1}, backend={"max_drain_time": 6})
    assert "backend: is locked; only the admin may change this" in reason and "archive.max_days: is" in reason
    assert "updater.locked: is locked" in site.rejects(updater={"locked": []})
    site.release("9.4.6", signer=site.trusted)
    assert "archive.max_days: is locked" in site.rejects("9.4.6", archive={"max_days": 1})
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
    site.apply(site.config(updater={"locked": []}))
    site.accepts(dummy_procedure={"seconds_between_datapoints": 1})


def test_a_config_on_trial_deletes_nothing(site: UpdateSite) -> None:
    """Eight days of the archive were gone, though it was rejected."""
    days = [f"2001-01-0{day}.csv" for day in range(1, 9)]
    as_service(
        site.node, "cd /var/lib/ivy/data/messages", *(f"echo timestamp,message_body > {day}" for day in days)
    )
    wrong = {**site.config()["backend"]["mqtt_connection"], "password": "wrong"}
    site.rejects(archive={"max_days": 1}, queue={"max_megabytes": 1}, backend={"mqtt_connection": wrong})
    found = [path.name for path in site.node.path("/var/lib/ivy/data/messages").iterdir()]
    assert set(days) <= {name.removesuffix(".gz") for name in found}, "compressed, perhaps"
    be_synchronised(site.node)  # nothing goes for its age before
    site.accepts(archive={"max_days": 1})

    def are_gone() -> bool:
        return not any(site.node.path("/var/lib/ivy/data/messages").glob("2001-*"))

    site.node.wait_for(are_gone, 120, "an accepted config to be obeyed")
    be_synchronised(site.node, is_it=False)
    site.accepts(archive={"max_days": None})


@pytest.mark.thorough
def test_no_revision_makes_the_node_deaf(site: UpdateSite) -> None:
    """Rejected or accepted, and sent again at each connect."""
    before, site.revision = site.revision, HUGE - 2
    site.rejects(dummy_procedure={"seconds_between_datapoints": 0})
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
    assert site.revision == HUGE
    site.revision = before
    assert "is not higher than" in site.rejects(dummy_procedure={"seconds_between_datapoints": 1})
    site.accepts(dummy_procedure={"seconds_between_datapoints": 1})


@pytest.mark.thorough
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


@pytest.mark.parametrize("moved", with_few([MOVED_TO_HTTP, MOVED_TO_ANOTHER_HOST]))
@pytest.mark.thorough
def test_the_token_does_not_follow_a_repository_that_has_moved(site: UpdateSite, moved: str) -> None:
    """The other host would take it: it is the one of the test before."""
    with closing(TokenTrap(site.git.address, TRAP_PORT)) as trap:
        site.accepts(updater={"repository": moved, "access_token": TOKEN})
        assert "has moved, and a token is not sent after it" in site.rejects("9.4.5")
        site.accepts(updater={"access_token": None})
        if moved == MOVED_TO_HTTP:
            assert "is not encrypted" in site.rejects("9.4.5")
        else:
            site.offer("9.4.5")
            site.wait_for_log("Cannot fetch the source of version 9.4.5", "wants a login", timeout=90)
    assert (trap.asked, trap.caught) == ([], [])
    site.accepts(updater={"repository": REPOSITORY})


def test_root_follows_no_link_of_a_compromised_service(site: UpdateSite) -> None:
    known = {name: site.node.path(name).read_text() for name in ("/etc/passwd", "/var/lib/ivy/updates.json")}
    names = sorted(path.name for path in site.node.path("/var/lib/ivy").iterdir())
    as_service(
        site.node,
        "cd /var/lib/ivy/data",
        "rm -f state.json && ln -s /etc/passwd state.json",
        "mv messages kept && ln -s /var/lib/ivy messages",
        "rm -f /run/ivy/link.json && mkfifo /run/ivy/link.json",
        "mkdir -m 000 /run/ivy/pending-config",
    )
    as_service(
        site.node,
        "rm -f /run/ivy-backend/link.json && mkfifo /run/ivy-backend/link.json",
        "ln -sf /etc/passwd /var/lib/ivy/backend/state.json",
        "mkdir -m 000 /run/ivy-backend/pending-config",
        user="ivy-backend",
    )
    site.node.wait_for(lambda: not site.node.path(FLAG).exists(), 30, "the flag to be taken")
    site.node.wait_for(lambda: unit_property(site.node, "ivy-updater", "SubState") == "dead", 30, "the pass to end")
    as_service(site.node, "cd /var/lib/ivy/data", "rm messages && mv kept messages")
    assert {name: site.node.path(name).read_text() for name in known} == known
    assert sorted(path.name for path in site.node.path("/var/lib/ivy").iterdir()) == names
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
    site.accepts(dummy_procedure={"seconds_between_datapoints": 1})


@pytest.mark.thorough
def test_the_admins_commands_follow_none_either(site: UpdateSite) -> None:
    empty = site.node.path("/root") / "empty"
    empty.touch()
    as_service(
        site.node,
        "cd /var/lib/ivy/data",
        "mv messages kept && ln -s /root messages",
        "rm -f state.json && ln -s /root/empty state.json",
    )
    as_service(site.node, "ln -sf /root/empty /var/lib/ivy/backend/state.json", user="ivy-backend")
    site.apply(site.config(dummy_procedure={"seconds_between_datapoints": 3}))
    as_service(site.node, "cd /var/lib/ivy/data", "rm messages && mv kept messages")
    assert empty.read_text() == ""
    assert not list(site.node.path("/root").glob("*.csv"))
    site.accepts(dummy_procedure={"seconds_between_datapoints": 1})


@pytest.mark.thorough
def test_a_pass_that_fails_again_and_again_is_not_started_at_once(site: UpdateSite) -> None:
    """Although there still is what it was started for. Nor does it count as a failure, which would undo a trial."""
    before, began = int(unit_property(site.node, "ivy-updater", "NRestarts")), time.monotonic()
    lock = "/var/lib/ivy/backend/state.lock"
    hold = ["flock", lock, "sleep", "infinity"]
    as_backend = ["--uid=ivy-backend", "--gid=ivy-backend"]
    site.node.run(["systemd-run", "--quiet", "--collect", *as_backend, "--unit=holder", *hold])
    is_free = ["flock", "--nonblock", lock, "true"]
    site.node.wait_for(lambda: site.node.run(is_free, check=False).returncode != 0, 20, "the lock to be held")
    as_service(site.node, f"touch {FLAG}", user="ivy-backend")

    def is_tried_again() -> bool:
        return int(unit_property(site.node, "ivy-updater", "NRestarts")) >= before + 2

    site.node.wait_for(is_tried_again, 120, "two more tries")
    assert unit_property(site.node, "ivy-updater", "Result") == "success"
    assert time.monotonic() - began > 2 * SECONDS_BETWEEN_TRIES
    site.node.run(["systemctl", "stop", "holder.service"])
    site.node.wait_for(lambda: not site.node.path(FLAG).exists(), 60, "a pass that succeeds")
