"""The test of a release that never ends, nor does what it has started; run on a node by the updater."""

import os

import pytest


@pytest.mark.version_change
def test_never_ends() -> None:
    os.fork()
    while True:
        pass
