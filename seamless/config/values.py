"""Converts words of the configuration to values: numbers with units, addresses, ports and keys.

Each function takes a text of the right shape and returns the value, or `Bad` with a message. None of them raises, so
that one wrong address does not hide the next one.
"""

from __future__ import annotations

import re
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import Final

import attrs

from seamless.config.model import Interface, Network, PortRange
from seamless.config.syntax import Bad, shown
from seamless.crypto.keys import PrivateKeyFoundError, decode_public_key

RATE_UNITS: Final = {"bit": Decimal(1), "kbit": Decimal(10) ** 3, "mbit": Decimal(10) ** 6, "gbit": Decimal(10) ** 9}
"""Bits per second, decimal as everywhere in networking."""
TIME_UNITS: Final = {"us": Decimal("0.000001"), "ms": Decimal("0.001"), "s": Decimal(1)}
"""Seconds."""
SIZE_UNITS: Final = {"bytes": Decimal(1), "KiB": Decimal(2) ** 10, "MiB": Decimal(2) ** 20, "GiB": Decimal(2) ** 30}
"""Bytes, binary as everywhere in memory."""

MAXIMUM: Final = 2**53
"""In the base unit: beyond, a float is no longer exact, and nothing that is meant is so large."""
MAXIMUM_DIGITS: Final = 9
"""Digits of a port or a cost at most, which have five; Python refuses to convert thousands of digits."""
MAXIMUM_PORT: Final = 65535
MAXIMUM_COST: Final = 65535
"""Highest cost of a link, as of an OSPF interface (RFC 2328, C.3)."""
KEY_CHARACTERS: Final = 48
"""Characters of an Ed25519 public key with its prefix in base64."""
EARLIER_KEY_CHARACTERS: Final = 44
"""Characters of an X25519 key, for which the error message differs."""

AN_ADDRESS: Final = "an IP address such as 10.1.1.1 or 2001:db8::1"
AN_ENDPOINT: Final = "an address such as 10.1.1.1:7400 or [2001:db8::1]:7400"
A_NETWORK: Final = "an address or prefix such as 10.1.9.1 or 10.1.9.0/24"
AN_INTERFACE: Final = "an address with its prefix length such as 10.1.1.1/30"
A_PORT: Final = "a port from 1 to 65535 or a range such as 8000-8099"
ONE_PORT: Final = "a port from 1 to 65535"
A_COST: Final = f"a cost from 1 to {MAXIMUM_COST}"
A_KEY: Final = 'a key as `seamless pubkey` prints it, 48 characters in quotes ("7Q...==")'
A_PERCENTAGE: Final = "a percentage from 0 to 100 such as 0.5 %"
A_RUN: Final = "a number of packets from 1 on such as 4 packets"

_NOT_BASE64: Final = re.compile("[^A-Za-z0-9+/=]")
_ENDPOINT: Final = re.compile(r"\[(?P<six>[^\]]*)\](?::(?P<port6>[0-9]+))?|(?P<four>[0-9.]+)(?::(?P<port4>[0-9]+))?")


@attrs.frozen
class Endpoint:
    """An address of a node as it was written: the port may be left out."""

    host: str
    version: int
    port: int | None

    def __str__(self) -> str:
        host = self.host if self.version == 4 or self.port is None else f"[{self.host}]"
        return host if self.port is None else f"{host}:{self.port}"


def _wrong(expected: str, text: str) -> Bad:
    return Bad(f"expected {expected}, found {shown(text)}")


def _amount(
    number: str, unit: str, scale: Decimal, expected: str, *, least: int = 0, most: int = MAXIMUM
) -> Decimal | Bad:
    """Return a number in its base unit."""
    amount = Decimal(number) * scale
    return amount if least <= amount <= most else _wrong(expected, f"{number} {unit}")


def rate(number: str, unit: str, expected: str) -> int | Bad:
    """Convert a rate, as in "500" "mbit", to bits per second, at least one; `Bad` if it is out of range."""
    amount = _amount(number, unit, RATE_UNITS[unit], expected, least=1)
    return amount if isinstance(amount, Bad) else int(amount)


def spelt_rate(bits_per_second: int) -> str:
    """Return a rate as the configuration has it, in the largest unit that it is at least one of."""
    unit = next(unit for unit, scale in reversed(RATE_UNITS.items()) if bits_per_second >= scale)
    return f"{bits_per_second / int(RATE_UNITS[unit]):.12g} {unit}"


def duration(number: str, unit: str, expected: str) -> float | Bad:
    """Convert a time, as in "100" "ms", to seconds; `Bad` if it is out of range."""
    amount = _amount(number, unit, TIME_UNITS[unit], expected)
    return amount if isinstance(amount, Bad) else float(amount)


def size(number: str, unit: str, expected: str) -> int | Bad:
    """Convert a size, as in "16" "MiB", to whole bytes, at least one; `Bad` if it is out of range."""
    amount = _amount(number, unit, SIZE_UNITS[unit], expected, least=1)
    if isinstance(amount, Bad):
        return amount
    return int(amount) if amount % 1 == 0 else _wrong(expected, f"{number} {unit}")


def percentage(number: str) -> float | Bad:
    """Convert a percentage to a probability from 0 to 1; `Bad` if it is out of range."""
    amount = _amount(number, "%", Decimal("0.01"), A_PERCENTAGE, most=1)
    return amount if isinstance(amount, Bad) else float(amount)


def run_length(number: str) -> float | Bad:
    """Convert the mean length of a burst, in packets, to a number; `Bad` if it is less than one."""
    amount = _amount(number, "packets", Decimal(1), A_RUN, least=1)
    return amount if isinstance(amount, Bad) else float(amount)


def cost(text: str) -> int | Bad:
    """Convert the cost of a link to an integer from 1 to `MAXIMUM_COST`; `Bad` if it is another."""
    return _within(text, MAXIMUM_COST) or _wrong(A_COST, text)


def _within(text: str, maximum: int) -> int | None:
    """Return a whole number from 1 to ``maximum``, or None."""
    if len(text) > MAXIMUM_DIGITS or not 1 <= int(text) <= maximum:
        return None
    return int(text)


def port(text: str) -> int | Bad:
    """Convert a port number to an integer from 1 to 65535; `Bad` if it is another."""
    return _within(text, MAXIMUM_PORT) or _wrong(ONE_PORT, text)


def ports(text: str) -> PortRange | Bad:
    """Convert a port or a range, as in "8000-8099", to (first, last); `Bad` if it is none."""
    low, _, high = text.partition("-")
    first = _within(low.strip(), MAXIMUM_PORT)
    last = _within(high.strip() or low.strip(), MAXIMUM_PORT)
    if first is None or last is None:
        return _wrong(A_PORT, text)
    if first > last:
        return Bad(f"the range {first}-{last} is empty: write the lower port first")
    return first, last


def address(text: str) -> IPv4Address | IPv6Address | Bad:
    """Convert an IPv4 or IPv6 address; `Bad` if it is none or no host can have it."""
    try:
        parsed = ip_address(text)
    except ValueError:
        return _wrong(AN_ADDRESS, text)
    return _usable(parsed, text) or parsed


def _usable(parsed: IPv4Address | IPv6Address | Network, text: str) -> Bad | None:
    """Return what is wrong with an address or network that no other host can reach under this name."""
    if parsed.is_multicast or parsed.is_unspecified:
        return Bad(f"{text} is no host's address: write one that a host really has")
    if parsed.version == 6 and parsed.is_link_local:
        return Bad(f"{text} means another host on every interface: write an address that is routed")
    first = parsed if isinstance(parsed, (IPv4Address, IPv6Address)) else parsed.network_address
    if isinstance(first, IPv6Address) and first.ipv4_mapped is not None:
        return Bad(f"{text} is an IPv4 address mapped into IPv6: write it as IPv4")
    return None


def endpoint(text: str) -> Endpoint | Bad:
    """Convert an IP address with or without a port to an `Endpoint`; `Bad` if it is none."""
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        host, port_text = text, None  # IPv6 without brackets: every colon belongs to the address
    else:
        host = match["six"] if match["four"] is None else match["four"]
        port_text = match["port6"] or match["port4"]
    try:
        parsed = ip_address(host)
    except ValueError:
        return _wrong(AN_ENDPOINT, text)
    port = None if port_text is None else _within(port_text, MAXIMUM_PORT)
    if (port is None and port_text is not None) or (text.startswith("[") and parsed.version == 4):
        return _wrong(AN_ENDPOINT, text)
    return _usable(parsed, text) or Endpoint(str(parsed), parsed.version, port)


def network(text: str) -> Network | Bad:
    """Convert a network prefix; one address is a prefix of full length."""
    try:
        parsed = ip_network(text, strict=False)
    except ValueError:
        return _wrong(A_NETWORK, text)
    host = text.partition("/")[0]
    if ip_address(host) != parsed.network_address:
        return Bad(f"{text} is neither an address nor a prefix: write {host} or {parsed}")
    if parsed.is_loopback:
        return Bad(f"{text} is every host's own loopback: write an address that is routed")
    return _usable(parsed, text) or parsed


def interface(text: str) -> Interface | Bad:
    """Convert an address with its prefix length, as in 10.0.0.1/30."""
    if "/" not in text:
        return _wrong(AN_INTERFACE, text)
    try:
        parsed = ip_interface(text)
    except ValueError:
        return _wrong(AN_INTERFACE, text)
    return _usable(parsed.ip, text) or parsed


def key(text: str) -> bytes | Bad:
    """Convert a public key in quotes to its 32 raw bytes (Ed25519)."""
    characters = text.strip('"')
    try:
        return decode_public_key(characters)
    except PrivateKeyFoundError as error:
        return Bad(f"expected {A_KEY}: {error}")
    except ValueError as error:
        return Bad(f"expected {A_KEY}, found {shown(text)}: {_why_no_key(characters) or error}")


def _why_no_key(text: str) -> str:
    """Return what is wrong with the characters between the quotes of a key; "" where it is not the characters."""
    foreign = _NOT_BASE64.search(text)
    if foreign is not None:
        return f"{shown(foreign.group())} is no character of a key"
    missing = KEY_CHARACTERS - len(text)
    if not missing or len(text) == EARLIER_KEY_CHARACTERS:
        return ""
    return f"it has {len(text)} characters, {abs(missing)} too {'few' if missing > 0 else 'many'}"
