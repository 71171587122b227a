"""What people and other programs find on a node: help, pictures, figures for Prometheus."""

import json
import re
import xml.etree.ElementTree as ET

from testbed.bed import Node
from testbed.broker import Broker

from tests.support.installed import read_config, use_tenta, write_config
from tests.support.validators.prometheus import Parsed, parse

COLLECTOR = "/var/lib/prometheus/node-exporter"


def figures(node: Node) -> Parsed:
    """What node-exporter would read, as a user without rights, by the link that the README names."""
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat", f"{COLLECTOR}/ivy.prom"]
    found = node.run(command, check=False)
    return parse(found.stdout) if found.returncode == 0 else {}


def test_figures_for_prometheus_need_a_config_and_a_link(node: Node, broker: Broker) -> None:
    node.run(["mkdir", "--parents", COLLECTOR])
    node.run(["ln", "--symbolic", "/run/ivy/ivy.prom", COLLECTOR])
    assert figures(node) == {}
    use_tenta(node, broker, metrics={"textfile_directory": "/run/ivy"})
    node.wait_for(lambda: bool(figures(node)), 20, "the first figures")
    for service in ("dummy-procedure", "system-checks", "tenta"):
        assert figures(node)["ivy_unit_restarts_total", (("unit", f"ivy-{service}.service"),)] == 0
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
    ):
        assert path in packed
    complete = ". /usr/share/bash-completion/completions/ivy; COMP_WORDS=(ivy run ''); COMP_CWORD=2; _ivy"
    services = ivy_node.run(["bash", "-c", f'{complete}; echo "${{COMPREPLY[@]}}"']).stdout.split()
    assert {"dummy-procedure", "system-checks", "tenta", "thingsboard", "updater"} <= set(services)


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
