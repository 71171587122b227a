"""Plays on nodes that are none: what comes of what their programs say."""

import csv
import json
import tarfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from testbed.run import Argv, run

from tests.fleet.desk import ANSIBLE
from tests.fleet.pretence import Pretence
from tests.support.cases import with_few
from tests.support.releases import PROJECT

WELL: dict[str, Any] = {"well": True, "problems": [], "version": "1.2.3", "config_revision": -1, "units": []}


@pytest.fixture
def nodes(tmp_path: Path) -> Generator[Pretence, None, None]:
    """Three of them, of which n1 is the canary."""
    nodes = Pretence(tmp_path, 3)
    yield nodes
    nodes.close()


def says(nodes: Pretence, node: str, **status: Any) -> None:
    """Let `ivy status --json` of a node say this."""
    found = {**WELL, **status}
    nodes.program(node, "ivy", f"#!/bin/sh\ncat <<'.'\n{json.dumps(found)}\n.\nexit {0 if found['well'] else 1}\n")


def test_the_status_fails_where_a_node_is_not_well_and_is_reported(nodes: Pretence, tmp_path: Path) -> None:
    for name in nodes.names:
        says(nodes, name, config_digest=f"digest-of-{name}")
    report = tmp_path / "fleet.csv"
    assert "3 of 3 nodes are well" in nodes.desk.play("status", ivy_report=str(report)).succeeded().output
    says(nodes, "n2", well=False, problems=["disk: full"])
    nodes.take_away("n3")
    play = nodes.desk.play("status", ivy_report=str(report))
    assert play.status != 0 and play.recap("failed") == 2 and "1 of 3 nodes are well" in play.output
    with report.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["problems"] for line in lines] == ["", "disk: full", "cannot be reached"]
    assert lines[0]["config_digest"] == "digest-of-n1"


def test_the_archive_is_collected_and_nothing_at_the_desk_is_replaced(nodes: Pretence, tmp_path: Path) -> None:
    """The whole way through Ansible, but for the user ivy, who is none here."""
    for name in nodes.names:
        nodes.program(name, "setpriv", '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n')
        read_here = 'sed "s|/var/lib/ivy|$NODE|" | exec /usr/bin/python3 -IS -'
        nodes.program(
            name, "python3", f'#!/bin/sh\ncase $* in "-IS -") {read_here};; esac\nexec /usr/bin/python3 "$@"\n'
        )
        day = nodes.directory / name / "data" / "messages" / "2026-01-01.csv"
        day.parent.mkdir(parents=True)
        day.write_text(f"of {name}\n")
    archive = {"ivy_archive": str(tmp_path / "archive")}
    assert nodes.desk.play("collect", "--check", **archive).succeeded().recap("changed") == 3
    assert nodes.desk.play("collect", **archive).succeeded().recap("changed") == 3
    day.write_text("another\n")
    play = nodes.desk.play("collect", **archive).succeeded()
    assert play.recap("changed") == 1 and "both are kept" in play.output
    found = {
        str(path.relative_to(tmp_path / "archive")): path.read_text() for path in tmp_path.glob("archive/*/*.csv")
    }
    assert found == {
        "n1/2026-01-01.csv": "of n1\n",
        "n2/2026-01-01.csv": "of n2\n",
        "n3/2026-01-01.csv": "of n3\n",
        "n3/2026-01-01.2.csv": "another\n",
    }


RELEASES = """#!/bin/sh
runs=$(cat "$NODE/version" 2>/dev/null || echo 1.0.0)
case $* in
    "releases --json")
        echo '{"on_trial": null, "decisions": [], "releases": [{"version": "'$runs'", "roles": ["runs"]}]}'
        ;;
    "update "*) echo "$2" >"$NODE/version" ;;
    "status --json") cat "$NODE/status.json" ;;
    *) exit 2 ;;
esac
"""


def updatable(nodes: Pretence) -> None:
    """Let them run what they are told to."""
    for name in nodes.names:
        nodes.program(name, "ivy", RELEASES)
        (nodes.directory / name / "status.json").write_text(json.dumps(WELL))


def versions(nodes: Pretence) -> list[str]:
    """Of all nodes, in their order; nothing for one that was not updated."""
    files = [nodes.directory / name / "version" for name in nodes.names]
    return [file.read_text().strip() if file.exists() else "" for file in files]


UPDATE = {"ivy_target": "2.0.0", "ivy_soak_seconds": 3, "ivy_seconds_to_wait": 3, "ivy_batch": 1}


def test_a_node_that_is_away_is_set_aside_and_the_others_go_on(nodes: Pretence) -> None:
    updatable(nodes)
    nodes.take_away("n2")
    play = nodes.desk.play("update", **UPDATE)
    assert play.status != 0 and versions(nodes) == ["2.0.0", "", "2.0.0"], play.output[-6000:]
    assert play.recap("failed") == 1 and "could not be reached, and was set aside" in play.output
    nodes.take_away()
    nodes.desk.play("update", **UPDATE).succeeded()
    assert versions(nodes) == ["2.0.0"] * 3


@pytest.mark.thorough
def test_where_too_many_are_away_nothing_goes_on(nodes: Pretence) -> None:
    updatable(nodes)
    nodes.take_away("n2")
    play = nodes.desk.play("update", **UPDATE, ivy_tolerated_away_percentage=49)
    assert play.status != 0 and versions(nodes) == ["2.0.0", "", ""]
    assert "n2 cannot be reached: too many to go on" in play.output


def test_a_canary_that_restarts_a_service_while_it_is_watched_ends_the_update(nodes: Pretence) -> None:
    updatable(nodes)
    unit = {"name": "ivy-co2.service", "state": "active (running)", "status": "", "invocation": "a", "restarts": 0}
    (nodes.directory / "n1" / "status.json").write_text(json.dumps({**WELL, "units": [unit]}))
    counting = 'sed "s/\\"restarts\\": 0/\\"restarts\\": $(date +%s)/" "$NODE/status.json"'
    nodes.program("n1", "ivy", RELEASES.replace('cat "$NODE/status.json"', counting))
    play = nodes.desk.play("update", **UPDATE)
    assert play.status != 0 and versions(nodes) == ["2.0.0", "", ""]
    assert "ivy-co2.service has started again" in play.output


@pytest.mark.parametrize(
    ("system", "is_refused"),
    with_few(
        [
            ('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', True),
            ('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n', False),
            ('ID=fedora\nVERSION_ID="42"\nPRETTY_NAME="Fedora Linux 42"\n', True),
            ('ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n', False),
        ]
    ),
)
def test_another_system_is_refused_and_a_bare_node_would_change(
    nodes: Pretence, system: str, is_refused: bool
) -> None:
    """Without python3-apt, that is; here there may be one."""
    for program, script in {"dpkg": "exit 0", "ls": "exit 0", "cat": f"printf '%s' '{system}'"}.items():
        nodes.program("n1", program, f"#!/bin/sh\n{script}\n")
    nodes.let_raw_be_of("n1")
    play = nodes.desk.play("provision", "--check", "--limit", "n1", ivy_appliance=False)
    if is_refused:
        name = system.partition("PRETTY_NAME=")[2].strip().strip('"')
        assert play.status != 0 and f"This node has {name}." in play.output
    else:
        assert play.succeeded().recap("changed") > 0, play.output


def test_what_a_group_says_is_merged_with_what_the_host_says(nodes: Pretence) -> None:
    """Seen in what is refused: a secret in the wrong place."""
    wrong = {"backend": {"mqtt_connection": {"password": "typed-into-a-group"}}}
    play = nodes.desk.play(
        "provision", "--check", "--limit", "n1", ivy_node_config_roofs=wrong, ivy_node_config={"wind": {"a": 1}}
    )
    assert play.status != 0 and "Passwords and tokens belong into ivy_secrets" in play.output


def test_what_is_published_has_its_license_and_changelog(tmp_path: Path) -> None:
    command: Argv = [ANSIBLE / "ansible-galaxy", "collection", "build", "--output-path", tmp_path]
    run([*command, PROJECT / "packaging" / "ansible"], timeout=120)
    [made] = tmp_path.glob("ivy-fleet-*.tar.gz")
    with tarfile.open(made) as archive:
        license_ = archive.extractfile("LICENSE")
        assert license_ is not None and license_.read() == (PROJECT / "LICENSE").read_bytes()
        assert {"CHANGELOG.md", "README.md", "playbooks/update.yml"} <= set(archive.getnames())


ROLE = "- name: Provision\n  ansible.builtin.command: provision\n  changed_when: true\n"


@pytest.fixture
def stub(nodes: Pretence, tmp_path: Path) -> Pretence:
    """The role only writes down that it was there, with when; the order is that of the numbers."""
    role = tmp_path / "collections/ansible_collections/ivy/fleet/roles/ivy"
    (role / "tasks/main.yml").write_text(ROLE)
    (role / "meta/argument_specs.yml").unlink()
    for name in nodes.names:
        nodes.program(name, "provision", f"#!/bin/sh\necho {name} >>{tmp_path}/order\n")
    return nodes


def order(tmp_path: Path) -> list[str]:
    path = tmp_path / "order"
    return path.read_text().split() if path.exists() else []


def test_canaries_are_provisioned_first_and_a_bad_one_ends_it(stub: Pretence, tmp_path: Path) -> None:
    stub.desk.play("provision", ivy_batch=1).succeeded()
    assert order(tmp_path) == ["n1", "n2", "n3"]
    stub.program("n1", "provision", "#!/bin/sh\nexit 1\n")
    assert stub.desk.play("provision").status != 0 and len(order(tmp_path)) == 3
    stub.desk.play("provision", "--limit", "n2").succeeded()
    assert order(tmp_path)[3:] == ["n2"]


@pytest.mark.thorough
def test_one_that_is_away_is_provisioned_another_time(stub: Pretence, tmp_path: Path) -> None:
    stub.take_away("n2")
    play = stub.desk.play("provision", ivy_batch=1)
    assert play.status != 0 and order(tmp_path) == ["n1", "n3"], play.output[-6000:]
    assert "could not be reached, and was set aside" in play.output
