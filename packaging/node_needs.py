"""Prints what a node needs beyond what ivy itself needs, by [tool.ivy] of pyproject.toml; for debian/rules.

node_needs.py depends: packages, for a field of debian/control; node_needs.py sysusers: groups, for sysusers.d(5).
"""

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TITLE = "# What the procedures of this version need, by pyproject.toml.\n"


def read(field: str, project: Path = PROJECT) -> list[str]:
    """The names in a field, sorted."""
    content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return sorted(content.get("tool", {}).get(content["project"]["name"], {}).get(field, []))


def main() -> None:
    if sys.argv[1:] == ["depends"]:
        print(", ".join(read("debian")))
    elif sys.argv[1:] == ["sysusers"]:
        print(TITLE + "".join(f"g {name} -\n" for name in read("groups")), end="")
    else:
        sys.exit("usage: node_needs.py depends | sysusers")


if __name__ == "__main__":
    main()
