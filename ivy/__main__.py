"""`python -m ivy`: the `ivy` command."""

import contextlib
import gc
import os
import sys
import types
from collections.abc import Generator


def _main() -> None:
    _load_no_plugins()
    if len(sys.argv) == 3 and sys.argv[1] == "run" and not sys.argv[2].startswith("-"):
        # What a unit calls stays in memory for years, so it goes without the parser of all the other arguments.
        name = sys.argv[2]
        with _without_collector() if name == "updater" else contextlib.nullcontext():
            from ivy.main import run_service

        run_service(name)
    with _without_collector():
        from ivy.cli.main import main

    main()


@contextlib.contextmanager
def _without_collector() -> Generator[None, None, None]:
    """Load without looking for garbage, again and again, in what stays: a tenth of what a command costs.

    Not for services: the little garbage there is, 0.15 MB, they would keep for years.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _load_no_plugins() -> None:
    """Spare us what pydantic would look for plugins with, 1 to 2 MB and 15 ms, if the environment says: no plugins.

    Nothing but that module of pydantic's ever sees the empty one; whoever imports it later gets the real one.
    """
    needed = "importlib.metadata"
    if os.environ.get("PYDANTIC_DISABLE_PLUGINS") != "__all__" or needed in sys.modules:
        return
    sys.modules[needed] = types.ModuleType(needed)
    # Should another release of it need more than that, it is loaded as usual by whoever imports it next.
    with contextlib.suppress(Exception):
        import pydantic.plugin._loader  # noqa: F401
    del sys.modules[needed]


if __name__ == "__main__":
    _main()
