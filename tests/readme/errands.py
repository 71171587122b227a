"""What a reader of the README starts and leaves alone while it takes its time."""

from concurrent.futures import Future, ThreadPoolExecutor

from tests.readme.terminal import Terminal

LONGEST = 600


class Errands:
    """Lines at one terminal, one after the other, while the story goes on."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._pool = ThreadPoolExecutor(max_workers=1)

    def begin(self, line: str, timeout: float = LONGEST, after: "Future[str] | None" = None) -> "Future[str]":
        """Run a line after those before, and after another's.

        Returns: What it prints, once it has ended; it fails as `Terminal.run` does.
        """

        def run() -> str:
            if after is not None:
                after.result()
            return self._terminal.run(line, timeout)

        return self._pool.submit(run)

    def close(self) -> None:
        """Forget what was not begun, and wait for what was."""
        self._pool.shutdown(cancel_futures=True)
