"""Files of a connection that are not what they should be: each is named, with what it should be."""

from pathlib import Path
from typing import Any

import pytest

from ivy.backend import encryption
from ivy.types.config import TLSConfig
from tests.support.openssl import openssl


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A directory with two certificates and their keys, in several forms."""
    for name in ("own", "other"):
        openssl(tmp_path, "req", "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl(tmp_path, "x509", "-in", "own.pem", "-outform", "der", "-out", "own.der")
    openssl(tmp_path, "pkey", "-in", "own.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key")
    (tmp_path / "empty.pem").touch()
    (tmp_path / "cut.pem").write_bytes((tmp_path / "own.pem").read_bytes()[:200])
    return tmp_path


@pytest.mark.parametrize("name", ["own.der", "own.key", "empty.pem", "cut.pem"])
def test_an_authority_that_is_none(certificates: Path, name: str) -> None:
    path = certificates / name
    with pytest.raises(ValueError, match=f"tls.ca_file: {path} must hold certificates, as PEM"):
        encryption.context(TLSConfig(enabled=True, ca_file=str(path)))


@pytest.mark.parametrize(
    ("certificate", "key"), [("own.pem", "other.key"), ("own.key", "own.pem"), ("own.der", "own.key")]
)
def test_a_certificate_and_a_key_that_do_not_go_together(certificates: Path, certificate: str, key: str) -> None:
    files: dict[str, Any] = {
        "certificate_file": str(certificates / certificate),
        "key_file": str(certificates / key),
    }
    what = f"tls.key_file: {files['key_file']} must be the key of tls.certificate_file: {files['certificate_file']}"
    with pytest.raises(ValueError, match=what):
        encryption.context(TLSConfig(enabled=True, **files))


def test_for_the_pass_phrase_of_a_key_nobody_is_asked(certificates: Path) -> None:
    """OpenSSL would, at the terminal of whoever runs a command, for as long as nobody types it."""
    files: dict[str, Any] = {
        "certificate_file": str(certificates / "own.pem"),
        "key_file": str(certificates / "locked.key"),
    }
    with pytest.raises(ValueError, match=f"{files['key_file']} is encrypted.*openssl pkey -in {files['key_file']}"):
        encryption.context(TLSConfig(enabled=True, **files))
