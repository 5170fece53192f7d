"""The counters of a UDP port, apart from it so that the ``seamless`` command can read what they are without Twisted."""

from __future__ import annotations

from collections import Counter

import attrs

from seamless.interfaces import counter


@attrs.define
class UdpCounters:
    """What a port did since it was started."""

    batches_in: int = counter("Batches received")
    datagrams_in: int = counter("Datagrams received")
    bytes_in: int = 0
    empty_in: int = counter("Datagrams received without a single byte")
    """Datagrams without a byte; they are not handed on."""
    kernel_drops: int = counter(
        "Packets that the kernel dropped because our buffer was full", trouble="dropped by the kernel"
    )
    """Packets that did not fit our receive buffer; a batch that the kernel had joined counts once."""
    receive_errors: int = counter("Failed receives")
    batches_out: int = counter("Batches sent")
    datagrams_out: int = counter("Datagrams sent")
    bytes_out: int = 0
    datagrams_lost: int = counter("Datagrams that the kernel would not send", trouble="not sent")
    """Datagrams that the kernel would not send."""
    send_errors: Counter[str] = attrs.field(factory=Counter)
    """Failed system calls by the name of their errno."""
    batches_held: int = 0
    """Batches that waited for room in the socket."""
    offload_fallbacks: int = counter("Batches sent again as plain datagrams", trouble="offload refused")
    """Batches sent again as plain datagrams after the kernel refused them."""
    owner_errors: int = 0
    """Exceptions from the owner's callbacks: each is a mistake of ours."""
