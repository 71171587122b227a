"""What systemd is told when another release or config is to run. How services fare by it is seen on real nodes."""

import json
import shutil
from pathlib import Path

import pytest

from ivy import constants
from ivy.types.config import UpdaterConfig, as_text
from ivy.types.updates import Offer
from ivy.utils import notify
from ivy.utils.host import commands, units
from ivy.utils.logger import Logger
from ivy.utils.updates import activation, history, probation
from ivy.utils.updates.releases import Releases
from ivy.utils.updates.trial import Trials
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, UPDATER, Node, make_config
from tests.unit.offers import foreign

VERSION = Version("1.0.0")
WORDS = (
    "not enough space available on /run/systemd/. Currently, 8M are free, but a safety buffer of 16M is enforced."
)
REFUSES = f"echo 'Reload daemon failed: Refusing to reload, {WORDS}' >&2; exit 1"
WANTS = "echo Wants=ivy-system-checks.service ivy-thingsboard.service"


@pytest.fixture(autouse=True)
def release(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release with one procedure and both backends, and the package's generator; nobody rests between tries."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(notify, "sleep", lambda _seconds: None)
    monkeypatch.setattr(activation, "GENERATOR", str(Path(constants.PROJECT_DIR, "units", "ivy-generator")))
    Path(constants.UPDATER_RUN_DIR).mkdir(parents=True)
    releases = Releases()
    release = releases.directory(VERSION)
    for path in ("procedures/system_checks.py", "backend/tenta_backend.py", "backend/thingsboard_backend.py"):
        (release / "ivy" / path).parent.mkdir(parents=True, exist_ok=True)
        (release / "ivy" / path).touch()
    (release / "units").mkdir()
    for name in ("system-checks", "tenta", "thingsboard"):
        (release / "units" / f"ivy-{name}.service").write_text("[Service]\nExecStart=/bin/true\n")
    (release / "config").mkdir()
    releases.activate(VERSION)
    releases.write_config(VERSION, json.dumps({**CONFIG, "backend": BACKEND}))


def restarted(node: Node) -> list[str]:
    """The services that systemd was told to restart, in this order."""
    calls = [call.split() for call in node.calls()]
    return [call[-1] for call in calls if call[1] == "restart" and call[-1] != "ivy-owners.service"]


def test_a_reload_that_times_out_is_tried_again(node: Node) -> None:
    """A busy machine is no reason to undo a change."""
    tries = f"{node.home}/tries"
    times_out = f"echo . >>{tries}; test $(wc -l <{tries}) -gt 2 && exit; echo timed out >&2; exit 1"
    node.fake("systemctl", {"daemon-reload": times_out})
    units.reload()
    assert len(node.calls()) == 3


def test_a_reload_that_fails_time_and_again_is_an_error_and_no_refusal(node: Node) -> None:
    node.fake("systemctl", {"daemon-reload": "echo 'Reload daemon failed: Connection timed out' >&2; exit 1"})
    with pytest.raises(commands.CommandError, match="timed out") as caught:
        units.reload()
    assert not isinstance(caught.value, units.NoRoomError)


def test_a_change_for_which_run_has_no_room_is_undone_in_the_words_of_systemd(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.fake("systemctl", {"daemon-reload": REFUSES, "show*Wants*": WANTS})
    monkeypatch.setattr(probation.Watch, "run", lambda _watch: pytest.fail("nothing was activated"))
    trials = Trials(Releases(), UpdaterConfig.model_validate(UPDATER), Logger(make_config(), "updater"))
    offered = foreign(4, backend={**BACKEND, "provider": "thingsboard"})
    trial = trials.begin(Offer(identifier="offer-4", config=offered))
    Releases().write_config(VERSION, offered.model_dump_json())
    failure = trials.watch(trial)
    assert failure is not None and WORDS in failure
    assert history.load().decisions[-1].reason == failure and history.load().trial is None
    assert Releases().active_config().general.config_revision == 3
    # What systemd knows may be of the offer; the backend that is restarted is that of the config.
    assert restarted(node) == ["ivy-tenta.service"], "and no procedure, which it did not concern"
    assert activation.awaits_reload()


def test_what_was_undone_without_a_reload_gets_one_as_soon_as_there_is_room(node: Node) -> None:
    node.fake("systemctl", {"daemon-reload": REFUSES, "show*Wants*": WANTS})
    activation.switch("ivy-tenta.service", is_undone=True)
    before = len(restarted(node))
    activation.catch_up("ivy-tenta.service")
    assert activation.awaits_reload() and len(restarted(node)) == before
    assert node.calls()[-1].endswith("start -- ivy-tenta.service"), "what systemd did not know is started after all"
    node.fake("systemctl", {"show*Wants*": "echo Wants=ivy-tenta.service"})
    activation.catch_up("ivy-tenta.service")
    assert not activation.awaits_reload()
    assert restarted(node)[before:] == ["ivy-tenta.service"]


TRIGGERS = {
    "show*Wants*": "echo Wants=ivy-system-checks.service ivy-updater.path ivy-rain.timer",
    "list-units*.service": "echo ivy-rain.service; echo ivy-system-checks.service; echo ivy-salvage.service",
    "list-units*.timer*.path*": "printf 'ivy-%s\\n' rain.timer updater.path lost.timer gone.socket hail.timer",
    "show*LoadState*": (
        "for unit; do case $unit in ivy-*) part=ivy.target state=loaded; case $unit in *lost*) part= ;; esac; "
        "case $unit in *gone*) part= state=not-found ;; esac; "
        "printf 'Id=%s\\nLoadState=%s\\nPartOf=%s\\nTriggeredBy=%s\\n\\n' $unit $state $part "
        "$(echo $unit | sed 's/.*rain.*/ivy-rain.timer/;t;d') ;; esac; done"
    ),
}
"""A procedure `rain` with a timer, which has started it; two others of before; and what is not a release's."""


@pytest.mark.parametrize("is_all", [True, False])
def test_what_starts_procedures_when_it_is_time_is_that_of_the_release(node: Node, is_all: bool) -> None:
    node.fake("systemctl", TRIGGERS)
    activation.switch(None, lambda _wanted: None if is_all else set())
    told = [call.split() for call in node.calls()]
    stopped = [words[-1] for words in told if words[1] == "stop"]
    # What a trigger has started goes on where only a config changed that does not concern it.
    assert stopped == [*(["ivy-rain.service"] if is_all else []), "ivy-gone.socket", "ivy-hail.timer"]
    assert (told[-1][1], told[-1][-1]) == ("restart" if is_all else "start", "ivy-rain.timer")


def test_a_change_without_a_reload_touches_no_service(node: Node) -> None:
    node.fake("systemctl", {"daemon-reload": REFUSES})
    with pytest.raises(units.NoRoomError, match="safety buffer"):
        activation.switch(None)
    assert restarted(node) == [] and not activation.awaits_reload()


@pytest.mark.parametrize("is_undone", [True, False])
def test_what_a_release_lacks_is_stopped_before_it_is_the_current_one(node: Node, is_undone: bool) -> None:
    """Afterwards there is nothing any more that could leave its hardware safe."""
    releases, other = Releases(), Version("1.2.0")
    shutil.copytree(releases.directory(VERSION), releases.directory(other), symlinks=True)
    with_rain = other if is_undone else VERSION
    (releases.directory(with_rain) / "units" / "ivy-rain.service").touch()
    note = f"readlink {constants.IVY_ROOT_DIR}/current >>{node.home}/current-then"
    trials = Trials(releases, UpdaterConfig.model_validate(UPDATER), Logger(make_config(), "updater"))
    node.fake("systemctl", {})
    trials.begin(Offer(identifier="offer-4", config=foreign(4, "1.2.0")))
    node.fake("systemctl", {"stop*ivy-rain.service": note, **TRIGGERS})
    if is_undone:
        releases.activate(other)
        releases.write_config(other, as_text(foreign(4, "1.2.0")))
        trials.resume("it hung")
        assert releases.current() == VERSION
    else:
        activation.stop_lacking(releases.directory(other))
    stopped = [call.split()[-1] for call in node.calls() if call.startswith("systemctl stop")]
    assert stopped[0] == "ivy-rain.service" and "ivy-system-checks.service" not in stopped
    assert (node.home / "current-then").read_text().splitlines()[0].endswith(str(with_rain))
