"""What the numbers mean by which a broker says no, in words that tell what to do. Knows no connection.

Those of MQTT 5; the five of 3.1.1 are among them under other numbers. What a platform means by one that MQTT leaves
open stands here, too, as long as all platforms mean the same.
"""

import enum

_BY_3_1_1 = {1: 132, 2: 133, 3: 136, 4: 134, 5: 135}

_LOGIN = "check client_id, username and password"
_NOT_HERE = "it is in trouble itself or limits the rate; nothing needs to be done here"
_OURS = "this is a mistake of ivy's; please report it"

OTHER_VERSION, TAKEN_OVER = 132, 142

_ENDS: dict[int, tuple[str, str]] = {
    128: ("Unspecified error", "the broker's log may say more"),
    129: ("Malformed packet", _OURS),
    130: ("Protocol error", _OURS),
    131: ("Implementation specific error", "the broker's log may say more"),
    132: ("Unsupported protocol version", "set backend.mqtt_connection.protocol to null"),
    133: ("Client identifier not valid", "set another client_id"),
    134: ("Bad user name or password", _LOGIN),
    135: ("Not authorized", _LOGIN),
    136: ("Server unavailable", _NOT_HERE),
    137: ("Server busy", _NOT_HERE),
    138: ("Banned", "only the broker's admin can change that"),
    139: ("Server shutting down", "nothing needs to be done here"),
    140: ("Bad authentication method", "it wants a login other than by user name, password or certificate"),
    141: ("Keep alive timeout", "it heard nothing from this node; is the line bad?"),
    142: ("Session taken over", "another client has the same client_id: is it in the config of another node?"),
    143: ("Topic filter invalid", "is general.system_identifier right?"),
    144: ("Topic name invalid", "is general.system_identifier right?"),
    147: ("Receive maximum exceeded", _OURS),
    148: ("Topic alias invalid", _OURS),
    149: ("Packet too large", "what was under way will be sent in smaller parts"),
    150: ("Message rate too high", "what waits will be sent more slowly"),
    151: ("Quota exceeded", "this node sends more than it may; it waits a little"),
    152: ("Administrative action", "the broker's admin ended the connection"),
    153: ("Payload format invalid", "the message to blame will be looked for"),
    155: ("QoS not supported", "the broker must allow QoS 1"),
    156: ("Use another server", "ask the broker's admin, and set host"),
    157: ("Server moved", "ask the broker's admin, and set host"),
    159: ("Connection rate exceeded", _NOT_HERE),
    160: ("Maximum connect time", "the broker lets no connection last longer; nothing needs to be done here"),
    162: ("Wildcard subscription not supported", "the broker must allow subscriptions with +"),
}

_PUBLICATIONS: dict[int, tuple[str, str]] = {
    16: ("No matching subscribers", "nobody listens at the broker: is the server running?"),
    135: (
        "Not authorized",
        "may this user publish there, and is general.system_identifier the name that the broker expects?",
    ),
    144: ("Topic name invalid", "does the platform know this topic? In ThingsBoard, look at the device profile"),
    149: ("Packet too large", "the broker takes no message as large as that"),
    151: ("Quota exceeded", "this node sends more than it may; it goes on more slowly"),
    153: ("Payload format invalid", "the platform cannot read it"),
}

_LONGEST_SAYING = 200


class Fate(enum.Enum):
    """What a PUBACK means for what was published."""

    DELIVERED = enum.auto()
    NOBODY_LISTENS = enum.auto()
    FORBIDDEN = enum.auto()
    TOO_FAST = enum.auto()
    REFUSED = enum.auto()
    """It, or something in it, is what the broker does not want."""


def fate(code: int) -> Fate:
    """What the code of a PUBACK means. What is below 128 is no refusal."""
    match code:
        case 16:
            return Fate.NOBODY_LISTENS
        case 135:
            return Fate.FORBIDDEN
        case 151:
            return Fate.TOO_FAST
        case _:
            return Fate.REFUSED if code >= 128 else Fate.DELIVERED


_BEYOND_MESSAGES = frozenset({0, 4, 135, 136, 137, 138, 139, 141, 142, 150, 151, 152, 156, 157, 159, 160})


def may_be_over_a_message(code: int | None) -> bool:
    """Whether a connection that the broker ended may have been ended for what was sent over it.

    Args:
        code: That of its DISCONNECT; None if it said nothing.
    """
    return code not in _BEYOND_MESSAGES


def is_too_fast(code: int | None) -> bool:
    """Whether the broker ended a connection because too much was sent."""
    return code in (150, 151)


def is_about_login(code: int) -> bool:
    """Whether a broker did not let this node in for its user name or password."""
    return code in (134, 135)


def of_3_1_1(code: int) -> int:
    """The number in MQTT 5 of what a CONNACK of MQTT 3.1.1 says."""
    return _BY_3_1_1.get(code, code)


def of_connection(code: int, said: str = "") -> str:
    """Why a broker does not let this node in, or ended the connection.

    Args:
        code: That of its CONNACK or DISCONNECT.
        said: What it added in words of its own.
    """
    return _words(_ENDS, code, said)


def of_subscription(code: int) -> str:
    """Why a broker does not let this node listen."""
    if code in (128, 135):  # all that MQTT 3.1.1 can say is 128
        name = "Not authorized" if code == 135 else "refused"
        hint = "may this user read there, and is general.system_identifier the name that the broker expects?"
        return _worded(name, "", hint)
    return _words(_ENDS, code, "")


def of_publication(code: int, said: str = "") -> str:
    """Why a broker does not take what was published."""
    return _words(_PUBLICATIONS if code in _PUBLICATIONS else _ENDS, code, said)


def _words(table: dict[int, tuple[str, str]], code: int, said: str) -> str:
    name, hint = table.get(code, (f"reason {code}", ""))
    return _worded(name, said, hint)


def _worded(name: str, said: str, hint: str) -> str:
    return name + (f": {own}" if (own := quoted(said)) else "") + (f" ({hint})" if hint else "")


def quoted(said: object) -> str:
    """What a broker or platform added in words of its own, of which none commands a terminal; empty for nothing."""
    text = said[:_LONGEST_SAYING] if isinstance(said, str) else ""
    own = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return f'"{own}"' if own else ""
