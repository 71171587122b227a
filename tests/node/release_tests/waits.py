"""A test of a release that takes until a file is there."""

import os
import time

import pytest


@pytest.mark.version_change
def test_wait() -> None:
    while not os.path.exists("/run/let-tests-go-on"):
        time.sleep(0.1)
