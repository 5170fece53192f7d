"""What the routing core counts."""

from __future__ import annotations

import attrs

from seamless.routing.lsa import Refusal


@attrs.define
class RoutingCounters:
    """What happened since the start; ``refused`` by reason."""

    lsas_received: int = 0
    lsas_verified: int = 0
    lsas_changed: int = 0
    lsas_refreshed: int = 0
    lsas_duplicate: int = 0
    lsas_older: int = 0
    lsas_expired: int = 0
    lsas_postponed: int = 0
    lsas_equivocal: int = 0
    lsas_originated: int = 0
    lsas_flooded: int = 0
    unknown_links: int = 0
    """Links in accepted LSAs that our configuration does not have, and that therefore count for nothing here."""
    summaries_received: int = 0
    summaries_sent: int = 0
    jumps: int = 0
    detours: int = 0
    table_computations: int = 0
    refused: dict[Refusal, int] = attrs.Factory(lambda: dict.fromkeys(Refusal, 0))
