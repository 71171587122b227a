"""What a power cut leaves of changes that were under way is removed; what they were about is not."""

from pathlib import Path

from ivy import files
from ivy.utils.state_interface import StateInterface
from ivy.utils.updates import history
from ivy.utils.updates.releases import Releases
from ivy.version import Version


def _names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_only_what_a_writer_of_the_file_left_is_removed(tmp_path: Path) -> None:
    for name in ("file", ".file.12-345", ".file.keep", ".file.json.12-345", ".other.12-345", "file.12-345"):
        (tmp_path / name).touch()
    files.remove_stale(tmp_path / "file")
    assert _names(tmp_path) == {"file", ".file.keep", ".file.json.12-345", ".other.12-345", "file.12-345"}


def test_releases(root_dir: Path) -> None:
    config = root_dir / "1.0.0" / "config"
    config.mkdir(parents=True)
    (root_dir / "current").symlink_to("1.0.0")
    (config / "config.json").touch()
    before = _names(root_dir)
    (config / ".config.json.1-2").touch()
    (config / ".config.previous.json.1-2").touch()
    (config / ".secrets.json.1-2").touch()
    (root_dir / ".current.new").symlink_to("1.0.0")
    (root_dir / ".1.1.0.new" / "ivy").mkdir(parents=True)
    Releases(root_dir).remove_unfinished()
    assert _names(root_dir) == before


def test_a_probation_whose_end_was_interrupted(root_dir: Path) -> None:
    releases = Releases(root_dir)
    config = root_dir / "1.0.0" / "config"
    config.mkdir(parents=True)
    (config / "config.json").touch()
    releases.activate(Version("1.0.0"))
    before = _names(root_dir)
    releases.begin_probation()
    (root_dir / "previous").unlink()  # and then the power was cut
    releases.end_probation()
    assert _names(root_dir) == before


def test_state_and_history(root_dir: Path) -> None:
    (root_dir / "data" / ".state.json.1-2").touch()
    (root_dir / ".updates.json.1-2").touch()
    StateInterface.tidy()
    history.tidy()
    assert _names(root_dir) == {"data", "data/state.lock"}
