"""Tests that programs of another processor than the machine's cannot pass, as `packaging/test --arch` runs them."""

import os

import pytest

needs_own_processor = pytest.mark.skipif(
    os.environ.get("IVY_EMULATED") == "1",
    reason="qemu-user lets no program trace another one, nor be root of a namespace of its own",
)
