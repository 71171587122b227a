"""`ivy.version`: only one form of versions, in the order of their release."""

import itertools

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivy.version import Version

IN_ORDER = [
    "0.0.1",
    "0.9.0",
    "0.10.0",
    "1.0.0-alpha.0",
    "1.0.0-alpha.2",
    "1.0.0-alpha.10",
    "1.0.0-beta.1",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1-alpha.1",
    "1.0.10",
    "1.2.0",
    "10.0.0",
]


def test_versions_are_ordered_as_they_are_released() -> None:
    versions = [Version(text) for text in IN_ORDER]
    assert sorted([*versions[5:], *versions[:5]]) == versions
    for smaller, larger in itertools.pairwise(versions):
        assert smaller < larger and smaller <= larger and larger > smaller and larger >= smaller
        assert not (larger < smaller or larger <= smaller or smaller > larger or smaller >= larger)
        assert smaller != larger


@given(st.sampled_from(IN_ORDER))
def test_equal_versions_are_neither_smaller_nor_larger(text: str) -> None:
    assert Version(text) == Version(text) and hash(Version(text)) == hash(Version(text))
    assert Version(text) <= Version(text) and Version(text) >= Version(text)
    assert not (Version(text) < Version(text) or Version(text) > Version(text))


def test_tag_and_identifier() -> None:
    version = Version("1.2.3-rc.4")
    assert (version.as_tag(), version.as_identifier(), str(version)) == ("v1.2.3-rc.4", "1.2.3-rc.4", "1.2.3-rc.4")


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.3 ", " 1.2.3", "1.2.3\n", "01.2.3", "1.2.03", "-1.2.3"),
        *("1.2.3-rc", "1.2.3-rc.", "1.2.3-rc.01", "1.2.3-gamma.1", "1.2.3rc1", "1.2.3-RC.1", "1.2.3+local"),
        *("../1.2.3", "1.2.3/..", "1.2.3\0", "\u0661.2.3", "1.2." + "3" * 64),
    ],
)
def test_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        Version(text)


@given(st.text(max_size=20))
def test_no_accepted_version_leads_out_of_a_directory(text: str) -> None:
    try:
        version = Version(text)
    except pydantic.ValidationError:
        return
    assert set(version.as_identifier()) <= set("0123456789.-abcehlprt") and ".." not in version.as_identifier()


def test_a_version_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError):
        Version("1.2.3").root = "1.2.4"


def test_it_is_a_plain_string_in_json() -> None:
    assert Version("1.2.3").model_dump_json() == '"1.2.3"'


@pytest.mark.parametrize("value", [{}, {"root": "1.0.0"}, {"other": 1}, [], None, 1])
def test_what_is_no_text_is_refused(value: object) -> None:
    """Whatever a config offer holds there, it must not end the one who reads it."""
    with pytest.raises(pydantic.ValidationError):
        Version.model_validate(value)
