"""What the admin does on the node: configs, versions and the way back by hand, and the package beside all that."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from testbed.bed import Node
from testbed.run import PATIENCE, run

from tests.node.aftermath import wait_for_end
from tests.support.installed import RUN_DIRECTORIES, STEPS_USERS, read_config, unit_property
from tests.support.releases import PROJECT, THIS, replace, set_version
from tests.support.update_site import UpdateSite

PACKAGED = "9.5.0"
BUILD_SECONDS = 180
SECONDS_TO_STOP = 10
KILL = r"""
import contextlib, os, pathlib, sys
for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    with contextlib.suppress(OSError):  # it has ended meanwhile
        if b"\0ivy\0config\0apply\0" in file.read_bytes():
            os.kill(int(file.parent.name), int(sys.argv[1]))
"""
EDITOR = "#!/bin/sh\nsed -i '{}' \"$1\"\n"
SCHEMA = "ivy/types/config.py"
FIELD = "    dummy_procedure: DummyProcedureConfig"


@pytest.fixture(scope="session")
def newer_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .deb of this checkout with a higher version."""
    tree = tmp_path_factory.mktemp("package") / "ivy"
    for name in filter(None, run(["git", "-C", PROJECT, "ls-files", "-z"]).stdout.split("\0")):
        if (PROJECT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, tree / name, follow_symlinks=False)
    set_version(tree, PACKAGED)
    run([tree / "packaging" / "build-deb"], env={"DEB_BUILD_OPTIONS": "nocheck"}, timeout=BUILD_SECONDS)
    return tree / "dist" / f"ivy_{PACKAGED}_all.deb"


def ivy(site: UpdateSite, *command: str, status: int = 0, **how: Any) -> str:
    """Run a command. Returns all it said."""
    done = site.node.run(["ivy", *command], check=False, timeout=120, **how)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def releases(site: UpdateSite) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ivy(site, "releases", "--json"))
    return found


def test_configs_and_versions_by_hand(site: UpdateSite) -> None:
    wait_for_end(site.node)  # of the pass that hides the secrets of the first config
    check_wrong_use(site)
    check_apply(site)
    check_edit(site)
    site.release("9.1.0")
    said = ivy(site, "update", "v9.1.0")
    print(said)
    for step in ("Fetching", "Testing", "Activating", "On probation", "Accepted"):
        assert step in said
    assert site.running()[0] == "9.1.0"
    assert "runs" in ivy(site, "releases")
    assert "there is no such tag" in ivy(site, "update", "9.2.3", status=1)
    print(ivy(site, "rollback"))
    assert site.running()[0] == THIS
    site.wait_for_samples()
    decisions = [decision["accepted"] for decision in releases(site)["decisions"]]
    assert decisions == [True, False, True, True, False, True]


def check_wrong_use(site: UpdateSite) -> None:
    before = site.running()
    ivy(site, "config", "apply", status=2)
    assert "/nowhere" in ivy(site, "config", "apply", "/nowhere", status=2)
    assert "1.2.3" in ivy(site, "update", "newest", status=2)
    assert "nothing to go back to" in ivy(site, "rollback", status=2)
    assert site.running() == before


def check_apply(site: UpdateSite) -> None:
    said = ivy(
        site,
        "config",
        "apply",
        "-",
        input=json.dumps(site.config(dummy_procedure={"seconds_between_datapoints": 2})),
    )
    assert "Accepted config revision 0" in said, said
    assert read_config(site.node)["dummy_procedure"] == {"seconds_between_datapoints": 2}
    said = site.apply(site.config(dummy_procedure={"seconds_between_datapoints": 0}), status=1)
    assert "dummy_procedure.seconds_between_datapoints" in said
    assert "JSON" in ivy(site, "config", "apply", "-", status=1, input="{")
    assert read_config(site.node)["dummy_procedure"] == {"seconds_between_datapoints": 2}


def check_edit(site: UpdateSite) -> None:
    assert "Nothing was changed" in edit(site, "")
    edit(site, 's/"seconds_between_datapoints": 2/"seconds_between_datapoints": 1/')
    assert read_config(site.node)["dummy_procedure"] == {"seconds_between_datapoints": 1}
    said = edit(site, "$d", status=1)
    kept = said.rpartition("ivy config apply ")[2].strip()
    assert site.node.path(kept).read_text().startswith("{"), said
    assert site.node.path(kept).stat().st_mode & 0o077 == 0, "it holds the broker's password"


def edit(site: UpdateSite, script: str, status: int = 0) -> str:
    editor = site.node.path("/root/editor")
    editor.write_text(EDITOR.format(script))
    editor.chmod(0o755)
    done = site.node.run(["env", "EDITOR=/root/editor", "ivy", "config", "edit"], check=False, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.thorough
def test_the_admin_need_not_wait_for_a_trial(site: UpdateSite) -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
        interrupt_a_trial(site, number)
    site.apply(site.config(updater={"seconds_of_probation": 15}))
    revision = site.offer(dummy_procedure={"seconds_between_datapoints": 4})
    site.node.wait_for(lambda: releases(site)["on_trial"] == revision, 30, "the operator's trial")
    site.apply(site.config(updater={"seconds_of_probation": 3}, dummy_procedure={"seconds_between_datapoints": 7}))
    assert not site.decision(revision)
    assert "admin" in site.reason(revision)
    assert read_config(site.node)["dummy_procedure"] == {"seconds_between_datapoints": 7}


def on_trial(site: UpdateSite) -> int | None:
    """The revision that is; a trial may last for no longer than a command that asks."""
    history = site.node.path("/var/lib/ivy/updates.json")
    trial = json.loads(history.read_text())["trial"] if history.exists() else None
    return int(trial["offer"]["general"]["config_revision"]) if trial else None


def interrupt_a_trial(site: UpdateSite, number: signal.Signals) -> None:
    """However the command ends, its trial goes on."""
    config = site.config(general={"config_revision": read_config(site.node)["general"]["config_revision"] + 1})
    revision = site.revision = config["general"]["config_revision"]
    site.node.path("/root").joinpath("config.json").write_text(json.dumps(config))
    process = site.node.popen(["ivy", "config", "apply", "/root/config.json"])
    site.node.wait_for(lambda: on_trial(site) == revision, 30, "the trial")
    site.node.run(["python3", "-c", KILL, str(int(number))])
    process.wait(timeout=PATIENCE * 20)

    def decisions() -> list[bool]:
        return [found["accepted"] for found in releases(site)["decisions"] if found["config_revision"] == revision]

    site.node.wait_for(lambda: decisions() == [True], 60, f"the trial to go on after {number.name}")


@pytest.mark.thorough
def test_the_admin_need_not_wait_for_the_network(site: UpdateSite, newer_package: Path) -> None:
    site.release("10.0.0")
    site.git.stop()
    revision = site.offer("10.0.0")
    node = site.node
    node.wait_for(lambda: "waiting for the source" in unit_property(node, "ivy-updater", "StatusText"), 60, "a try")
    site.apply(site.config(dummy_procedure={"seconds_between_datapoints": 2}))
    install_newer(node, newer_package)
    assert "runs." in ivy(site, "releases", "--wait")
    assert site.running()[0] == PACKAGED
    assert read_config(node)["dummy_procedure"] == {"seconds_between_datapoints": 2}
    site.wait_for_samples()
    site.git.start()
    assert site.decision(revision), "the operator's wish is not forgotten"
    assert site.running()[0] == "10.0.0"
    check_that_a_fetch_is_not_in_the_way(site)


def check_that_a_fetch_is_not_in_the_way(site: UpdateSite) -> None:
    """The pass is killed, but not what it has started in a unit of its own."""
    site.release("2.1.0")
    site.release("2.2.0")
    site.git.pause()
    revision = site.offer("2.2.0")
    fetch = site.node.wait_for(
        lambda: unit_property(site.node, "ivy_sandbox-fetch", "InvocationID"), 30, "the fetch"
    )
    by_hand = site.node.popen(["ivy", "update", "2.1.0"])
    site.node.wait_for(
        lambda: unit_property(site.node, "ivy_sandbox-fetch", "InvocationID") not in ("", fetch),
        30,
        "the admin's fetch",
    )
    site.git.resume()
    assert by_hand.wait(timeout=PATIENCE * 100) == 0
    assert site.decision(revision)
    assert site.running()[0] == "2.2.0"


def install_newer(node: Node, package: Path, *options: str) -> str:
    inside = f"/root/{package.name}"
    node.copy_in(package, inside)
    done = node.run(["apt-get", "install", "--yes", *options, inside], timeout=120)
    return done.stdout + done.stderr


@pytest.mark.thorough
def test_the_newer_of_package_and_update_runs(site: UpdateSite, newer_package: Path) -> None:
    node = site.node
    site.release("9.1.0", replace(SCHEMA, FIELD, f"    wind: int = 0\n{FIELD}"))
    site.accepts("9.1.0", wind=1)
    check_config_that_does_not_fit(site, newer_package)
    site.accepts(wind=0)
    config = {key: value for key, value in read_config(node).items() if key != "wind"}
    site.apply(config)
    check_package_during_a_trial(site, newer_package)
    site.release("10.0.0")
    site.accepts("10.0.0")
    assert "10.0.0 runs, which is newer" in install_newer(node, newer_package, "--reinstall")
    assert site.running()[0] == "10.0.0"
    check_other_python(site)
    take_long_to_stop(node)
    node.run(["apt-get", "purge", "--yes", "ivy"], timeout=120)
    check_nothing_is_left(node)


def check_config_that_does_not_fit(site: UpdateSite, package: Path) -> None:
    said = install_newer(site.node, package)
    assert site.running()[0] == "9.1.0"
    shown = ivy(site, "releases")
    for text in (
        said,
        site.node.journal("--identifier=ivy-updater"),
        shown,
        ivy(site, "releases", "--wait", status=1),
    ):
        assert f"ivy {PACKAGED} cannot use the config of the release that runs" in text
    site.wait_for_log(f"ivy {PACKAGED} cannot use the config")
    site.wait_for_samples()


def check_package_during_a_trial(site: UpdateSite, package: Path) -> None:
    """What has not proved itself is not carried over; the offer is not forgotten."""
    site.apply(site.config(updater={"seconds_of_probation": 20}))
    before = read_config(site.node)["dummy_procedure"]
    revision = site.offer(dummy_procedure={"seconds_between_datapoints": 8})
    site.node.wait_for(lambda: releases(site)["on_trial"] == revision, 30, "the trial")
    install_newer(site.node, package, "--reinstall")
    assert not site.decision(revision)
    assert f"a Debian package has brought version {PACKAGED}" in site.reason(revision)
    assert "runs." in ivy(site, "releases", "--wait")
    assert site.running()[0] == PACKAGED
    assert read_config(site.node)["dummy_procedure"] == before
    roles = {release["version"]: release["roles"] for release in releases(site)["releases"]}
    assert roles == {"9.1.0": ["for ivy rollback"], PACKAGED: ["runs", "the package's"]}
    site.apply(site.config(updater={"seconds_of_probation": 3}))


def check_other_python(site: UpdateSite) -> None:
    """After an upgrade of the distribution: the package's release serves until the environment is repaired."""
    wait_for_end(site.node)  # a pass that is under way has looked at the environment already
    lib = site.node.path("/var/lib/ivy/current/.venv/lib")
    [modules] = lib.iterdir()
    name = modules.name
    modules.rename(lib / "python3.2")
    site.node.run(["systemctl", "restart", "ivy.target"])
    site.wait_for_samples()
    site.node.wait_for(
        # While the environment is made anew there is none.
        lambda: site.node.run(["ls", "/var/lib/ivy/current/.venv/lib"], check=False).stdout.split() == [name],
        60,
        "the environment to be repaired",
    )
    site.wait_for_samples()


def take_long_to_stop(node: Node) -> None:
    """As on a slow machine: a process of a user that is to be removed is there when all are told to stop."""
    drop_in = node.path("/run/systemd/system/ivy-system-checks.service.d/50-slow.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(f"[Service]\nExecStop=sleep {SECONDS_TO_STOP}\n")
    node.run(["systemctl", "daemon-reload"])


def check_nothing_is_left(node: Node) -> None:
    for directory in ("/var/lib/ivy", "/etc/ivy", *RUN_DIRECTORIES, "/usr/lib/ivy"):
        assert not node.path(directory).exists(), directory
    for user in ("ivy", "ivy-backend", *STEPS_USERS.split(",")):
        assert node.run(["getent", "passwd", user], check=False).returncode != 0
    assert "ivy" not in node.run(["systemctl", "list-units", "--all", "--no-legend"]).stdout
    assert node.run(["sh", "-c", "grep -l [/]ivy /proc/[1-9]*/cmdline"], check=False).stdout == ""
