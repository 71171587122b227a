"""What the source of versions is asked, and how its answers are judged. Fetching itself is seen on real nodes."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy.types.config import UpdaterConfig
from ivy.utils.host.commands import CommandError
from ivy.utils.updates import source
from ivy.utils.updates.errors import NetworkTrouble, Refused, Rejected
from ivy.utils.updates.source import Source
from ivy.version import Version
from tests.support.helpers import UPDATER, Node

VERSION = Version("1.2.3")


@pytest.fixture(autouse=True)
def path(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake programs are found first."""
    monkeypatch.setenv("PATH", node.environment["PATH"])


def settings(**changed: Any) -> UpdaterConfig:
    """Where versions come from; whatever the schema says."""
    return UpdaterConfig.model_construct(**{**UpdaterConfig.model_validate(UPDATER).model_dump(), **changed})


@pytest.mark.parametrize(
    ("host", "repository", "url"),
    [
        ("github.com", "org/name", "https://github.com/org/name.git"),
        ("github.com", "org/name.git", "https://github.com/org/name.git"),
        (
            "gitlab.example.org:8443",
            "group/sub-group/na_me.x",
            "https://gitlab.example.org:8443/group/sub-group/na_me.x.git",
        ),
        ("10.0.0.1", "o/n", "https://10.0.0.1/o/n.git"),
    ],
)
def test_addresses(tmp_path: Path, node: Node, host: str, repository: str, url: str) -> None:
    node.fake("systemd-run", {})
    Source(settings(provider_host=host, repository=repository), tmp_path).list_tags()
    assert node.calls()[-1].endswith(f" -- {url}")


@pytest.mark.parametrize(
    "repository",
    [
        "",
        "name",
        "org/",
        "/org/name",
        "org//name",
        "../../etc",
        "org/../name",
        "org/.name",
        "-org/name",
        "--upload-pack=touch/x",
        "org/--upload-pack",
        "org/name;touch x",
        "org/name touch",
        "org/$(touch x)",
        "org/`touch x`",
        "org/name\n",
        "org/name\n--upload-pack=x",
        "org/name\0",
        "org/name?a=b",
        "ext::sh -c touch% x",
        "file:///srv/name",
        "fd::7/name",
        "ssh://-oProxyCommand=x/name",
        "--template=/tmp/name",
        "org/name#a",
        "org/name@evil",
        "org/n%2e%2e",
        "örg/name",
    ],
)
def test_a_repository_that_is_none_is_rejected_before_anything_runs(
    tmp_path: Path, node: Node, repository: str
) -> None:
    node.fake("systemd-run", {})
    with pytest.raises(Rejected, match=r"updater\.repository: must look like"):
        Source(settings(repository=repository), tmp_path).fetch(VERSION)
    assert node.calls() == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "host",
    [
        "",
        "-oProxyCommand=x",
        "github.com/evil",
        "user@github.com",
        "token:x@github.com",
        "github.com:",
        "github.com:x",
        "github.com:123456",
        "github.com\n",
        "git hub.com",
        "$(id).com",
        "file:///etc",
        "ext::sh -c x",
        "[::1]",
        ".github.com",
    ],
)
def test_a_host_that_is_none_is_rejected_before_anything_runs(tmp_path: Path, node: Node, host: str) -> None:
    node.fake("systemd-run", {})
    with pytest.raises(Rejected, match=r"updater\.provider_host: must be the name of a host"):
        Source(settings(provider_host=host), tmp_path).fetch(VERSION)
    assert node.calls() == [] and list(tmp_path.iterdir()) == []


# What git 2.39 and 2.47 have said, with LC_ALL=C.
REFUSALS = {
    "fatal: couldn't find remote ref refs/tags/v1.2.3": "there is no such tag",
    "fatal: could not read Username for 'https://github.com': terminal prompts disabled": "wants a login",
    "fatal: unable to access 'https://github.com/org/name.git/': The requested URL returned error: 403": "(403)",
    "remote: Repository not found.\nfatal: repository 'https://g/o/n.git/' not found": "no such repository",
    "error: RPC failed; HTTP 404 curl 22 The requested URL returned error: 404": "no such repository",
    "fatal: https://g/o/n.git/info/refs not valid: is this a git repository?": "no git server",
}
DECISIONS = {
    "fatal: Authentication failed for 'https://github.com/org/name.git/'": "refuses the login",
    "fatal: unable to access 'https://github.com/o/n.git/': The requested URL returned error: 301": "has moved",
    "fatal: unable to access 'https://github.com/o/n.git/': Protocol \"http\" disabled": "not encrypted",
}
TROUBLES = [
    "fatal: unable to access 'https://github.com/org/name.git/': Could not resolve host: github.com",
    "fatal: unable to access 'https://g/o/n.git/': Failed to connect to github.com port 443 after 1 ms",
    "fatal: unable to access 'https://github.com/org/name.git/': The requested URL returned error: 503",
    "fatal: unable to access 'https://github.com/org/name.git/': The requested URL returned error: 429",
    "fatal: unable to access 'https://g/o.git/': Operation too slow. Less than 10 bytes/sec transferred the",
    "error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF",
    "fatal: the remote end hung up unexpectedly",
    "fetch-pack: unexpected disconnect while reading sideband packet",
    "",
]
DAMAGES = ["fatal: bad object refs/tags/v1.0.0", "fatal: not a git repository: '/var/lib/ivy/source.git'"]


@pytest.mark.parametrize(("said", "decision"), [*DECISIONS.items(), *REFUSALS.items()])
def test_what_is_a_decision_about_the_offer(said: str, decision: str) -> None:
    judgement = source.judge_failure(CommandError("x", 128, said), "v1.2.3 of url")
    assert isinstance(judgement, Rejected) and isinstance(judgement, Refused) == (said in REFUSALS)
    assert str(judgement).startswith("v1.2.3 of url: ") and decision in str(judgement)


@pytest.mark.parametrize("said", TROUBLES)
def test_what_is_trouble_of_the_network(said: str) -> None:
    assert isinstance(source.judge_failure(CommandError("x", 128, said), "v"), NetworkTrouble)


@pytest.mark.parametrize("said", DAMAGES)
def test_what_is_damage_of_the_nodes_own_copy(said: str) -> None:
    assert source.judge_failure(CommandError("x", 128, said), "v") is None


def line(path: str, mode: str = "100644", size: str = "7") -> str:
    """A line of `git ls-tree -l -z`."""
    return f"{mode} blob {'0' * 40} {size:>7}\t{path}\0"


@pytest.fixture
def repository(tmp_path: Path, node: Node) -> Source:
    """A source whose git lists what stands in a file."""
    node.fake("systemd-run", {"*ls-tree*": f"cat {tmp_path}/listing", "*for-each-ref*": "echo commit 1234"})
    return Source(settings(), tmp_path)


@pytest.fixture
def unpack(
    repository: Source, tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[str]]:
    """Unpacks a version with such a listing. Returns the names that git is told to unpack."""
    monkeypatch.setattr(os, "chown", lambda *_arguments, **_how: None)

    def unpack(listing: str) -> list[str]:
        (tmp_path / "listing").write_text(listing)
        (tmp_path / ".source.git.new").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as directory:
            repository.unpack(VERSION, Path(directory, "release"))
        return [call for call in node.calls() if " checkout " in call][-1].rpartition(" -- ")[2].split()

    return unpack


def test_the_parts_of_a_release_are_unpacked_and_nothing_else(unpack: Callable[[str], list[str]]) -> None:
    names = ["ivy/a.py", "ivy/b.py", "pyproject.toml", "README.md", ".github/x", "ivy.py", "config"]
    listing = "".join(map(line, names))
    assert unpack(listing) == ["config", "ivy", "pyproject.toml"]
    # What is not unpacked may be anything.
    assert unpack(line("docs/module", "160000", "-") + line("ivy/a.py")) == ["ivy"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (line("ivy/module", "160000", "-"), r"'ivy/module', which is not a regular file \(mode 160000\)"),
        (line("ivy/strange", "100664"), "which is not a regular file"),
        (line("ivy/../../x"), "holds the path"),
        (line("ivy/./x"), "holds the path"),
        (line("ivy//x"), "holds the path"),
        (line("ivy/.git/hooks/x"), "holds the path"),
        (line("ivy/.git"), "holds the path"),
        (line("ivy/zeros", size=str(10**9)), "1 files with 1000000000 bytes"),
        (line("ivy/" + "\n" * 500, "160000"), "which is not a regular file"),
    ],
)
def test_what_a_release_cannot_have_is_rejected(
    unpack: Callable[[str], list[str]], entry: str, reason: str
) -> None:
    with pytest.raises(Rejected, match=reason) as caught:
        unpack(entry)
    assert len(str(caught.value)) < 1500


def test_too_many_files_are_rejected(unpack: Callable[[str], list[str]]) -> None:
    with pytest.raises(Rejected, match="20001 files"):
        unpack("".join(line(f"ivy/{number}") for number in range(20_001)))


def test_a_listing_without_end_is_rejected(unpack: Callable[[str], list[str]]) -> None:
    with pytest.raises(Rejected, match="more files than"):
        unpack(line("docs/" + "x" * 900) * 9_000)


def test_the_token_is_neither_argument_nor_environment_and_for_one_host(tmp_path: Path, node: Node) -> None:
    read = f'for each; do case $each in *LoadCredential=token:*) cat "${{each#*:}}" >{tmp_path}/read ;; esac; done'
    node.fake("systemd-run", {"*fetch*": read})
    with pytest.raises(NetworkTrouble, match="git was stopped"):
        Source(settings(access_token="hidden-token", require_signed_tags=False), tmp_path).fetch(VERSION)
    assert (tmp_path / "read").read_text() == "hidden-token"
    call = "".join(node.calls())
    assert "hidden-token" not in call
    assert "credential.https://github.com.helper=!" in call and "http.followRedirects=false" in call
    assert "GIT_ALLOW_PROTOCOL=https " in call


def test_without_a_token_nobody_is_asked_for_one(tmp_path: Path, node: Node) -> None:
    node.fake("systemd-run", {"*list*": "echo 1 refs/tags/v1.2.3"})
    assert Source(settings(access_token=None), tmp_path).list_tags() == [VERSION]
    [call] = node.calls()
    assert "LoadCredential" not in call and "helper=!" not in call and "http.followRedirects=initial" in call


TAG = "object {id}\ntype commit\ntag {name}\ntagger A <a@b> 1 +0000\n\nivy\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("v1.2.2", "is a renamed 'v1.2.2'"), ("", "is a renamed ''"), ("v1.2.3 ", "is a renamed 'v1.2.3 '")],
)
def test_a_tag_that_speaks_of_another_version_is_rejected(
    tmp_path: Path, node: Node, name: str, reason: str
) -> None:
    (tmp_path / "tag").write_text(TAG.format(id="0" * 40, name=name))
    node.fake("systemd-run", {"*for-each-ref*": "echo tag 1234", "*cat-file*": f"cat {tmp_path}/tag"})
    with pytest.raises(Rejected, match=reason):
        Source(settings(require_signed_tags=False), tmp_path).check_signature(VERSION)


def test_a_git_that_was_stopped_has_verified_nothing(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd takes the end by a SIGTERM for a success."""
    monkeypatch.setattr(source, "ALLOWED_SIGNERS", tmp_path / "tag")
    (tmp_path / "tag").write_text(TAG.format(id="0" * 40, name="v1.2.3"))
    node.fake("systemd-run", {"*for-each-ref*": "echo tag 1234", "*cat-file*": f"cat {tmp_path}/tag"})
    with pytest.raises(Rejected, match="could not be verified"):
        Source(settings(), tmp_path).check_signature(VERSION)


def test_a_version_need_not_be_signed_only_where_the_config_says_so(tmp_path: Path, node: Node) -> None:
    node.fake("systemd-run", {"*for-each-ref*": "echo commit 1234"})
    Source(settings(require_signed_tags=False), tmp_path).check_signature(VERSION)
    with pytest.raises(Rejected, match=r"nobody may sign|is not signed"):
        Source(settings(), tmp_path).check_signature(VERSION)
