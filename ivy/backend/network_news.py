"""Tells when the network changes for the better: a new address or route. Knows nothing of who needs it.

By a netlink socket, see rtnetlink(7). Where there can be none there is no news, and the link comes back later.
"""

import contextlib
import socket
import sys
from typing import Optional

_ADDRESSES_AND_ROUTES = 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_NEW = (20, 24)  # RTM_NEWADDR, RTM_NEWROUTE
_TYPE = slice(4, 6)  # where a message's type stands in it
_LARGEST_MESSAGE = 65536


class NetworkNews:
    """What happened to the network since somebody asked last; `socket` becomes readable when there is something."""

    def __init__(self) -> None:
        self.socket: Optional[socket.socket] = None
        with contextlib.suppress(OSError):
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
            self.socket.bind((0, _ADDRESSES_AND_ROUTES))

    def are_good(self) -> bool:
        """Whether an address or route has come since the last call."""
        good = False
        while self.socket is not None:
            try:
                message = self.socket.recv(_LARGEST_MESSAGE)
            except BlockingIOError:
                break
            except OSError:  # more than the kernel kept
                return True
            good = good or int.from_bytes(message[_TYPE], sys.byteorder) in _NEW
        return good

    def close(self) -> None:
        """Listen no more."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None
