"""Certificates for tests."""

import subprocess
from pathlib import Path


def openssl(directory: Path, command: str, *arguments: str) -> None:
    """Run a command of `openssl` in a directory, `req` with a new key."""
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"] if command == "req" else []
    subprocess.run(["openssl", command, *new_key, *arguments], cwd=directory, check=True, capture_output=True)
