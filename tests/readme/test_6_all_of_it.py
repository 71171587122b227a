"""The last chapter: a fork, the end of a node, and that nothing was forgotten."""

from tests.readme.conftest import Started
from tests.readme.desk import Desk
from tests.readme.document import Document
from tests.readme.site import Site
from tests.readme.terminal import Terminal

NOT_TRIED = {
    "packaging/test": "this is a part of it; its --help is tried, and stages of it",
    "packaging/test --thorough": "each week: it takes hours",
    "packaging/test --arch arm64": "by hand: it takes hours, and what emulates it, which only some machines have",
    "packaging/test --suite forky": "by hand: the next Debian changes from day to day",
    "packaging/test --suite forky upgrade": "by hand, for the same reason",
    "packaging/demo --keep": "all but the end is the demo that is tried",
    "packaging/image": "by hand: it takes half an hour where the processor is another one",
    "packaging/image --board generic": "by the stage vm",
    "bmaptool copy dist/ivy-*-rpi.img.xz /dev/sdX": "there is no card",
    "ivy plot": "a name; with arguments it is tried",
    "ivy take-in DIRECTORY": "by tests/node/test_first_boot.py, as its units call it",
    "ivy forget-node": "by tests/node/test_first_boot.py: the nodes here are needed",
    "ivy setup --provision-key KEY --provision-secret-file FILE": "by tests/broker/test_registration.py",
}


def test_a_fork_gets_a_name_of_its_own(readme: Document, desk: Desk, terminal: Terminal) -> None:
    fork = desk.clone_of(desk.clone, "fork")
    terminal.run(f"pushd {fork}")
    terminal.run(readme.take("packaging/rename", {"NAME": "skua"}))
    assert "usage: skua" in terminal.run("python3 -m skua --help")
    terminal.run("popd")


def test_a_fork_with_a_procedure_of_its_own_instead_of_the_example_is_well(started: Started) -> None:
    printed = started.fork.result()
    assert "removed ivy/procedures/dummy_procedure.py" in printed
    assert "All passed: " in printed


def test_purging_leaves_nothing(readme: Document, site: Site, roof: Terminal) -> None:
    roof.type(readme.take("apt purge"))
    roof.expect("Continue")
    roof.type("y")
    roof.finish(120)
    for path in ("/etc/ivy", "/var/lib/ivy"):
        assert not site.roof.path(path).exists()


def test_the_demo_has_ended_well(started: Started) -> None:
    printed = started.demo.result()
    proved = printed.partition("Proved")[2]
    assert proved.count("✓") == 5 and "Done in" in proved, printed[-2000:]


def test_everything_was_tried(readme: Document) -> None:
    """Fails where only some of the chapters were run."""
    for command, reason in NOT_TRIED.items():
        readme.leave_out(command, reason)
    assert readme.untried() == []
