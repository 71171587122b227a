"""Cases of parametrized tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def with_few(cases: Iterable[Any], few: int = 1) -> list[Any]:
    """All cases; but for the first few of them only where somebody has the time, see the mark `thorough`."""
    some = list(cases)
    more = [case if isinstance(case, tuple) else (case,) for case in some[few:]]
    return [*some[:few], *(pytest.param(*case, marks=pytest.mark.thorough) for case in more)]
