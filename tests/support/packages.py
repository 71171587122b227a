"""Debian packages made of the one under test: another version, with changes. Not for releases that git serves."""

import hashlib
from pathlib import Path

from testbed.run import run

from tests.support.releases import STATEMENTS, THIS, Edit, set_version

CODE = "usr/lib/ivy"


def repacked(package: Path, directory: Path, version: str, edit: Edit = lambda _: None) -> Path:
    """The package as one of another version; where it brings a release, that is of this version, too.

    Args:
        directory: Where to make it; it is made if need be.
        edit: Changes the files of the release.
    """
    tree = directory / "tree"
    directory.mkdir(parents=True, exist_ok=True)
    run(["dpkg-deb", "--raw-extract", package, tree])
    if (tree / CODE / "ivy").is_dir():
        set_version(tree / CODE, version, [name for name in STATEMENTS if not name.startswith("debian/")])
        edit(tree / CODE)
    control = tree / "DEBIAN" / "control"
    before, after = (f"Version: 1:{each.replace('-', '~')}\n" for each in (THIS, version))
    control.write_text(control.read_text().replace(before, after))
    found = sorted(path for path in tree.glob("usr/**/*") if path.is_file() and not path.is_symlink())
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in found]
    (tree / "DEBIAN" / "md5sums").write_text("".join(sums))
    name, _, rest = package.name.split("_")
    made = directory / f"{name}_{version}_{rest}"
    run(["dpkg-deb", "--root-owner-group", "--build", tree, made])
    run(["rm", "-rf", tree])
    return made
