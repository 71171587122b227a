"""The role refuses variables that nobody knows; so it must know all that the collection uses or notes."""

import re

from tests.support.ansible_plugin import COLLECTION

ROLE = COLLECTION / "roles" / "ivy"
VARIABLE = r"\bivy_[a-z_]+"
TAG = "ivy_install"


def test_the_role_knows_all_variables_of_the_collection() -> None:
    words = (ROLE / "vars" / "main.yml").read_text()
    listed = {f"ivy_{name}" for line in re.findall(r"(?m)^  ([a-z_ ]+)$", words) for name in line.split()}
    options = re.findall(rf"(?m)^      ({VARIABLE}):", (ROLE / "meta" / "argument_specs.yml").read_text())
    tasks = [path for path in COLLECTION.rglob("*.yml") if path != ROLE / "vars" / "main.yml"]
    used = {name for path in [*tasks, COLLECTION / "README.md"] for name in re.findall(VARIABLE, path.read_text())}
    assert {"ivy_config", "ivy_nodes", "ivy_release"} <= used
    of_groups = {name for name in used if name.startswith("ivy_node_config_")}
    assert used - {TAG} - of_groups <= listed | set(options)
