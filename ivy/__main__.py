"""`python -m ivy`: the `ivy` command."""

from ivy.cli.main import main

if __name__ == "__main__":
    main()
