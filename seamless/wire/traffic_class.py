"""The traffic classes of overlay packets: what links and sessions do for each, in one table.

===========  =========  =======  ======  =========  =========  ===========================================
class        recovered  ordered  queue   redundant  fragments  carries
===========  =========  =======  ======  =========  =========  ===========================================
bulk         yes        yes      bulk    if small   yes        records: streams, whole packets
express      yes        yes      express if small   yes        records: sparse streams, acknowledgements
handshake    yes        no       express no         no         messages of a session's handshake
unrecovered  no         no       bulk    no         yes        records of one whole packet each
===========  =========  =======  ======  =========  =========  ===========================================
"""

from __future__ import annotations

from typing import Final

import attrs

CLASS_BULK: Final = 0
CLASS_EXPRESS: Final = 1
CLASS_HANDSHAKE: Final = 2
CLASS_UNRECOVERED: Final = 3


@attrs.frozen
class TrafficClass:
    """What is done for the packets of one class."""

    number: int
    """The class in the first byte of an overlay packet."""
    name: str
    is_recovered: bool
    """Whether links send again what they lose of it."""
    is_ordered: bool
    """Whether its records carry bytes of streams, which the far end of the session puts in order."""
    queue: int
    """The class in whose queue links keep it (`CLASS_BULK` or `CLASS_EXPRESS`), and by which it is paused."""
    is_redundant: bool
    """Whether small packets are sent more than once on a link that loses."""
    has_fragments: bool
    """Whether its packets are fragments of records, which any node may cut."""

    @property
    def is_urgent(self) -> bool:
        """Return whether links send it before bulk."""
        return self.queue == CLASS_EXPRESS


BULK: Final = TrafficClass(
    number=CLASS_BULK,
    name="bulk",
    is_recovered=True,
    is_ordered=True,
    queue=CLASS_BULK,
    is_redundant=True,
    has_fragments=True,
)
EXPRESS: Final = TrafficClass(
    number=CLASS_EXPRESS,
    name="express",
    is_recovered=True,
    is_ordered=True,
    queue=CLASS_EXPRESS,
    is_redundant=True,
    has_fragments=True,
)
HANDSHAKE: Final = TrafficClass(
    number=CLASS_HANDSHAKE,
    name="handshake",
    is_recovered=True,
    is_ordered=False,
    queue=CLASS_EXPRESS,
    is_redundant=False,
    has_fragments=False,
)
UNRECOVERED: Final = TrafficClass(
    number=CLASS_UNRECOVERED,
    name="unrecovered",
    is_recovered=False,
    is_ordered=False,
    queue=CLASS_BULK,
    is_redundant=False,
    has_fragments=True,
)

TRAFFIC_CLASSES: Final = (BULK, EXPRESS, HANDSHAKE, UNRECOVERED)
"""By their numbers. A packet of another class is dropped by its receiver."""
QUEUE_CLASSES: Final = tuple(sorted({each.queue for each in TRAFFIC_CLASSES}))
"""The numbers of the classes that links have queues for, and that a PAUSE names."""
ORDERED_CLASSES: Final = tuple(each.number for each in TRAFFIC_CLASSES if each.is_ordered)
"""The numbers of the classes in which a session sends its streams; of each it keeps a ledger."""
