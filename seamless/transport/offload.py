"""Does UDP offload work on this host, byte for byte? Asked once for every port, before it is trusted.

The problem: on some kernels and interfaces segmentation or receive offload fails, or worse, spoils data without a word.
What only shows on the way to a certain neighbor is found at run time (`seamless.transport.udp`).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

from seamless.linux import sockopt

MakeSocket = Callable[[socket.AddressFamily, socket.SocketKind], socket.socket]

SEGMENT_SIZE: Final = struct.Struct("=H")
"""What the control message `sockopt.UDP_SEGMENT` holds."""
RECEIVED_SIZE: Final = struct.Struct("=i")
"""What the control message `sockopt.UDP_GRO` holds."""
RECEIVE_BYTES: Final = 65_536
"""No datagram and no receive batch is larger."""
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(RECEIVED_SIZE.size)

SELF_TEST_BYTES: Final = 1200
"""Segment size of the self-test: fits every interface's MTU."""
SELF_TEST_TIMEOUT: Final = 0.5
"""Seconds to wait for a datagram that the loopback interface delivers at once."""


def fault(host: str, make_socket: MakeSocket = socket.socket) -> str | None:
    """Send a batch from ``host`` to itself, to a socket with receive offload and one without.

    Return None when every byte arrived in its place, else what went wrong.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    datagrams = [bytes((index * 31 + offset) & 0xFF for offset in range(SELF_TEST_BYTES)) for index in range(4)]
    datagrams[-1] = datagrams[-1][:700]
    for joined in (False, True):
        with make_socket(family, socket.SOCK_DGRAM) as sender, make_socket(family, socket.SOCK_DGRAM) as receiver:
            try:
                receiver.bind((host, 0))
                receiver.settimeout(SELF_TEST_TIMEOUT)
                if joined and not sockopt.set_gro(receiver):
                    return "the kernel has no UDP_GRO"
                segment = [(sockopt.SOL_UDP, sockopt.UDP_SEGMENT, SEGMENT_SIZE.pack(SELF_TEST_BYTES))]
                sender.sendmsg(datagrams, segment, 0, receiver.getsockname())
                received = list(_received(receiver, len(datagrams)))
            except OSError as error:
                return f"the self-test failed: {error.strerror or error}"
        if received != datagrams:
            return "the self-test's datagrams did not arrive as they were sent"
    return None


def _received(receiver: socket.socket, count: int) -> Iterator[bytes]:
    """Yield up to ``count`` datagrams, joined by the kernel or not."""
    while count > 0:
        data, ancillary, _, _ = receiver.recvmsg(RECEIVE_BYTES, _ANCILLARY_BYTES)
        size = next(
            (RECEIVED_SIZE.unpack(value)[0] for _, kind, value in ancillary if kind == sockopt.UDP_GRO), len(data)
        )
        for start in range(0, len(data), size or 1):
            count -= 1
            yield data[start : start + size]
