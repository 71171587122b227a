"""The test bed's git server, and the releases it serves, seen from a node: what tests of updates build upon."""

import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from testbed.bed import Bed, Node
from testbed.git_server import GitServer, map_hosts

from tests.node import hostile_trees
from tests.support import releases
from tests.support.releases import ReleaseMaker
from tests.support.signers import Signer, allowed_signers

PUBLIC = "https://github.com/university/ivy.git"
PRIVATE = "https://gitlab.com/university/secret.git"
TOKEN = "a-token-for-tests"
SOURCE = "/root/source.git"
SIGNERS = "/root/allowed_signers"
MOST_BYTES = 20_000  # for a change of one file
STALLED_SECONDS = 2
SECONDS_OF_PATIENCE = 60  # a busy machine packs for a while before it sends
ENVIRONMENT = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


@dataclass(frozen=True)
class Site:
    """A node, the server it fetches from, and those who make releases there."""

    node: Node
    server: GitServer
    maker: ReleaseMaker
    secrets: ReleaseMaker
    trusted: Signer
    foreign: Signer

    def fetch(self, version: str, url: str = PUBLIC, **env: str) -> subprocess.CompletedProcess[str]:
        """What an updater would do, into a repository that keeps what was fetched before."""
        tag = f"+refs/tags/v{version}:refs/tags/v{version}"
        bounded = ["-c", f"http.lowSpeedTime={SECONDS_OF_PATIENCE}", "-c", "http.lowSpeedLimit=1000"]
        strict = ["-c", "transfer.fsckObjects=true"]
        command = ["git", "-C", SOURCE, *bounded, *strict, "fetch", "--quiet", "--no-tags", "--depth=1", url, tag]
        return self.node.run(command, check=False, env={**ENVIRONMENT, **env})

    def verify(self, version: str) -> subprocess.CompletedProcess[str]:
        settings = ["-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={SIGNERS}"]
        command = ["git", "-C", SOURCE, *settings, "verify-tag", f"refs/tags/v{version}"]
        return self.node.run(command, check=False, env=ENVIRONMENT)

    def show(self, version: str, name: str) -> str:
        """A file of a fetched release."""
        return self.node.run(["git", "-C", SOURCE, "show", f"v{version}:{name}"]).stdout


@pytest.fixture(scope="module")
def site(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Generator[Site, None, None]:
    directory = tmp_path_factory.mktemp("site")
    trusted, another, foreign = (Signer.make(directory, name) for name in ("trusted", "another", "foreign"))
    server = GitServer(
        bed.address,
        directory=directory / "served",
        public=["university/ivy"],
        private=["university/secret"],
        token=TOKEN,
    )
    with server:
        maker = ReleaseMaker(server.repository("university/ivy"), directory / "maker")
        secrets = ReleaseMaker(server.repository("university/secret"), directory / "secrets")
        node = bed.node("fetcher")
        node.boot()
        node.run(["apt-get", "install", "--yes", "git", "openssh-client"], timeout=300)
        node.run(["git", "init", "--quiet", "--bare", SOURCE])
        node.path(SIGNERS).write_text(allowed_signers([another, trusted]))
        map_hosts(node, server)
        yield Site(node, server, maker, secrets, trusted, foreign)
        node.destroy()


@pytest.fixture
def served(site: Site) -> Site:
    """The same with one signed release to fetch."""
    site.maker.release("9.1.0", signer=site.trusted)
    return site


def test_a_release_states_its_version_everywhere(site: Site) -> None:
    new = releases.write("ivy/new.py", "NEW = 1\n")
    site.maker.release("9.2.0-rc.3", releases.edits(check_versions, new), signer=site.trusted)
    assert site.fetch("9.2.0-rc.3").returncode == 0
    assert 'VERSION: Version = Version("9.2.0-rc.3")' in site.show("9.2.0-rc.3", "ivy/constants.py")
    assert site.show("9.2.0-rc.3", "ivy/new.py") == "NEW = 1\n"


def check_versions(tree: Path) -> None:
    """By the project's own tests; they find a statement that was forgotten."""
    tests = ["tests/unit/test_constants.py", "-k", "names_the_same_version"]
    options = ["-q", "-p", "no:cacheprovider", f"--rootdir={tree}"]
    command = [sys.executable, "-B", "-m", "pytest", *options, *tests]
    subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)


def test_only_tags_of_trusted_signers_are_good(served: Site) -> None:
    served.maker.release("9.3.0", signer=served.foreign)
    served.maker.release("9.4.0")
    commit = served.maker.release("9.5.0", signer=served.trusted, tag_version="9.9.9")
    served.maker.lightweight_tag("9.6.0", commit)
    for version in ("9.1.0", "9.3.0", "9.4.0", "9.5.0", "9.6.0"):
        assert served.fetch(version).returncode == 0
    good = served.verify("9.1.0")
    assert (good.returncode, good.stderr[:38]) == (0, 'Good "git" signature for trusted with '), good.stderr
    for version, reason in [
        ("9.3.0", "No principal matched"),
        ("9.4.0", "no signature found"),
        ("9.6.0", "cannot verify a non-tag object"),
    ]:
        bad = served.verify(version)
        assert bad.returncode == 1
        assert reason in bad.stderr
    assert served.verify("9.5.0").returncode == 0, "git does not compare the tag's own name with its ref"
    tag = served.node.run(["git", "-C", SOURCE, "cat-file", "tag", "refs/tags/v9.5.0"]).stdout
    assert tag.splitlines()[:3] == [f"object {commit}", "type commit", "tag v9.9.9"]


def test_a_private_repository_wants_the_token(site: Site) -> None:
    site.secrets.release("9.1.0", signer=site.trusted)
    site.node.path("/root/askpass").write_text('#!/bin/sh\necho "$ANSWER"\n')
    site.node.path("/root/askpass").chmod(0o755)
    assert "could not read Username" in site.fetch("9.1.0", PRIVATE).stderr
    # The same answer to both questions would be another user's name: GitHub's and ours must be one of a few.
    user = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "credential.username", "GIT_CONFIG_VALUE_0": "oauth2"}
    refused = site.fetch("9.1.0", PRIVATE, GIT_ASKPASS="/root/askpass", ANSWER=TOKEN + "?", **user)
    assert "Authentication failed" in refused.stderr
    allowed = site.fetch("9.1.0", PRIVATE, GIT_ASKPASS="/root/askpass", ANSWER=TOKEN, **user)
    assert (allowed.returncode, allowed.stderr) == (0, "")
    assert site.fetch("9.1.0", PRIVATE).returncode != 0


def test_a_change_of_one_file_costs_few_bytes(served: Site) -> None:
    assert served.fetch("9.1.0").returncode == 0
    change = releases.append("ivy/procedures/dummy_procedure.py", "\n# another release\n")
    served.maker.release("9.1.1", change, signer=served.trusted)
    before = served.server.bytes_transferred()
    assert served.fetch("9.1.1").returncode == 0
    cost = served.server.bytes_transferred() - before
    print(f"{cost} bytes")
    assert 1_000 < cost <= MOST_BYTES
    assert served.server.bytes_transferred() - before == cost, "asking costs nothing"


def test_the_server_goes_away_stalls_and_comes_back(served: Site) -> None:
    served.server.stop()
    assert "Failed to connect" in served.fetch("9.1.0").stderr
    served.server.start()
    assert served.fetch("9.1.0").returncode == 0
    served.server.pause()
    began = time.monotonic()
    stalled = served.fetch("9.1.0", GIT_HTTP_LOW_SPEED_TIME=str(STALLED_SECONDS))
    served.server.resume()
    assert "Operation too slow" in stalled.stderr
    assert time.monotonic() - began >= STALLED_SECONDS
    assert served.fetch("9.1.0").returncode == 0


def test_a_tag_or_a_repository_that_is_not_there_is_told_apart(served: Site) -> None:
    assert "couldn't find remote ref refs/tags/v0.0.9" in served.fetch("0.0.9").stderr
    assert "could not read Username" in served.fetch("9.1.0", "https://github.com/university/none.git").stderr


@pytest.mark.parametrize(
    ("version", "graft", "finding"),
    [
        ("2.0.0", hostile_trees.file(["..", "..", "escaped"]), "hasDotdot"),
        ("2.0.1", hostile_trees.file([".git", "hooks", "post-checkout"]), "hasDotgit"),
        ("2.0.2", hostile_trees.file(["/tmp/escaped"]), "fullPathname"),
        ("2.0.3", releases.grafts(*hostile_trees.link_and_directory("both", "/tmp", "in")), "duplicateEntries"),
    ],
)
def test_trees_that_git_refuses_when_asked_to_look(
    site: Site, version: str, graft: releases.Graft, finding: str
) -> None:
    site.maker.release(version, signer=site.trusted, graft=graft)
    assert finding in site.fetch(version).stderr


def test_trees_that_git_finds_nothing_wrong_with(site: Site) -> None:
    hostile = releases.grafts(
        hostile_trees.symlink(["absolute"], "/etc/passwd"),
        *hostile_trees.symlink_chain(),
        hostile_trees.submodule(["module"]),
        hostile_trees.file(["ivy", "privileged"], mode=hostile_trees.SET_USER_ID),
    )
    site.maker.release("2.1.0", signer=site.trusted, graft=hostile)
    assert site.fetch("2.1.0").returncode == 0
    listed = site.node.run(["git", "-C", SOURCE, "ls-tree", "-r", "--format=%(objectmode) %(path)", "v2.1.0"])
    expected = {"120000 absolute", "120000 first", "120000 second", "120000 third/fourth", "160000 module"}
    assert expected <= set(listed.stdout.splitlines())
    assert "100755 ivy/privileged" in listed.stdout, "git itself drops the set-user-id bit"


def test_many_zeros_are_served_though_they_take_little_room_here(site: Site) -> None:
    size = 64 << 20
    site.maker.release("2.2.0", releases.add_zeros("zeros", size), signer=site.trusted)
    assert site.fetch("2.2.0").returncode == 0
    assert site.node.run(["git", "-C", SOURCE, "cat-file", "-s", "v2.2.0:zeros"]).stdout.strip() == str(size)
    assert bytes_below(site.server.repository("university/ivy")) < 8 << 20


def bytes_below(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
