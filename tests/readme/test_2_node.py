"""Chapter "Install on a node"."""

import datetime
import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ivy.types.messages import DataMessageBody
from ivy.types.secrets import HIDDEN
from ivy.utils.storage import archive
from tests.readme.conftest import Started
from tests.readme.desk import Desk
from tests.readme.document import Document
from tests.readme.fleet import FleetDesk
from tests.readme.site import COLLECTOR, IDENTIFIER, REPOSITORY, USERS, Site, merged, write_wanted
from tests.readme.terminal import INTERRUPT, Terminal
from tests.support.installed import read_config, wait_until_connected, write_config
from tests.support.validators.prometheus import parse

UPDATER = {"repository": REPOSITORY, "provider": "github", "provider_host": "github.com", "seconds_of_probation": 3}
# What `ivy setup` asks, and what is answered; nothing, where it proposes the right thing.
ANSWERS = (
    ("Backend", ""),
    ("Name of this node", IDENTIFIER),
    ("Host", "broker.example.org"),
    ("Encrypted", ""),
    ("Port", ""),
    ("User name", ""),
    ("Password", USERS[IDENTIFIER]),
)


def test_apt_installs_it_and_it_samples(readme: Document, site: Site, package: Path, roof: Terminal) -> None:
    site.roof.copy_in(package, "/root/dist")
    roof.type(readme.take("apt install"))
    roof.expect("Continue")
    roof.type("y")
    roof.finish(300)
    site.roof.wait_for(lambda: "random_walk_position" in roof.run("ivy messages"), 40, "the first sample")


def test_setup_asks_for_what_it_needs(readme: Document, site: Site, roof: Terminal, fleet: FleetDesk) -> None:
    write_config(site.roof, {**read_config(site.roof), "updater": UPDATER})  # not half a minute of probation
    roof.run("ivy restart")
    roof.type(readme.take("ivy setup"))
    for question, answer in ANSWERS:
        roof.expect(f"{question}[^\n]*: $")
        roof.type(answer)
    roof.finish(120)
    wait_until_connected(site.roof)


def shown_backend(readme: Document) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(f"{{{readme.block('json', 'mqtt_connection')}}}")
    return shown


def test_setup_has_written_what_the_readme_shows(readme: Document, site: Site) -> None:
    config, shown = read_config(site.roof), shown_backend(readme)
    assert config["general"]["system_identifier"] == IDENTIFIER
    there = {"client_id": IDENTIFIER, "username": HIDDEN, "password": HIDDEN}
    assert merged(config, merged(shown, {"backend": {"mqtt_connection": there}})) == config


def test_the_config_can_be_edited(readme: Document, site: Site, roof: Terminal) -> None:
    metrics = json.loads(f"{{{readme.span(chr(34) + 'metrics')}}}")
    wanted = merged(merged(read_config(site.roof), shown_backend(readme)), metrics)
    write_wanted(site.roof, wanted)
    roof.run(readme.take("ivy config edit"), 120)
    assert read_config(site.roof)["backend"]["mqtt_connection"]["client_id"] == "roof-7"
    wait_until_connected(site.roof)
    site.wait_for_sample(IDENTIFIER, "random_walk_position")


def test_the_doctor_says_what_to_do(readme: Document, roof: Terminal) -> None:
    roof.type(readme.take("ivy doctor"))
    printed = re.sub(r"\x1b\[\d*m", "", roof.finish(status=None))  # 1 if something is to be done, as for the clock
    findings = re.findall(r"(?m)^(ok|BAD) +(\S+)", printed)
    assert ("ok", "login") in findings
    assert printed.count("→") == sum(mark == "BAD" for mark, _ in findings)


def test_what_can_be_seen(readme: Document, site: Site, roof: Terminal) -> None:
    site.wait_until_well(site.roof)
    assert "all is well" in roof.run(readme.take("ivy status"))
    assert json.loads(site.roof.run(readme.take("ivy status --json").split()).stdout)["well"]
    roof.type(readme.take("systemctl status 'ivy-"))
    assert "ivy-dummy-procedure.service" in roof.finish(status=None)  # 3 where one is inactive, as the updater is
    assert "Started ivy-tenta.service" in roof.run(readme.take("journalctl"))
    assert "random_walk_position" in roof.run(readme.take("ivy messages"))
    files = Path(readme.span("/var/lib/ivy/data/messages"))
    assert list(site.roof.path(files.parent).glob(files.name))
    roof.run(readme.take("ivy queue"))
    assert "seconds_of_probation" in roof.run(readme.take("man ivy-config"))
    host = read_config(site.roof)["backend"]["mqtt_connection"]["host"]
    assert f'"{host}"' in roof.run(readme.take("ivy config get"))
    assert "rollback" in roof.run(readme.take("man ivy"))
    assert "RECOVERY" in roof.run(readme.take("man ivy-fleet"))
    assert "undisturbed" in roof.run(readme.take("man ivy-procedure"))


def test_logs_can_be_followed(readme: Document, roof: Terminal) -> None:
    roof.type(readme.take("ivy logs tenta -f"))
    roof.expect("Started ivy-tenta.service")
    roof.press(INTERRUPT)
    roof.finish(status=None)


def plant_samples(site: Site) -> None:
    """In the month of which the README speaks."""
    path = site.roof.path("/var/lib/ivy/data/messages/2026-11-05.csv")
    appender = archive.Appender()
    taken = datetime.datetime(2026, 11, 5, 12, tzinfo=datetime.UTC).timestamp()
    for number in range(10):
        body = DataMessageBody(data={"temperature_celsius": number / 2, "humidity": 60 + number})
        appender.append(str(path), archive.line(taken + 60 * number, body.model_dump_json()))
    appender.close()


def test_data_arrive_at_the_desk(
    readme: Document, site: Site, desk: Desk, roof: Terminal, started: Started
) -> None:
    plant_samples(site)
    site.roof.path("/root/temporary").touch()  # what a shell would put for 'temp*'
    started.pandas.result()
    report = desk.terminal(desk.home, path=str(desk.home / "pandas/bin"))
    report.run(readme.take("ssh roof-7"))
    assert "temperature_celsius" in (frame := report.run(readme.take("python3 -c"))) and "time_utc" in frame
    roof.run(readme.take("ivy plot 'temp*' --since 2026"))
    assert "<svg" in site.roof.path("/root/november.svg").read_text()
    assert site.roof.path("/root/november.png").read_bytes().startswith(b"\x89PNG")


def test_a_card_is_read_at_the_desk(readme: Document, site: Site, desk: Desk, started: Started) -> None:
    started.cards.result()
    reader = desk.terminal(desk.home)
    reader.run(readme.take("~/ivy/bin/ivy messages", {"/mnt/card": str(site.roof.path("/"))}))
    assert "temperature_celsius" in (desk.home / "dead.csv").read_text().partition("\n")[0]


def test_data_are_sent_again(readme: Document, site: Site, roof: Terminal) -> None:
    count = readme.take("ivy resend")
    assert "10 messages (10 data)" in roof.run(count)
    roof.run(count.replace(" --dry-run", ""))
    site.recorder.wait_for_element("measurements", 60, "what nobody has sent before", "humidity")


def test_an_editor_can_know_the_config(readme: Document, site: Site, roof: Terminal) -> None:
    roof.run(readme.take("ivy config schema"))
    [association] = json.loads(readme.block("json", "json.schemas"))["json.schemas"]
    schema = json.loads(site.roof.path(f"/root/{association['url']}").read_text())
    assert {"backend", "general"} <= schema["properties"].keys()
    assert any(fnmatch("config.template.json", pattern) for pattern in association["fileMatch"])


def test_prometheus_can_read_figures(readme: Document, site: Site, roof: Terminal) -> None:
    roof.run(readme.take("ln -s"))
    without_rights = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]

    def read() -> str:
        return site.roof.run([*without_rights, "cat", f"{COLLECTOR}/ivy.prom"], check=False).stdout

    assert ("ivy_backend_connected", ()) in parse(site.roof.wait_for(read, 90, "the figures"))
