"""The story that the README tells. Its chapters, test_1 to test_6, each go on where the one before ended."""

import shutil
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
from testbed.bed import Bed, Snapshot

from tests.readme.desk import Desk
from tests.readme.document import Document
from tests.readme.errands import Errands
from tests.readme.fleet import FleetDesk
from tests.readme.site import EDITOR, Site
from tests.readme.terminal import Terminal
from tests.support.beds import bed, furnished
from tests.support.releases import PROJECT, set_version

__all__ = ["bed", "furnished"]

LONGEST_FORK = 3600  # seconds, for all of its tests
PASSPHRASE = "nobody guesses this"


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Generator[Desk, None, None]:
    """Where the project has just been cloned."""
    desk = Desk(tmp_path_factory.mktemp("readme"))
    yield desk
    desk.close()
    shutil.rmtree(desk.directory)  # virtual environments are large


@pytest.fixture(scope="session")
def readme(desk: Desk) -> Document:
    """The README of the clone."""
    return Document((desk.clone / "README.md").read_text())


@dataclass(frozen=True)
class Started:
    """What takes long, and was started before all else."""

    demo: "Future[str]"
    checkout_venv: "Future[str]"
    fleet_venv: "Future[str]"
    pandas: "Future[str]"
    cards: "Future[str]"
    fork: "Future[str]"


@pytest.fixture(scope="session")
def started(desk: Desk, readme: Document, request: pytest.FixtureRequest) -> Generator[Started, None, None]:
    """The demo; beside it all virtual environments, one after the other; with the first of them, a fork's tests."""
    demo = Errands(desk.terminal(desk.clone_of(desk.clone, "tryout")))
    others = Errands(desk.terminal(desk.clone))
    tests = Errands(desk.terminal(desk.clone))
    cards = desk.clone_of(desk.clone, "cards")
    is_thorough = request.config.getoption("--thorough") or request.config.getoption("--sweep")
    checkout_venv = others.begin(f"{readme.take('packaging/test unit')} -- -k test_constants")  # makes .venv
    yield Started(
        demo.begin(readme.take("packaging/demo")),
        checkout_venv,
        others.begin(readme.take("python3 -m venv ~/fleet-desk")),
        others.begin("python3 -m venv ~/pandas && ~/pandas/bin/pip install --quiet pandas"),
        others.begin(f"pushd {cards} && {readme.take('python3 -m venv ~/ivy ')} && popd"),
        tests.begin(fork(readme, desk, is_thorough), LONGEST_FORK, after=checkout_venv),
    )
    for errands in (demo, others, tests):
        errands.close()


def fork(readme: Document, desk: Desk, is_thorough: bool) -> str:
    """A line that makes a fork as others do, with a procedure of its own instead of the example, and tests it.

    All of its tests take as long as all of ours: but for a thorough look, each tenth has to do.
    """
    directory = desk.clone_of(desk.clone, "fork-with-heat-box")
    (directory / ".venv").symlink_to(desk.clone / ".venv")
    if (PROJECT / ".venv-ansible").exists():  # made from the same file
        (directory / ".venv-ansible").symlink_to(PROJECT / ".venv-ansible")
    template = directory / "config/config.template.json"
    shutil.copy(template, template.with_name("config.json"))  # somebody has tried ivy there
    set_version(directory, "1.2.0")
    test = readme.take("packaging/test quick package")
    lines = (
        f"cd {directory}",
        readme.take("packaging/new-procedure thermometer", {"thermometer": "heat-box"}),
        readme.take("packaging/new-procedure --remove"),
        "git add --all && git commit --quiet --message 'heat-box: instead of the example'",
        test if is_thorough else f"{test.replace('quick package', 'lint quick')} -- --share 1/10",
    )
    return " && ".join(lines)


@pytest.fixture(scope="session")
def terminal(desk: Desk) -> Terminal:
    """The desk's terminal, in the clone."""
    return desk.terminal(desk.clone)


@pytest.fixture(scope="session")
def site(
    bed: Bed, furnished: Snapshot, desk: Desk, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Site, None, None]:
    """Nodes without ivy, and all servers."""
    site = Site(bed, furnished, tmp_path_factory.mktemp("site"), desk.public_key)
    desk.name_hosts(
        {
            "roof-7": site.roof.address,
            "10.9.0.11": site.nodes["roof-1"].address,
            "10.9.0.12": site.nodes["roof-2"].address,
        }
    )
    yield site
    site.close()


@pytest.fixture(scope="session")
def roof(site: Site) -> Terminal:
    """A terminal on roof-7."""
    return site.terminal(site.roof, EDITOR=EDITOR)


@pytest.fixture(scope="session")
def package(readme: Document, terminal: Terminal, desk: Desk) -> Path:
    """The directory with the package that was built."""
    terminal.run(readme.take("packaging/build-deb"), timeout=600)
    return desk.clone / "dist"


@pytest.fixture(scope="session")
def signers(readme: Document, terminal: Terminal, desk: Desk) -> str:
    """The line of `allowed_signers` for the release key, which is made."""
    terminal.type(readme.take("ssh-keygen"))
    for _ in range(2):
        terminal.expect("passphrase.*: ")
        terminal.type(PASSPHRASE)
    terminal.finish()
    key = (desk.home / ".ssh/ivy-release.pub").read_text().split()[1]
    return readme.take("maintainer@example.org namespaces", {"AAAAC3Nza…": key})


@pytest.fixture(scope="session")
def fleet(
    readme: Document, desk: Desk, site: Site, package: Path, signers: str, started: Started
) -> Generator[FleetDesk, None, None]:
    """The fleet's desk; it provisions the nodes roof-1 and roof-2 while the story goes on."""
    fleet = FleetDesk(readme, desk, site, signers)
    fleet.begin(started.fleet_venv)
    yield fleet
    fleet.close()
