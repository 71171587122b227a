"""`python -m ivy`: the `ivy` command."""

import contextlib
import os
import sys
import types


def _main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "run" and not sys.argv[2].startswith("-"):
        # What a unit calls stays in memory for years, so it goes without the parser of all the other arguments.
        _load_no_plugins()
        from ivy.main import run_service

        run_service(sys.argv[2])
    from ivy.cli.main import main

    main()


def _load_no_plugins() -> None:
    """Spare a service what pydantic would look for plugins with, 1 to 2 MB, if the environment says: no plugins.

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
