"""A web server that asks everybody for a login, and remembers what it gets. It has nothing else."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.background_server import BackgroundServer


class TokenTrap(BackgroundServer):
    """Listens until it is closed. `asked` are the paths that were asked for, `caught` the logins."""

    def __init__(self, address: str, port: int) -> None:
        self.asked: list[str] = []
        self.caught: list[str] = []
        trap = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                trap.asked.append(self.path)
                if login := self.headers["Authorization"]:
                    trap.caught.append(login)
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        super().__init__(ThreadingHTTPServer((address, port), Handler))
