"""Every way in for bytes from outside: what `test_fuzz` feeds in CI, and bench/micro/fuzz.py by hand.

A target takes any bytes and must not raise: parsers may say `RemoteProtocolError` and nothing else, whole cores not
even that. Who may feed what:

=========  ================================================================  =======================================
stranger   whatever comes in on the socket                                   stranger, initiation, response, cookie
neighbor   what the keys of its link open                                    neighbor, packets, link_frames, lsa
relay      what it makes up in the name of others                            relay
peer       what the keys of its session open                                 peer, session_frames, flow
=========  ================================================================  =======================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from seamless.crypto.messages import mac1_key, open_cookie, parse_initiation, parse_response
from seamless.errors import RemoteProtocolError
from seamless.intercept.payload.flow import decode_flow
from seamless.routing.lsa import decode_lsa
from seamless.test.session.test_hostile import Villain as VillainPeer
from seamless.test.trust.tapped import tapped_bed
from seamless.test.trust.test_neighbor import Villain as VillainNeighbor
from seamless.wire.header import CONTROL, DATA
from seamless.wire.link_frames import parse_link_frames
from seamless.wire.session_frames import decode_frames

Target: TypeAlias = Callable[[bytes], object]

PUBLIC_KEY: Final = bytes(32)


def _parser(parse: Callable[..., Any], *more: Any) -> Target:
    def target(data: bytes) -> None:
        try:
            parse(data, *more)
        except RemoteProtocolError:
            pass

    return target


def _pieces(data: bytes) -> list[bytes]:
    """Return what ``data`` holds of pieces that begin with their length, 16 bits."""
    pieces = []
    while len(data) > 2:
        length = int.from_bytes(data[:2], "big") % 1472
        pieces.append(data[2 : 2 + length])
        data = data[2 + length :]
    return pieces


def stranger() -> Target:
    """Return a target that sends a batch to a node: the first byte says how long its datagrams are."""
    bed = tapped_bed()
    node = bed.node("r1")
    (local, _), remote = bed.configuration.nodes["r1"].addresses, ("10.1.1.1", 7400)
    now = bed.now

    def target(data: bytes) -> None:
        nonlocal now
        now += 0.0001
        segment_size = data[0] * 8 + 1 if data else 1
        node.receive_datagrams(data[1:], segment_size, local, remote, now)
        node.datagrams_to_send(now)
        while node.next_event() is not None:
            pass

    return target


def neighbor() -> Target:
    """Return a target that seals frames and packets under a neighbor's key; once it is blocked, another takes over."""
    villain = VillainNeighbor()

    def target(data: bytes) -> None:
        nonlocal villain
        if _is_blocked(villain):
            villain = VillainNeighbor()
        for piece in _pieces(data):
            villain.seal(DATA if piece[:1] > b"\x7f" else CONTROL, piece[1:])
        villain.bed.run(villain.bed.now + 0.0001)

    return target


def _is_blocked(villain: VillainNeighbor) -> bool:
    """Return whether r2 reads nothing of the villain any more, as it does of a neighbor that breaks the protocol."""
    links = villain.bed.status("r2").links
    return any(link.neighbor == "r1" and link.blocked for link in links)


def packets_of_neighbor() -> Target:
    """Return a target for overlay packets whose addresses are good, so that they go further."""
    villain = VillainNeighbor()
    names = list(villain.bed.nodes)

    def target(data: bytes) -> None:
        for piece in _pieces(data):
            if len(piece) > 3:
                villain.packet(names[piece[0] % 4], piece[3:], source=names[piece[1] % 4], kind=piece[2] % 6)
        villain.bed.run(villain.bed.now + 0.0001)

    return target


def peer() -> Target:
    """Return a target that seals records under a peer's key, for a new session every time."""

    def target(data: bytes) -> None:
        villain = VillainPeer()
        for piece in _pieces(data):
            villain.say(piece)
        villain.pair.b.session.packets_to_send(10, villain.pair.now)
        villain.pair.b.session.handle_timeout(villain.pair.now + 1)

    return target


def relay() -> Target:
    """Return a target that hands fragments and handshakes to a session."""
    villain = VillainPeer()
    pair = villain.pair
    key = pair.a.session.association.send_key
    assert key is not None
    index = key.remote_index.to_bytes(3, "big")

    def target(data: bytes) -> None:
        pair.now += 0.001
        pieces = _pieces(data)
        good_index = [piece[:1] + index + piece[1:] for piece in pieces]
        pair.b.session.receive_fragments([*pieces, *good_index], pair.now)
        for piece in pieces[:2]:
            pair.b.session.receive_handshake(piece, pair.now)
        pair.b.drain(pair.now)

    return target


PARSERS: Final[dict[str, Target]] = {
    "link_frames": _parser(parse_link_frames),
    "session_frames": _parser(decode_frames),
    "lsa": _parser(decode_lsa),
    "flow": _parser(decode_flow),
    "initiation": _parser(parse_initiation, mac1_key(PUBLIC_KEY)),
    "response": _parser(parse_response, mac1_key(PUBLIC_KEY)),
    "cookie": _parser(open_cookie, bytes(1200), PUBLIC_KEY),
}
CORES: Final[dict[str, Callable[[], Target]]] = {
    "stranger": stranger,
    "neighbor": neighbor,
    "packets": packets_of_neighbor,
    "relay": relay,
    "peer": peer,
}
