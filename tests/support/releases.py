"""Releases to offer to nodes: made from this checkout, changed at will, tagged, signed. Serving is not its job.

Trees that git itself would refuse to make are in `tests.node.hostile_trees`.
"""

import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeAlias

from testbed.run import run

from ivy import constants
from tests.support.signers import Signer

Edit: TypeAlias = Callable[[Path], object]  # changes the files of a release
Graft: TypeAlias = Callable[[Path, str], str]  # repository, id of a tree → id of another tree

PROJECT = Path(__file__).resolve().parents[2]
THIS = str(constants.VERSION)  # what this checkout is; releases that are offered are 9.x.y
FIRST_COMMIT = 1_795_435_200  # 2026-11-23; a later release is a minute younger
WHO = {"NAME": "a maintainer", "EMAIL": "maintainer@example.org"}
QUIET = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}

# Where the project states its version, and how; %s is the version.
STATEMENTS = {
    "ivy/constants.py": r'(?m)^(VERSION: Version = Version\(")[^"]*',
    "pyproject.toml": r'(?m)^(version = ")[^"]*',
    "config/config.template.json": r'("software_version": ")[^"]*',
    "debian/changelog": r"\A(ivy \(1:)[^)]*",
}


class ReleaseMaker:
    """Makes releases in the bare `repository`; `directory` is for its own files, and is made if need be.

    Every release is this checkout (its tracked files as they are now) with another version and an edit of its
    own; in the history it follows the release made before.
    """

    def __init__(self, repository: Path, directory: Path) -> None:
        self.repository = repository
        self._checkout = directory / "checkout"
        self._tree = directory / "tree"
        self._index = directory / "index"
        self._made = 0
        self._parent: list[str] = []
        self._copy_checkout()

    def release(
        self,
        version: str,
        edit: Edit | None = None,
        *,
        signer: Signer | None = None,
        graft: Graft | None = None,
        tag_version: str | None = None,
        message: str | None = None,
    ) -> str:
        """Commit and tag a release; returns the commit's id. A tag of this name is replaced.

        Args:
            edit: Called with the release's files, whose version is changed already.
            signer: Who signs the tag; None leaves it unsigned.
            graft: Makes another tree of the one that is committed.
            tag_version: The version that the tag itself (not its ref) and thus the signature speak of.
            message: Of the commit.
        """
        self._made += 1
        tree = self._write_tree(version, edit)
        if graft:
            tree = graft(self.repository, tree)
        commit = self._git("commit-tree", tree, *self._parent, "-m", message or f"Release {version}")
        self._parent = ["-p", commit]
        self._git("update-ref", "refs/heads/main", commit)
        self._tag(version, tag_version or version, commit, signer)
        return commit

    def lightweight_tag(self, version: str, commit: str) -> None:
        """A tag that is a mere name: nothing that could be signed."""
        self._git("update-ref", f"refs/tags/v{version}", commit)

    def forge_tag(self, version: str) -> None:
        """Let a signed tag say something else than what was signed."""
        tag = self._git("cat-file", "tag", f"refs/tags/v{version}")
        forged = tag.replace(f"\nivy {version}\n", f"\nivy {version}, forged\n", 1)
        self._git("update-ref", f"refs/tags/v{version}", self._git("mktag", input=forged + "\n"))

    def _copy_checkout(self) -> None:
        tracked = run(["git", "-C", PROJECT, "ls-files", "-z"]).stdout.split("\0")
        for name in filter(None, tracked):
            target = self._checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (PROJECT / name).exists():  # not removed since
                shutil.copy2(PROJECT / name, target, follow_symlinks=False)

    def _write_tree(self, version: str, edit: Edit | None) -> str:
        shutil.rmtree(self._tree, ignore_errors=True)
        shutil.copytree(self._checkout, self._tree, symlinks=True)
        set_version(self._tree, version)
        if edit:
            edit(self._tree)
        quick = ["-c", "core.compression=1"]  # a large file is not packed as small as can be
        self._git(*quick, "--work-tree", str(self._tree), "add", "--all", "--force", ".")
        return self._git("write-tree")

    def _tag(self, version: str, inner: str, commit: str, signer: Signer | None) -> None:
        signing = ["-u", str(signer.key)] if signer else ["--no-sign"]
        self._git("-c", "gpg.format=ssh", "tag", "-f", "-a", *signing, "-m", f"ivy {inner}", f"v{inner}", commit)
        if inner != version:
            self._git("update-ref", f"refs/tags/v{version}", f"refs/tags/v{inner}")
            self._git("update-ref", "-d", f"refs/tags/v{inner}")

    def _git(self, *arguments: str, input: str | None = None) -> str:
        date = f"@{FIRST_COMMIT + 60 * self._made} +0000"
        who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in WHO.items()}
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        command = ["git", "--git-dir", str(self.repository), *arguments]
        environment = {"GIT_INDEX_FILE": str(self._index), **QUIET, **who, **dates}
        return run(command, env=environment, input=input).stdout.strip()


def set_version(tree: Path, version: str, files: Collection[str] = STATEMENTS) -> None:
    """State the version wherever the project states it, or in some of these files.

    Raises:
        ValueError: A file does not state it where it used to.
    """
    for name, pattern in STATEMENTS.items():
        if name not in files:
            continue
        # Debian sorts "~" before the end, so that a release candidate is older than its release.
        stated = version.replace("-", "~") if name.startswith("debian/") else version
        text, changed = re.subn(pattern, rf"\g<1>{stated}", (tree / name).read_text(), count=1)
        if not changed:
            raise ValueError(f"{name} states no version")
        (tree / name).write_text(text)


def edits(*steps: Edit) -> Edit:
    """Several edits as one, in this order."""
    return lambda tree: [step(tree) for step in steps]


def grafts(*steps: Graft) -> Graft:
    """Several grafts as one, in this order."""

    def all_of_them(repository: Path, tree: str) -> str:
        for step in steps:
            tree = step(repository, tree)
        return tree

    return all_of_them


def write(name: str, text: str) -> Edit:
    """An edit that writes one file."""

    def edit(tree: Path) -> None:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)

    return edit


def append(name: str, text: str) -> Edit:
    """An edit that writes to the end of a file."""
    return lambda tree: (tree / name).write_text((tree / name).read_text() + text)


def replace(name: str, old: str, new: str) -> Edit:
    """An edit that changes every `old` in a file.

    Raises (when it is applied):
        ValueError: There is no such text.
    """

    def edit(tree: Path) -> None:
        text = (tree / name).read_text()
        if old not in text:
            raise ValueError(f"no {old!r} in {name}")
        (tree / name).write_text(text.replace(old, new))

    return edit


def remove(*names: str) -> Edit:
    """An edit that removes files and directories."""

    def edit(tree: Path) -> None:
        for name in names:
            shutil.rmtree(tree / name) if (tree / name).is_dir() else (tree / name).unlink()

    return edit


def add_zeros(name: str, size: int) -> Edit:
    """An edit that adds a file of zeros: it takes no place here, and 1 GB of them takes some MB in git."""

    def edit(tree: Path) -> None:
        with (tree / name).open("wb") as file:
            file.truncate(size)

    return edit
