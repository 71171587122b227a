"""Chapter "Updates over the air": release 1.2.0, with the thermometer."""

from tests.readme import four
from tests.readme.conftest import PASSPHRASE
from tests.readme.desk import Desk
from tests.readme.document import Document
from tests.readme.site import IDENTIFIER, Site, merged, write_wanted
from tests.readme.terminal import Terminal
from tests.support.installed import read_config
from tests.support.releases import STATEMENTS, THIS, set_version

KEY = "temperature_celsius"


def test_a_version_is_released(readme: Document, desk: Desk, site: Site, terminal: Terminal, signers: str) -> None:
    set_version(desk.clone, "1.2.0", [readme.span(name) for name in STATEMENTS])
    terminal.run("packaging/test unit -- -k test_constants", 300)  # "a test compares them"
    terminal.run("git add --all && git commit --quiet --message 'thermometer: the one on the serial port'")
    terminal.run(f"git remote set-url origin {site.repository}")
    terminal.run(readme.take("git config"))
    terminal.type(readme.take("git tag"))
    terminal.expect("passphrase.*: ")
    terminal.type(PASSPHRASE)
    terminal.finish()


def test_a_node_takes_it(readme: Document, site: Site, roof: Terminal, signers: str) -> None:
    site.roof.path("/etc/ivy/allowed_signers").write_text(f"{signers}\n")
    site.connect_sensor(site.roof)
    roof.run(readme.take("ivy update"), 180)
    site.wait_for_sample(IDENTIFIER, KEY)
    shown = "systemctl status ivy-thermometer"  # it says so after the sample was added
    site.roof.wait_for(lambda: "21.5 °C" in roof.run(shown), 20, "what it measures")
    assert KEY in roof.run(readme.take("ivy plot 'temp*' --since -2d"))


def test_it_can_be_taken_back_and_used_again(readme: Document, site: Site, roof: Terminal) -> None:
    roof.run(readme.take("ivy rollback"), 180)
    # By the end of the procedure, and then by its unit, though the release that is back has neither.
    assert four.levels(site.roof, four.HEATER)[-2:] == [0, 0]
    config = read_config(site.roof)
    assert config["general"]["software_version"] == THIS
    version = {"general": {"software_version": "1.2.0"}, "thermometer": {"seconds_between_datapoints": 60}}
    file = write_wanted(site.roof, merged(config, version))
    roof.run(readme.take("ivy config apply", {"FILE": file}), 180)
    assert read_config(site.roof)["thermometer"] == version["thermometer"]
    site.wait_for_sample(IDENTIFIER, KEY)
    printed = roof.run(readme.take("ivy releases"))
    assert "1.2.0" in printed and "accepted" in printed
