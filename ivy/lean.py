"""Keeps out of a service's memory what libraries load and the service never uses: 3 to 6 MB of about 20.

For `ivy run` only, and to be called before anything else is imported. Whatever should use one of these modules all
the same gets an AttributeError that names it. Measured on Debian 13; see tests/benchmarks.
"""

import contextlib
import os
import sys
import types
import typing

_ABSENT = (
    "dns",  # paho would look up SRV records with it, which ivy never asks for
    "socks",  # paho would connect through a proxy
)
_EMPTY = (
    "importlib.metadata",  # pydantic would look for plugins
    "urllib.request",  # paho asks it about proxies, if there is a module socks
)
_is_wanted = False


def keep_memory_small() -> None:
    """Make those modules unavailable to this process."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # as in the units: by hand it starts the same way
    # Where Debian has them. Else Python looks it up among the 1 000 settings it was built with, and keeps them all.
    os.environ.setdefault("PYTHONTZPATH", "/usr/share/zoneinfo")
    global _is_wanted
    _is_wanted = True
    for name in _ABSENT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # how Python says "not to be imported"
    for name in _EMPTY:
        sys.modules.setdefault(name, types.ModuleType(name))
    _load_schemas_without_types()


class _Untyped(dict[str, object]):
    """Stands in for a TypedDict, which at run time is nothing but a dict, and forgets the types of its fields."""

    def __init_subclass__(cls, total: bool = True) -> None:
        cls.__annotations__.clear()


def _load_schemas_without_types() -> None:
    """Load the 80 kinds of schemas that pydantic makes without the types of their fields: only mypy reads those."""
    real, typing.TypedDict = typing.TypedDict, _Untyped  # type: ignore[assignment]
    # Should another release of it need more than that, it is loaded as usual by whoever imports it next.
    with contextlib.suppress(Exception):
        import pydantic_core.core_schema  # noqa: F401
    typing.TypedDict = real


def leave_out_encryption() -> None:
    """Make OpenSSL (3 MB) unavailable too, if memory is to be kept small: for a link that is not encrypted."""
    if _is_wanted and "ssl" not in sys.modules:
        ssl = types.ModuleType("ssl")
        # paho names these two each time that a socket, of whatever kind, has nothing to read.
        ssl.SSLWantReadError = ssl.SSLWantWriteError = type("NeverRaised", (OSError,), {})  # type: ignore[attr-defined]
        sys.modules["ssl"] = ssl
        sys.modules.setdefault("_hashlib", None)  # type: ignore[arg-type]  # as above
