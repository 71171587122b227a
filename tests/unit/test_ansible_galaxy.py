"""What is published with the collection `ivy.fleet`: its license, and a changelog of the version that it has."""

import re

from tests.support.ansible_plugin import COLLECTION


def test_the_license_goes_with_it_and_is_that_of_ivy() -> None:
    license_ = COLLECTION / "LICENSE"
    assert license_.read_text() == (COLLECTION.parents[1] / "LICENSE").read_text()
    assert "LICENSE" not in (COLLECTION / "galaxy.yml").read_text().partition("build_ignore")[2]


def test_its_changelog_begins_with_its_version() -> None:
    version = re.findall(r"(?m)^version: (.+)$", (COLLECTION / "galaxy.yml").read_text())
    assert version == re.findall(r"(?m)^## (.+)$", (COLLECTION / "CHANGELOG.md").read_text())[:1]
