"""What people and other programs find on a node: help, pictures, figures for Prometheus."""

import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from testbed.bed import Bed, Node
from testbed.broker import Broker
from testbed.package_index import write_wheel
from testbed.roots import PROJECT
from testbed.run import PATIENCE, run

from tests.support.installed import read_config, unit_property, use_tenta, write_config
from tests.support.recorder import Recorder
from tests.support.validators.prometheus import Parsed, parse

COLLECTOR = "/var/lib/prometheus/node-exporter"


@contextmanager
def of_bed(bed: Bed, *arguments: str) -> Generator[str, None, None]:
    """Run a command of the bed's until its first line is used; it must end well by Ctrl-C."""
    # A shell's background jobs, such as this may be in, ignore Ctrl-C, and so does what they start.
    command = [
        "env",
        "--default-signal=INT",
        sys.executable,
        str(PROJECT / "packaging/testbed/testbed"),
        *arguments,
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "IVY_TESTBED": bed.name},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=PATIENCE * 20)
        finally:
            process.kill()
    assert process.returncode == 0


def figures(node: Node) -> Parsed:
    """What node-exporter would read, as a user without rights, by the link that the README names."""
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat", f"{COLLECTOR}/ivy.prom"]
    found = node.run(command, check=False)
    return parse(found.stdout) if found.returncode == 0 else {}


def test_figures_for_prometheus_need_a_config_and_a_link(node: Node, broker: Broker, recorder: Recorder) -> None:
    node.run(["mkdir", "--parents", COLLECTOR])
    node.run(["ln", "--symbolic", "/run/ivy/ivy.prom", COLLECTOR])
    assert figures(node) == {}
    use_tenta(node, broker, metrics={"textfile_directory": "/run/ivy"})
    node.wait_for(lambda: bool(figures(node)), 20, "the first figures")
    for service in ("dummy-procedure", "system-checks", "tenta"):
        restarts = "ivy_unit_restarts_total", (("unit", f"ivy-{service}.service"),)
        # Of the backend it may be one: a start may have come too early for its secrets.
        node.wait_for(
            lambda unit=f"ivy-{service}", key=restarts: (  # type: ignore[misc]
                figures(node)[key] == int(unit_property(node, unit, "NRestarts"))
            ),
            90,
            f"the restarts of {service}",
        )
    acknowledged = ("ivy_backend_last_acknowledged_timestamp_seconds", ())
    node.wait_for(lambda: acknowledged in figures(node), 90, "an acknowledgement in the figures")
    assert figures(node)["ivy_backend_connected", ()] == 1


def test_a_directory_that_the_sandbox_forbids_is_said_and_costs_nothing(node: Node) -> None:
    config = read_config(node)
    config["metrics"] = {"textfile_directory": "/etc"}
    write_config(node, config)
    node.run(["ivy", "restart"])
    node.wait_for(
        lambda: "/etc/ivy.prom could not be written" in node.journal("--unit=ivy-system-checks"), 20, "the warning"
    )
    assert node.run(["systemctl", "is-active", "ivy-system-checks"]).stdout == "active\n"


def test_help_is_installed(ivy_node: Node) -> None:
    packed = ivy_node.run(["dpkg", "-L", "ivy"]).stdout.split()
    for path in (
        "/usr/share/man/man1/ivy.1.gz",
        "/usr/share/man/man5/ivy-config.5.gz",
        "/usr/share/bash-completion/completions/ivy",
        "/usr/share/zsh/vendor-completions/_ivy",
        "/usr/share/fish/vendor_completions.d/ivy.fish",
    ):
        assert path in packed
    complete = ". /usr/share/bash-completion/completions/ivy; COMP_WORDS=(ivy run ''); COMP_CWORD=2; _ivy"
    services = ivy_node.run(["bash", "-c", f'{complete}; echo "${{COMPREPLY[@]}}"']).stdout.split()
    assert {"system-checks", "tenta", "thingsboard", "updater"} <= set(services)
    for page, word in (("ivy", "rollback"), ("ivy-config", "seconds_of_probation")):
        assert word in ivy_node.run(["man", page], env={"MANPAGER": "cat"}).stdout


def test_who_may_not_look_is_told_to_try_sudo(ivy_node: Node) -> None:
    """Whatever looks first: the script that finds the release, Python, or the command."""
    for command in (["config", "show"], ["queue"], ["messages"], ["releases"]):
        somebody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "ivy", *command]
        found = ivy_node.run(somebody, check=False)
        assert (found.returncode, found.stdout) == (1, ""), found
        assert found.stderr.startswith("ivy: not permitted, try sudo: /"), found


def test_what_nodes_talk_to_can_be_had_by_commands_of_the_bed(bed: Bed, ivy_node: Node, tmp_path: Path) -> None:
    with of_bed(bed, "git-server", "you/ivy", "you/other") as said:
        assert said.startswith("https://github.com/you/ivy, for the nodes")
        mine = tmp_path / "mine"
        run(["git", "init", "--quiet", mine])
        identity = ["-c", "user.name=you", "-c", "user.email=you@example.org"]
        run(["git", "-C", mine, *identity, "commit", "--quiet", "--allow-empty", "--message=x"])
        run(["git", "-C", mine, "push", "--quiet", said.rpartition(": ")[2].strip(), "HEAD:refs/heads/main"])
        found = ivy_node.run(["git", "ls-remote", "https://github.com/you/ivy.git"]).stdout
    assert "refs/heads/main" in found
    ivy_node.path("/etc/gitconfig").unlink()
    write_wheel(tmp_path, "rain", {"rain.py": "MILLIMETRES = 8\n"})
    with of_bed(bed, "index", str(tmp_path)):
        ivy_node.run(["python3", "-m", "pip", "install", "--target=/root/libraries", "rain"], timeout=120)
    assert ivy_node.path("/root/libraries/rain.py").is_file()
    ivy_node.path("/etc/pip.conf").unlink()
    with of_bed(bed, "platform", "thingsboard", "seen") as said:
        assert said.endswith("access token: seen\n")
        ivy_node.run(["bash", "-c", "exec 3<>/dev/tcp/gateway/1884"])


def test_what_was_sampled_is_exported_and_drawn(node: Node) -> None:
    def has_samples() -> bool:
        lines = node.run(["ivy", "messages", "--since", "-1h", "--key", "random_walk_position", "--json"]).stdout
        return len(lines.splitlines()) >= 2

    node.wait_for(has_samples, 40, "two samples")
    first = json.loads(node.run(["ivy", "messages", "--kind", "data", "--json"]).stdout.splitlines()[0])
    assert first["message_body"]["variant"] == "data"
    table = node.run(["ivy", "messages", "--since", "-1h", "--csv"]).stdout
    assert table.startswith("timestamp,time_utc,timestamp_in_doubt,")
    plot = ["ivy", "plot", "random_walk_position", "--since", "-1h"]
    missing = node.run(plot, check=False)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "ivy: drawing needs the program gnuplot: apt install gnuplot-nox\n"
    node.run(["apt-get", "install", "--yes", "--no-install-recommends", "gnuplot-nox"], timeout=300)
    for locale, dots in (("C.UTF-8", "[\u2801-\u28ff]"), ("C", "[*]")):
        drawn = node.run(["env", f"LC_ALL={locale}", "TERM=xterm", "COLUMNS=60", *plot]).stdout
        assert re.search(dots, drawn) and drawn.isascii() == (locale == "C") and "\033" not in drawn
        assert "random_walk_position  min" in drawn and max(map(len, drawn.splitlines())) <= 60
    node.run([*plot, "--svg", "/root/a.svg", "--png", "/root/a.png"])
    assert "random_walk_position  min" in "".join(ET.parse(node.path("/root/a.svg")).getroot().itertext())
    assert node.path("/root/a.png").read_bytes().startswith(b"\x89PNG")
    terminal = node.run(
        ["script", "--quiet", "--command", f"TERM=xterm LC_ALL=C.UTF-8 {' '.join(plot)}", "/dev/null"]
    )
    assert re.search("\033\\[22;36m[\u2801-\u28ff]", terminal.stdout)
