"""What a link hands to its node: events, and the results of commands."""

from __future__ import annotations

from typing import TypeAlias, Union

import attrs

from seamless.wire.link_frames import DigestFrame, LsaFrame, Measure, Pause


@attrs.define
class PacketsReceived:
    """Whole overlay packets in the order in which they came, each for the first time, as far as the link can know."""

    packets: list[bytes]


@attrs.frozen
class LinkChanged:
    """The link went UP or ceased to be, its path carries other packets than before, or packets are to be taken away."""


LinkEvent: TypeAlias = Union[PacketsReceived, LsaFrame, DigestFrame, Measure, Pause, LinkChanged]
"""Packets, a frame of the neighbor that concerns the node and not the link, or a change of the link itself."""


@attrs.define
class Accepted:
    """What became of packets that were handed to `Link.enqueue`."""

    waiting_bytes: int
    """Bytes of the class and session that wait on the link now."""
    pause: float
    """Seconds for which this class and session should pause, for the excess to drain; 0.0 when there is none."""
