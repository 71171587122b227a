"""Programs of another processor run only where the kernel knows by what; else somebody is told how that is done.
So do machines of another processor, which are software, whatever helps those of this one."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from testbed import emulation, roots, vm
from testbed.bed import Bed
from testbed.roots import Recipe
from testbed.run import BedError
from testbed.tools import EMULATORS, PACKAGES

FOREIGN = next(arch for arch in ("arm64", "amd64") if arch != emulation.native())


def test_what_does_not_run_here_is_said_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "HANDLERS", tmp_path)
    with pytest.raises(BedError, match=f"{FOREIGN}(.|\n)*qemu-user-static"):
        emulation.ensure_emulation(FOREIGN)
    (tmp_path / emulation.NAMES[FOREIGN]).touch()
    emulation.ensure_emulation(FOREIGN)


def test_so_is_what_nobody_knows() -> None:
    with pytest.raises(BedError, match="z80"):
        emulation.ensure_emulation("z80")


def test_this_processor_needs_no_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "HANDLERS", tmp_path)
    emulation.ensure_emulation(emulation.native())
    assert emulation.slowness(emulation.native()) == 1 < emulation.slowness(FOREIGN)


def test_roots_of_two_processors_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IVY_ARCH", FOREIGN)
    assert emulation.architecture() == FOREIGN
    foreign = Recipe("test", (), arch=emulation.architecture())
    monkeypatch.setenv("IVY_ARCH", "")
    assert foreign.path != Recipe("test", (), arch=emulation.architecture()).path


def test_what_makes_a_root_of_another_processor_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmdebstrap alone does not: it asks a program that it does not depend on."""
    asked: list[str] = []

    def ensure(programs: Iterable[str]) -> None:
        asked.extend(programs)
        raise BedError("enough")

    monkeypatch.setenv("IVY_ARCH", FOREIGN)
    monkeypatch.setattr(roots, "CACHE", tmp_path)
    monkeypatch.setattr(roots, "ensure_tools", ensure)
    with pytest.raises(BedError, match="enough"):
        roots.testing_root()
    assert asked == ["mmdebstrap", "arch-test"]
    assert set(asked) <= {*PACKAGES, *EMULATORS}


def test_kvm_is_no_help_for_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: True)
    assert vm.accelerator(FOREIGN) == vm.SOFTWARE


def test_there_is_no_machine_of_a_processor_that_has_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IVY_ARCH", "armhf")
    with pytest.raises(BedError, match="no machines of armhf"):
        Bed("none").machine("m1", Path("no.img"), {})
