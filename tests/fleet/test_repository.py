"""The APT repository, by itself."""

from pathlib import Path

from testbed.run import Argv, run

from tests.support.releases import PROJECT


def test_no_key_is_made_for_a_repository_that_has_one(tmp_path: Path) -> None:
    published = tmp_path / "apt"
    published.mkdir()
    public = published / "ivy-archive-keyring.asc"
    public.write_text("whom the nodes trust")
    mistyped = tmp_path / "ivy-atp.key"
    command: Argv = [PROJECT / "packaging/apt-repository", "--make-key", "--key", mistyped, "--output", published]
    refused = run(command, check=False)
    assert refused.returncode == 1
    assert str(public) in refused.stderr and str(mistyped) in refused.stderr
    assert not mistyped.exists()
    assert public.read_text() == "whom the nodes trust"
