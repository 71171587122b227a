"""How elements are packed into arrays."""

import json
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from ivy.backend import dialect
from ivy.backend.dialect import LARGEST_BATCH, Publication

_TEXTS = st.lists(
    st.one_of(
        st.text(max_size=40).map(json.dumps),
        st.integers(0, 2 * LARGEST_BATCH).map(lambda size: json.dumps("ä" * size, ensure_ascii=False)),
    ),
    max_size=30,
)


def pack(topic: str, elements: Iterable[tuple[int, str]]) -> list[Publication]:
    """Of elements whose values nobody counts."""
    return dialect.pack(topic, [(identifier, text, 0) for identifier, text in elements])


def _payloads(publications: list[Publication]) -> list[bytes]:
    return [publication.payload for publication in publications]


def test_nothing_makes_no_publication() -> None:
    assert pack("t", []) == []  # ThingsBoard never acknowledges an empty array, Tenta drops it


def test_several_elements_share_an_array() -> None:
    [publication] = pack("t", [(7, '{"a":1}'), (9, "2")])
    assert publication == Publication("t", b'[{"a":1},2]', (7, 9))


def test_an_array_is_filled_to_the_last_byte() -> None:
    first = json.dumps("x" * 1000)
    fitting = json.dumps("x" * (LARGEST_BATCH - len(first) - len('[,""]')))
    assert [len(payload) for payload in _payloads(pack("t", [(1, first), (2, fitting)]))] == [LARGEST_BATCH]
    assert len(pack("t", [(1, first), (2, fitting + " ")])) == 2


@given(_TEXTS)
def test_every_element_is_in_one_array_in_its_place(texts: list[str]) -> None:
    publications = pack("t", enumerate(texts))
    assert [i for publication in publications for i in publication.message_ids] == list(range(len(texts)))
    for publication in publications:
        assert json.loads(publication.payload) == [json.loads(texts[i]) for i in publication.message_ids]
        assert len(publication.payload) <= LARGEST_BATCH or len(publication.message_ids) == 1


@given(_TEXTS)
def test_no_two_neighbours_would_have_fitted_into_one(texts: list[str]) -> None:
    sizes = [len(payload) for payload in _payloads(pack("t", enumerate(texts)))]
    first_of_next = [len(texts[p.message_ids[0]].encode()) for p in pack("t", enumerate(texts))[1:]]
    for size, following in zip(sizes, first_of_next, strict=False):
        assert size + 1 + following > LARGEST_BATCH
