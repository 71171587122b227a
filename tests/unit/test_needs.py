"""What a release needs of Debian: said by its pyproject.toml, looked for before anything of it is run."""

from pathlib import Path

import pytest

from ivy import constants
from ivy.utils.updates import needs
from ivy.utils.updates.errors import NodeTrouble, Rejected
from tests.support.helpers import Node

INSTALLED = "printf 'python3 installed\\npython3-lgpio config-files\\npython3-serial installed\\n'"


@pytest.fixture(autouse=True)
def dpkg(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node with two packages; a third was removed."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("dpkg-query", {"*": INSTALLED})


def release(tmp_path: Path, said: str) -> Path:
    """A release that says what it needs."""
    (tmp_path / "pyproject.toml").write_text(said)
    return tmp_path


@pytest.mark.parametrize(
    "said",
    [
        "",
        "[tool.other]\n",
        f"[tool.{constants.NAME}]\n",
        f"[tool.{constants.NAME}]\ndebian = []\ngroups = []\n",
    ],
)
def test_a_release_that_needs_nothing_asks_nobody(tmp_path: Path, node: Node, said: str) -> None:
    needs.check(release(tmp_path, said))
    assert node.calls() == []


def test_what_is_there_is_enough(tmp_path: Path) -> None:
    needs.check(release(tmp_path, f'[tool.{constants.NAME}]\ndebian = ["python3-serial"]\ngroups = ["root"]\n'))


def test_what_is_missing_is_named_with_the_way_out(tmp_path: Path) -> None:
    """A node lacks it: the offer waits, and is taken once it is there."""
    said = f'[tool.{constants.NAME}]\ndebian = ["python3-lgpio", "python3-serial"]\ngroups = ["no-such", "root"]\n'
    with pytest.raises(NodeTrouble, match=r"^missing: python3-lgpio, the group no-such; play provision"):
        needs.check(release(tmp_path, said))


@pytest.mark.parametrize(
    "said",
    [
        "tool = 3",
        f"[tool]\n{constants.NAME} = 3",
        *(
            f"[tool.{constants.NAME}]\n{field} = {value}"
            for field in ("debian", "groups")
            for value in ('"python3-lgpio"', "true", "[3]", '["--help"]', '["a; reboot"]', '[["a"]]', '["A\\n"]')
        ),
    ],
)
def test_what_cannot_be_understood_is_refused(tmp_path: Path, node: Node, said: str) -> None:
    with pytest.raises(Rejected, match="must be a list of names"):
        needs.check(release(tmp_path, said))
    assert node.calls() == []


@pytest.mark.parametrize("said", ["[tool", "\0", f"a = {'[' * 5000}"])
def test_a_project_file_that_is_not_toml_is_refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(Rejected, match=r"pyproject\.toml cannot be read"):
        needs.check(release(tmp_path, said))


def test_a_node_that_cannot_say_what_is_installed_is_no_fault_of_the_release(tmp_path: Path, node: Node) -> None:
    node.fake("dpkg-query", {"*": "exit 2"})
    with pytest.raises(NodeTrouble, match="which packages are installed is not known"):
        needs.check(release(tmp_path, f'[tool.{constants.NAME}]\ndebian = ["python3-serial"]\n'))


def test_what_this_release_needs_can_be_understood() -> None:
    project = Path(constants.PROJECT_DIR)
    assert isinstance(needs.lacking(project), list)
