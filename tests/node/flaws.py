"""Releases that a node must not keep, and what the operator must read of each. Offering them is done elsewhere."""

from dataclasses import dataclass

from tests.support.releases import Edit, append, remove, replace, set_version, write

DUMMY = "ivy/procedures/dummy_procedure.py"
STARTED = 'logger.info("Starting the random walk")'
MARK = "version_change"  # apart: a node would take this file for one of a release's tests


@dataclass(frozen=True)
class Flaw:
    """What is wrong with a release, and what the operator must read of it."""

    edit: Edit
    words: tuple[str, ...]


FLAWS = {
    # Found by its tests.
    "a failing test": Flaw(
        write(
            "tests/test_moon.py",
            f"import pytest\n\n\n@pytest.mark.{MARK}\ndef test_moon():\n    assert 'moon' == 'full'\n",
        ),
        ("the tests of version", "test_moon", "assert 'moon' == 'full'"),
    ),
    "no tests": Flaw(remove("tests/release"), ("has no tests with the mark",)),
    "an import that nothing brings": Flaw(
        append(DUMMY, "\nimport moonlight  # noqa\n"),
        ("the tests of version", "No module named 'moonlight'"),
    ),
    "a unit with a syntax error": Flaw(
        replace("units/ivy-dummy-procedure.service", "[Service]", "[Service"),
        ("the tests of version", "ivy-dummy-procedure.service:8: Invalid section header"),
    ),
    # Found before them.
    "code that is none": Flaw(append(DUMMY, "\ndef (\n"), ("does not compile", DUMMY)),
    "another version in it": Flaw(
        lambda tree: set_version(tree, "7.7.7"), ("the tag says {version}", "ivy/constants.py 7.7.7")
    ),
    # Found on probation.
    "a procedure that crashes at start": Flaw(
        replace(DUMMY, STARTED, 'raise RuntimeError("there is no sensor")'),
        ("ivy-dummy-procedure.service ended 3 times", "there is no sensor"),
    ),
    "a procedure that crashes after a while": Flaw(
        replace(DUMMY, STARTED, 'notify.sleep(1)\n    raise RuntimeError("the sensor broke")'),
        ("ivy-dummy-procedure.service ended 3 times", "the sensor broke"),
    ),
    "a backend that cannot connect": Flaw(
        replace(
            "ivy/backend/sockets.py",
            "self._resolver.addresses(settings.host, settings.port",
            "self._resolver.addresses(settings.host, 1884",
        ),
        ("after 20 s there is no connection", "refused"),
    ),
    "an updater that cannot start": Flaw(
        append(
            "ivy/utils/updater.py",
            '\nimport os\n\nif "IVY_VERSION_CHANGE" not in os.environ:\n    raise RuntimeError("no updater")\n',
        ),
        ("its updater cannot start", "no updater"),
    ),
}
