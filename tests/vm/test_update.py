"""An update over the air, by git and signed, with a wheel for this processor, of a machine whose power fails in the
middle of the trial."""

import json
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from testbed.bed import Bed, Machine
from testbed.emulation import architecture
from testbed.git_server import CERTIFICATE, GitServer, git_config
from testbed.package_index import PackageIndex
from testbed.waiting import wait_for

from tests.support.recorder import Recorder
from tests.support.releases import ReleaseMaker, append, edits
from tests.support.releases import write as overwrite
from tests.support.signers import Signer, allowed_signers
from tests.vm.card import FIRST, REPOSITORY, wait_for_new_samples, write

VERSION = "9.1.0"
DUMMY = "ivy/procedures/dummy_procedure.py"
PLATFORMS = {"amd64": "manylinux2014_x86_64", "arm64": "manylinux2014_aarch64"}
REVISION = 1
TRIAL_SECONDS = 900
Record = Callable[[str, object], None]


@pytest.fixture
def git(bed: Bed, tmp_path: Path) -> Generator[GitServer, None, None]:
    with GitServer(bed.address, directory=tmp_path / "git", public=[REPOSITORY]) as server:
        yield server


@pytest.fixture
def index(bed: Bed, tmp_path: Path) -> Generator[PackageIndex, None, None]:
    directory = tmp_path / "index"
    directory.mkdir()
    with PackageIndex(bed.address, directory) as index:
        yield index


@pytest.fixture
def offer(recorder: Recorder) -> Generator[Callable[[Any], None], None, None]:
    """Offers a config, as Tenta does at each connect, until the test ends."""
    topic = f"configurations/{FIRST}"

    def publish(configuration: Any) -> None:
        payload = {"revision": REVISION, "configuration": configuration}
        recorder.publish(topic, json.dumps(payload), retain=True)

    yield publish
    recorder.publish(topic, b"", retain=True)


def test_an_update_whose_trial_a_power_cut_interrupts(
    node: Machine,
    git: GitServer,
    index: PackageIndex,
    offer: Callable[[Any], None],
    recorder: Recorder,
    tmp_path: Path,
    record_property: Record,
) -> None:
    signer = Signer.make(tmp_path, "maintainer")
    needed = index.add("sunshine", {"sunshine.py": "HOURS = 8\n"}, tag=f"py3-none-{PLATFORMS[architecture()]}")
    needs = edits(append(DUMMY, "\nimport sunshine\n"), overwrite("requirements.lock", needed))
    ReleaseMaker(git.repository(REPOSITORY), tmp_path / "maker").release(VERSION, needs, signer=signer)
    write(node, "/etc/pip.conf", index.settings)
    write(node, "/etc/ivy/allowed_signers", allowed_signers([signer]))
    write(node, CERTIFICATE, git.certificate.read_text())
    write(node, "/etc/gitconfig", git_config(git))
    node.run(["sync"])
    config: dict[str, Any] = json.loads(node.run(["cat", "/etc/ivy/config.json"]).stdout)
    config["general"]["software_version"] = VERSION
    del config["general"]["config_revision"]
    before, began = node.boot_id(), time.monotonic()
    offer(config)

    def decisions() -> list[bool]:
        return [each["success"] for each in recorder.elements("acknowledgments") if each["revision"] == REVISION]

    def running() -> str:
        return node.run(["readlink", "/var/lib/ivy/current"]).stdout.strip()

    wait_for(lambda: running() == VERSION or decisions(), TRIAL_SECONDS, "the version to be tried", interval=1)
    assert running() == VERSION and decisions() == []
    record_property("seconds to trial", round(time.monotonic() - began))
    node.cut()
    node.start()
    node.wait_booted(but_not=before)
    record_property("seconds to boot", round(time.monotonic() - began))
    wait_for(decisions, TRIAL_SECONDS, "the decision", interval=1)
    record_property("seconds to decision", round(time.monotonic() - began))
    assert decisions() == [True] and running() == VERSION
    wait_for_new_samples(recorder, "samples of the new version")
