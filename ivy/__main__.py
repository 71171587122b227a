"""`python -m ivy`: the `ivy` command."""

import sys


def _main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "run" and not sys.argv[2].startswith("-"):
        # What a unit calls stays in memory for years, so it goes without the parser of all the other arguments.
        from ivy.main import run_service

        run_service(sys.argv[2])
    from ivy.cli.main import main

    main()


if __name__ == "__main__":
    _main()
