"""Others have the name, too: Debian a package, PyPI a project. What keeps them apart is in place."""

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_the_role_keeps_debians_package_away_as_the_package_does() -> None:
    of_role = PROJECT / "packaging/ansible/roles/ivy/files/not-debian"
    assert of_role.read_text() == (PROJECT / "debian/ivy.preferences").read_text()


def test_nobody_can_upload_it_to_pypi_by_mistake() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]
