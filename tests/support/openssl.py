"""Certificates for tests."""

import subprocess
from pathlib import Path


def openssl(directory: Path, command: str, *arguments: str) -> None:
    """Run a command of `openssl` in a directory, `req` with a new key."""
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"] if command == "req" else []
    subprocess.run(["openssl", command, *new_key, *arguments], cwd=directory, check=True, capture_output=True)


_AUTHORITY = """
[ca]
default_ca = own
[own]
new_certs_dir = .
database = index
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
"""


def issue(directory: Path, authority: str, name: str, san: str, begin: str, end: str) -> None:
    """Make `name.key`, and `name.pem`, signed by `authority.pem`, for a host as `IP:127.0.0.1`, between two dates.

    Args:
        begin: As openssl-ca(1) wants it, e.g. `20990101000000Z`.
    """
    (directory / "authority").write_text(_AUTHORITY)
    (directory / "index").write_text("")
    (directory / "names").write_text(f"subjectAltName={san}")
    openssl(directory, "req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    signer = ["-cert", f"{authority}.pem", "-keyfile", f"{authority}.key"]
    dates = ["-startdate", begin, "-enddate", end]
    files = ["-config", "authority", "-extfile", "names", "-in", f"{name}.csr", "-out", f"{name}.pem"]
    openssl(directory, "ca", "-batch", "-notext", *signer, *dates, *files)
