"""TLS to a broker: its files, the handshake, and what is not checked while the clock is wrong."""

import contextlib
import errno
import os
import socket
import ssl
import stat
import time
from collections.abc import Generator

from ivy.types.config import TLSConfig
from ivy.utils.host import clock

_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING")
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: no dates, but everything else


def check_files(settings: TLSConfig) -> None:
    """See that the files of a connection can be read, and have an end: TLS would wait for a pipe, or read a device.

    Raises:
        OSError: One cannot; the error names the file, which that of TLS does not.
    """
    for path in filter(None, (settings.ca_file, settings.certificate_file, settings.key_file)):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", path)
        open(path, "rb").close()


def context(settings: TLSConfig) -> ssl.SSLContext:
    """What is demanded of a broker: a certificate for its name, from an authority that we know.

    Raises:
        OSError, ValueError: A file cannot be used.
    """
    check_files(settings)
    # Not the default context of Python: from 3.13 on it refuses what many a site's own authority has issued.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.ca_file is not None:
        with _blaming(f"tls.ca_file: {settings.ca_file} must hold certificates, as PEM: -----BEGIN CERTIFICATE"):
            made.load_verify_locations(settings.ca_file)
    else:
        made.load_default_certs()
    if settings.certificate_file is not None:
        _load_own(made, settings.certificate_file, settings.key_file)
    return made


def _load_own(made: ssl.SSLContext, certificate: str, key: str | None) -> None:
    def refuse() -> str:  # else OpenSSL would ask at the terminal, and a service fail with "Invalid argument"
        remedy = f"write it without a pass phrase: openssl pkey -in {key} -out NEW"
        raise ValueError(f"tls.key_file: {key} is encrypted, and nobody is there to open it; {remedy}")

    what = f"tls.key_file: {key} must be the key of tls.certificate_file: {certificate}, both as PEM: -----BEGIN …"
    with _blaming(what):
        made.load_cert_chain(certificate, key, password=refuse)


@contextlib.contextmanager
def _blaming(what: str) -> Generator[None, None, None]:
    """Let an error say which file it is about: OpenSSL does not."""
    try:
        yield
    except ssl.SSLError as error:
        raise ValueError(f"{what} ({error.reason or error})") from None


def encrypt(plain: socket.socket, context: ssl.SSLContext, host: str, deadline: float) -> ssl.SSLSocket:
    """Do the handshake; the plain connection is closed if that fails.

    Args:
        deadline: When it must be done, monotonic.

    Raises:
        OSError: It failed; `TimeoutError` if there was no time left.
    """
    try:
        plain.settimeout(max(0.001, deadline - time.monotonic()))
        return context.wrap_socket(plain, server_hostname=host)
    except (ConnectionError, ssl.SSLError) as error:
        plain.close()
        if isinstance(error, ssl.SSLError) and error.reason not in _NO_TLS:
            raise
        raise ConnectionError(f"{error} (is this port without encryption? See tls.enabled, and port)") from None
    except BaseException:
        plain.close()
        raise


def reason_to_ignore_dates(error: ssl.SSLCertVerificationError, settings: TLSConfig) -> str | None:
    """Why a connection may be made although a certificate's dates do not fit; None if it may not.

    A clock without a battery is wrong until there was a time server, and a node behind a firewall may never have
    one: it would be locked out for ever, and nobody would hear of it. A clock that is synchronised is believed.
    """
    if error.verify_code not in (_NOT_YET_VALID, _EXPIRED) or settings.check_dates == "always":
        return None
    if clock.is_synchronised() is not False:
        return None
    return (
        "the dates of the broker's certificates are not checked, as the clock is not synchronised"
        f" ({error.verify_message})"
    )


def ignore_dates(context: ssl.SSLContext) -> None:
    """Check all but the dates from now on."""
    context.verify_flags |= _NO_CHECK_TIME
