"""Serves a disk by the NBD protocol to one client. What the disk does with what is written is its own affair.

Of the protocol (doc/proto.md of NetworkBlockDevice/nbd) this is the fixed newstyle handshake, without TLS, and the
commands READ, WRITE with FUA, FLUSH and DISC. TRIM and WRITE_ZEROES are not offered: clients write zeros instead.
"""

import errno
import socket
import struct
from typing import Protocol

_GREETING = struct.Struct(">8s8sH")
_OPTION = struct.Struct(">8sII")
_OPTION_REPLY = struct.Struct(">QIII")
_EXPORT = struct.Struct(">QH")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")

_IHAVEOPT = b"IHAVEOPT"
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC, _REPLY_MAGIC = 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_ACKNOWLEDGED, _INFORMATION, _UNSUPPORTED = 1, 3, (1 << 31) + 1
_HAS_FLAGS, _CAN_FLUSH, _CAN_FUA = 1, 4, 8
_READ, _WRITE, _DISCONNECT, _FLUSH = range(4)
_FUA = 1
_MOST_BYTES = 32 << 20  # of a request: what clients take for the limit if they are not told
_KNOWN_ERRORS = {errno.EPERM, errno.EIO, errno.EINVAL, errno.ENOSPC}


class NoAnswer(Exception):
    """Raised by a disk that leaves a request without an answer, and its client waiting. Others are served on."""


class Disk(Protocol):
    """What can be served. Errors are raised as OSError; those that NBD does not know arrive as EIO."""

    size: int
    """In bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes from there."""

    def write(self, offset: int, data: bytes, *, durable: bool) -> None:
        """If `durable`, this write is on the disk when it returns; else after the next `flush`."""

    def flush(self) -> None:
        """All that was written so far is on the disk when it returns."""


class _EndError(Exception):
    """The client is gone, or speaks something else."""


def serve(connection: socket.socket, disk: Disk) -> None:
    """Serve one client until it goes away. Requests are done one after the other, in the order of their arrival."""
    with connection:
        try:
            if _shake_hands(connection, disk):
                while _serve_request(connection, disk):
                    pass
        except (_EndError, ConnectionError):
            pass


def _shake_hands(connection: socket.socket, disk: Disk) -> bool:
    """Returns whether requests follow."""
    connection.sendall(_GREETING.pack(b"NBDMAGIC", _IHAVEOPT, _FIXED_NEWSTYLE | _NO_ZEROES))
    [wants_no_zeroes] = struct.unpack(">I", _receive(connection, 4))
    export = _EXPORT.pack(disk.size, _HAS_FLAGS | _CAN_FLUSH | _CAN_FUA)
    while True:
        magic, option, length = _OPTION.unpack(_receive(connection, _OPTION.size))
        if magic != _IHAVEOPT or length > _MOST_BYTES:
            raise _EndError
        _receive(connection, length)  # the name of the export: there is one only
        if option == _EXPORT_NAME:
            connection.sendall(export + (b"" if wants_no_zeroes & _NO_ZEROES else bytes(124)))
            return True
        if option in (_INFO, _GO):
            _answer(connection, option, _INFORMATION, b"\0\0" + export)
        is_known = option in (_INFO, _GO, _ABORT)
        _answer(connection, option, _ACKNOWLEDGED if is_known else _UNSUPPORTED)
        if option == _ABORT:
            return False
        if option == _GO:
            return True


def _answer(connection: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    connection.sendall(_OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, kind, len(data)) + data)


def _serve_request(connection: socket.socket, disk: Disk) -> bool:
    """Returns whether another one may follow."""
    magic, flags, command, handle, offset, length = _REQUEST.unpack(_receive(connection, _REQUEST.size))
    if magic != _REQUEST_MAGIC or (command == _WRITE and length > _MOST_BYTES):
        raise _EndError
    data = _receive(connection, length) if command == _WRITE else b""
    if command == _DISCONNECT:
        return False
    code, answer = 0, b""
    try:
        if command == _FLUSH:
            disk.flush()
        elif command not in (_READ, _WRITE) or length > _MOST_BYTES or offset + length > disk.size:
            code = errno.EINVAL
        elif command == _WRITE:
            disk.write(offset, data, durable=bool(flags & _FUA))
        else:
            answer = disk.read(offset, length)
    except NoAnswer:
        return True
    except OSError as error:
        code = error.errno if error.errno in _KNOWN_ERRORS else errno.EIO
    connection.sendall(_REPLY.pack(_REPLY_MAGIC, code, handle) + answer)
    return True


def _receive(connection: socket.socket, length: int) -> bytes:
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < length:
        if not (more := connection.recv(min(length - len(data), 1 << 20))):
            raise _EndError
        data += more
    return bytes(data)
