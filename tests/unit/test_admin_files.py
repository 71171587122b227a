"""Files that come with a config are on trial with it."""

import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy import files as files_of_ivy
from ivy.types.config import ForeignConfig, UpdaterConfig, as_text
from ivy.types.updates import Offer
from ivy.utils.logger import Logger
from ivy.utils.updates import admin_files, history, probation
from ivy.utils.updates.admin_files import PLACE
from ivy.utils.updates.releases import Releases
from ivy.utils.updates.trial import Trials
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, UPDATER, make_config
from tests.unit.offers import foreign

VERSION = Version("1.0.0")
BEFORE, AFTER = b"the authority of before", b"another authority"


class _PowerCut(Exception):
    pass


@pytest.fixture
def brought(root_dir: Path, tmp_path: Path) -> Path:
    """What an admin brings: another authority, and a key where there was none."""
    directory = tmp_path / "brought"
    directory.mkdir()
    (directory / "authority.pem").write_bytes(AFTER)
    (directory / "node.key").write_bytes(b"a key")
    (directory / "node.key").chmod(0o600)
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "authority.pem").write_bytes(BEFORE)
    return directory


@pytest.fixture
def trials(releases: Releases) -> Trials:
    """Of an updater that is in no hurry."""
    return Trials(releases, UpdaterConfig.model_validate(UPDATER), Logger(make_config(), "updater"))


def begin(trials: Trials, brought: Path | None, config: ForeignConfig | None = None) -> Offer:
    """Put files on trial, with a config that says what the active one does."""
    return trials.begin(
        Offer(identifier="admin-4", config=config or Releases().active_config(), source="admin"), brought
    )


def let(watch: Callable[[probation.Watch], str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probation.Watch, "run", watch)


def files() -> dict[str, bytes]:
    """Those of the admin, by name."""
    return {name: (PLACE / name).read_bytes() for name in ("authority.pem", "node.key") if (PLACE / name).exists()}


def mode(name: str) -> int:
    return stat.S_IMODE((PLACE / name).stat().st_mode)


def test_they_stay_if_all_is_well(trials: Trials, brought: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    let(lambda _: seen.append(files()), monkeypatch)
    assert trials.watch(begin(trials, brought)) is None
    assert seen == [{"authority.pem": AFTER, "node.key": b"a key"}] and files() == seen[0]
    assert (mode("authority.pem"), mode("node.key")) == (0o644, 0o640)
    assert not Releases().files.are_on_trial()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_they_are_roots_whoever_had_those_of_before(
    trials: Trials, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a play would bring them again each time."""
    let(lambda _: None, monkeypatch)
    os.chown(PLACE / "authority.pem", 4242, 4242)
    os.chown(brought / "node.key", 4242, 4242)
    trials.watch(begin(trials, brought))
    assert [(PLACE / name).stat().st_uid for name in files()] == [0, 0]
    assert (PLACE / "authority.pem").stat().st_gid == 0


def test_they_go_back_with_the_config(trials: Trials, brought: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let(lambda _: "no connection", monkeypatch)
    assert trials.watch(begin(trials, brought)) == "no connection"
    assert files() == {"authority.pem": BEFORE}
    assert not Releases().files.are_on_trial()


def test_the_backend_must_deliver_with_them_whatever_was_before(
    trials: Trials, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str | None] = []
    Releases().write_config(VERSION, json.dumps({**CONFIG, "backend": BACKEND}))
    monkeypatch.setattr(probation, "failing", lambda _: {"ivy-tenta.service": "is not connected"})
    monkeypatch.setattr(trials, "is_link_down", lambda: False)
    let(lambda watch: judged.append(watch.backend), monkeypatch)
    trials.watch(begin(trials, brought))
    trials.watch(begin(trials, None))
    assert judged == ["ivy-tenta.service", None]


@pytest.mark.parametrize("passes", [True, False])
@pytest.mark.parametrize("writes", range(8))
def test_a_power_cut_at_any_write_leaves_all_of_them_or_none(
    trials: Trials, brought: Path, monkeypatch: pytest.MonkeyPatch, writes: int, passes: bool
) -> None:
    """With whatever the next boot finds, it goes on."""
    verdict = None if passes else "no connection"
    let(lambda _: verdict, monkeypatch)
    left = [writes]

    def lose_power(path: Path, content: bytes, **others: Any) -> None:
        if not left[0]:
            raise _PowerCut
        left[0] -= 1
        files_of_ivy.write_atomically(path, content, **others)

    with monkeypatch.context() as cut:
        cut.setattr("ivy.utils.updates.admin_files.write_atomically", lose_power)
        with contextlib.suppress(_PowerCut):
            trials.watch(begin(trials, brought))
    Releases().remove_unfinished()
    trials.resume()
    was_accepted = bool(history.load().decisions) and history.load().decisions[-1].accepted
    expected = {"authority.pem": AFTER, "node.key": b"a key"} if was_accepted else {"authority.pem": BEFORE}
    assert files() == expected
    assert not Releases().files.are_on_trial() and Releases().previous() is None


@pytest.mark.parametrize("is_of_another", [True, False])
def test_where_the_package_has_gone_back_they_do_too(
    trials: Trials, brought: Path, monkeypatch: pytest.MonkeyPatch, is_of_another: bool
) -> None:
    """As it does where the updater fails that is on trial, or as another version is installed."""
    releases = Releases()
    offered = foreign(4, "1.2.0")
    begin(trials, brought, offered)
    releases.files.use()
    if is_of_another:
        other = Version("1.4.0")
        releases.config_file(other).parent.mkdir(parents=True)
        releases.config_file(other).write_text(as_text(foreign(4, "1.4.0")))
        releases.activate(other)
    else:
        (releases.root / "previous").unlink()
    trials.resume()
    assert files() == {"authority.pem": BEFORE}
    assert not history.load().decisions[-1].accepted


def test_those_of_a_trial_that_never_began_are_not_used_by_the_next_one(
    releases: Releases, trials: Trials, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let(lambda _: None, monkeypatch)
    releases.files.begin(brought)  # and the power is cut
    trials.watch(begin(trials, None))
    assert files() == {"authority.pem": BEFORE}


def bring(name: str, content: bytes = b"text") -> Callable[[Path], object]:
    return lambda brought: (brought / name).write_bytes(content)


def over_a_link(brought: Path) -> None:
    (brought / "a.pem").touch()
    (PLACE / "a.pem").symlink_to("/etc/shadow")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (bring("config.json"), "certificates, keys and the like"),
        (bring("allowed_signers"), "certificates, keys and the like"),
        (bring(".hidden"), "are allowed in the name"),
        (bring("a name"), "are allowed in the name"),
        (bring("large.pem", b"x" * 1_000_001), "is too large"),
        (lambda brought: (brought / "a.pem").symlink_to("/etc/shadow"), "a.pem"),
        (lambda brought: (brought / "a.pem").mkdir(), "a.pem"),
        (over_a_link, "not a regular file"),
    ],
)
def test_what_cannot_be_on_trial_is_refused(brought: Path, spoil: Callable[[Path], object], said: str) -> None:
    admin_files.check(brought)
    spoil(brought)
    with pytest.raises((OSError, ValueError), match=said):
        admin_files.check(brought)
