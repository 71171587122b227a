"""A power that fails between two changes of the disk, in the process of a test."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest


class PowerCut(BaseException):
    """The power has failed."""


class Power:
    """It fails right after a call of some functions of `os`, once `calls_left` says after how many.

    Args:
        monkeypatch: For how long.
        names: The functions.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
        self.calls_left = 0
        """0: it does not fail."""
        for name in names:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            if self.calls_left:
                self.calls_left -= 1
                if not self.calls_left:
                    raise PowerCut
            return result

        return call
