"""A web server in this process, by threads of its own."""

import threading
from http.server import ThreadingHTTPServer


class BackgroundServer:
    """Listens from the start until it is closed."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
