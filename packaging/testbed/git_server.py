"""A real git server, which the nodes take for GitHub and GitLab: git's own backend behind lighttpd.

It ends with the process that started it. What is in the repositories is not its job.
"""

import http.client
import re
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from testbed.node import Node
from testbed.run import PATIENCE, run
from testbed.server import Server, write_private
from testbed.tls_front import TlsFront
from testbed.waiting import wait_for

HOSTS = ("github.com", "gitlab.com")
# GitHub and GitLab look at the token only; a file of passwords needs names. These are the usual ones.
USERS = ("git", "gitlab-ci-token", "ivy", "oauth2", "token", "x-access-token")
BACKEND = "/usr/lib/git-core/git-http-backend"
MODULES = ("accesslog", "alias", "auth", "authn_file", "cgi", "redirect", "setenv")
MARK = "/mark-"  # requests of our own, which are not counted
COUNT_TIMEOUT = 10
CERTIFICATE = "/usr/local/share/testbed-git.pem"  # on the nodes; everybody can read it


class GitServer(Server):
    """Repositories are named `organisation/name`, served as `http://address:port/organisation/name.git`, and as
    `https://github.com/organisation/name.git`, for nodes that `map_hosts` has shown the way.

    Asked for anything that is not public, it wants a password first, like GitHub: `token`, with any of USERS.
    Who asks for what has `moved` is sent to another URL.
    The bare repositories are in `directory`, made if need be; they and the counts survive stop, kill and restart.
    """

    program = "lighttpd"
    log_name = "lighttpd.log"

    def __init__(
        self,
        address: str,
        port: int = 8080,
        *,
        directory: Path,
        public: Iterable[str] = (),
        private: Iterable[str] = (),
        token: str = "",
        moved: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(address, port, directory)
        self._moved = dict(moved or {})
        self._public = tuple(public)
        self._private = tuple(private)
        self._token = token
        self._front = TlsFront(address, port, directory=directory / "tls", hosts=HOSTS)

    @property
    def url(self) -> str:
        """Where it is without TLS."""
        return f"http://{self.address}:{self.port}/"

    @property
    def certificate(self) -> Path:
        """Of HTTPS; it is there once the server runs."""
        return self._front.certificate

    def start(self) -> None:
        super().start()
        self._front.start()

    def _end(self, by: signal.Signals) -> None:
        self._front.stop()
        super()._end(by)

    def repository(self, name: str) -> Path:
        """Where the bare repository is on this machine: to push there, and to look into it."""
        return self._file("repositories") / f"{name}.git"

    def bytes_transferred(self) -> int:
        """All that HTTP carried so far in both directions: requests and responses with their headers, of every
        connection since the directory was made. Not TCP/IP's own headers, no TLS, which GitHub has, and not what
        stop() or kill() interrupted.

        Raises:
            BedError: The server does not run.
        """
        self._running_process()
        mark = f"{MARK}{time.monotonic_ns()}"
        self._request(mark)  # lighttpd is one process: what was finished before has been logged before
        wait_for(lambda: mark in self._requests(), COUNT_TIMEOUT, "lighttpd to write its access log")
        lines = [line.split(" ", 3) for line in self._requests().splitlines()]
        return sum(int(received) + int(sent) for _, received, sent, what in lines if MARK not in what)

    def _request(self, path: str) -> None:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=PATIENCE * COUNT_TIMEOUT)
        connection.request("GET", path)
        connection.getresponse().read()
        connection.close()

    def _requests(self) -> str:
        return self._file("requests.log").read_text(errors="replace")

    def _configure(self) -> list[str]:
        for name in (*self._public, *self._private):
            if not self.repository(name).exists():
                run(["git", "init", "--quiet", "--bare", "--initial-branch=main", self.repository(name)])
        self._file("repositories").mkdir(exist_ok=True)
        write_private(self._file("passwords"), "".join(f"{u}:{self._token}\n" for u in USERS if self._token))
        write_private(self._file("lighttpd.conf"), "\n".join([*self._settings(), ""]))
        return ["lighttpd", "-D", "-f", str(self._file("lighttpd.conf"))]

    def _settings(self) -> list[str]:
        modules = ", ".join(f'"mod_{module}"' for module in MODULES)
        public = "|".join(re.escape(name) for name in (*self._public, *self._moved))
        moved = (f'"^/{re.escape(name)}\\.git/(.*)" => "{url}/$1"' for name, url in self._moved.items())
        return [
            f'server.bind = "{self.address}"',
            f"server.port = {self.port}",
            f'server.document-root = "{self._file("repositories")}"',
            f"server.modules = ({modules})",
            f'server.errorlog = "{self.log}"',
            # Packs are passed on as they come, not collected in a file first.
            "server.stream-request-body = 2",
            "server.stream-response-body = 2",
            # Into a pipe: a file would be written every few seconds only.
            f'accesslog.filename = "|exec cat >>{self._file("requests.log")}"',
            r'accesslog.format = "%s %I %O %r"',
            f'alias.url = ("/" => "{BACKEND}/")',
            'cgi.assign = ("" => "")',
            f'setenv.set-environment = ("GIT_PROJECT_ROOT" => "{self._file("repositories")}",'
            ' "GIT_HTTP_EXPORT_ALL" => "1", "HOME" => "/nonexistent")',
            f"url.redirect = ({', '.join(moved)})",
            f'$HTTP["url"] !~ "^/({public})\\.git/" {{',
            '    auth.backend = "plain"',
            f'    auth.backend.plain.userfile = "{self._file("passwords")}"',
            '    auth.require = ("" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))',
            "}",
        ]


def map_hosts(node: Node, server: GitServer) -> None:
    """Let git in the node find the server where the real hosts would be, by HTTPS."""
    node.copy_in(server.certificate, CERTIFICATE)
    node.path("/etc/gitconfig").write_text(git_config(server))


def git_config(server: GitServer) -> str:
    """By which git does that, where the server's certificate is at `CERTIFICATE`."""
    found = "".join(f"\tcurloptResolve = {host}:443:{server.address}\n" for host in HOSTS)
    return f"[http]\n\tsslCAInfo = {CERTIFICATE}\n{found}"
