"""The desk of a fleet as the README and the collection's own README set it up: two nodes, roof-1 and roof-2."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.readme.desk import Desk
from tests.readme.document import Document
from tests.readme.site import Site

NAMES = ("roof-1", "roof-2")
LONGEST_PLAY = 300
# Beside what the READMEs say: not so patient. The second has in its inventory what would take the group's place.
QUICK = {
    "group_vars/all/quick.yml": "ivy_soak_seconds: 1\n",
    "group_vars/canaries.yml": "ivy_node_config: {updater: {seconds_of_probation: 3}}\n",
    "host_vars/roof-2.yml": """\
ivy_node_config: {updater: {seconds_of_probation: 3}, system_checks: {seconds_between_checks: 300}}
""",
}


class FleetDesk:
    """Its own directory `fleet`, and a terminal."""

    def __init__(self, readme: Document, desk: Desk, site: Site, signers: str) -> None:
        self._readme = readme
        self._desk = desk
        self._site = site
        self._signers = signers
        self._directory = desk.directory / "fleet"
        self._terminal = desk.terminal(desk.clone, ANSIBLE_VAULT_PASSWORD_FILE=str(desk.home / "vault-password"))
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._provisioned: Future[str] | None = None

    def begin(self, venv: "Future[str]") -> None:
        """Set up the desk as soon as there is the virtual environment, and provision the nodes."""
        self._provisioned = self._pool.submit(self._provision, venv)

    def provisioned(self) -> str:
        """Wait for that. Returns what the play printed."""
        assert self._provisioned
        return self._provisioned.result()

    def play(self, name: str, more: str = "") -> str:
        """Play a playbook as the README does, perhaps with more arguments. Returns what was printed."""
        command = self._readme.take(f"ansible-playbook ivy.fleet.{name}")
        printed = self._terminal.run(f"{command}{more}", LONGEST_PLAY)
        assert all(f"{node} " in printed for node in NAMES), printed
        return printed

    def close(self) -> None:
        """Wait for what was begun."""
        self._pool.shutdown()

    def _provision(self, venv: "Future[str]") -> str:
        run, take = self._terminal.run, self._readme.take
        run(take("packaging/apt-repository"), LONGEST_PLAY)
        (self._site.web_root / "ivy").symlink_to(self._desk.clone / "dist/apt")
        venv.result()
        run(take(". ~/fleet-desk/bin/activate"))
        run(take("ansible-galaxy"))
        guide = Document((self._desk.clone / "packaging/ansible/README.md").read_text())
        self._write_files(guide)
        passwords = self._desk.home / "passwords.yml"
        passwords.write_text(guide.block("yaml", "vault_passwords: {"))
        run(f"cd {self._directory} && EDITOR='cp {passwords}' {guide.take('ansible-vault create')}")
        return self.play("provision")

    def _write_files(self, guide: Document) -> None:
        (self._desk.home / "vault-password").write_text("of the vault\n")
        files = {
            "ansible.cfg": guide.block("ini", "[defaults]"),
            "inventory.yml": guide.block("yaml", "canaries:"),
            "group_vars/all/main.yml": guide.block("yaml", "ivy_repository_url:"),
            "files/ivy-archive-keyring.asc": (self._desk.clone / "dist/apt/ivy-archive-keyring.asc").read_text(),
            "files/allowed_signers": f"{self._signers}\n",
            **QUICK,
        }
        for name, text in files.items():
            write(self._directory / name, text)


def write(path: Path, text: str) -> None:
    """Write a file, and make its directory if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
