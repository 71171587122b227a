"""How many messages are offered at once, after trouble and without."""

import pytest

from ivy.backend.flow_control import Window


def _sizes(window: Window, steps: int) -> list[int]:
    sizes = []
    for _ in range(steps):
        window.grow()
        sizes.append(window.size)
    return sizes


def test_it_is_halved_down_to_one() -> None:
    window, sizes = Window(50), []
    for _ in range(8):
        window.shrink(window.size)
        sizes.append(window.size)
    assert sizes == [25, 12, 6, 3, 1, 1, 1, 1]


def test_half_of_what_was_under_way_is_less_than_half_of_what_might_have_been() -> None:
    window = Window(500)
    window.shrink(60)
    assert window.size == 30
    window.shrink(0)
    assert window.size == 1


@pytest.mark.parametrize(("most", "halvings", "steps"), [(50, 1, 3), (50, 10, 13), (1000, 20, 27), (1, 1, 1)])
def test_it_is_whole_again_soon(most: int, halvings: int, steps: int) -> None:
    window = Window(most)
    for _ in range(halvings):
        window.shrink(window.size)
    sizes = _sizes(window, steps)
    assert sizes == sorted(sizes)
    assert sizes[-1] == most
    assert _sizes(window, 2) == [most, most]
