"""``intercept router``: whole packets of the hosts behind this gateway, which need nothing but their default route.

Packets are sent aside at the last place before they leave, ``mangle/POSTROUTING``: whatever the gateway's firewall lets
pass and wherever its routes lead, and still ahead of address translation, so that both ends see the hosts' own
addresses. At the other end they are released to a host of that site, cut to the MTU of the way there.

Hosts send long UDP datagrams as fragments, of which only the first says for which port it is. So connection tracking
puts them together first; that it does so follows from there being a rule that asks for its opinion.
"""

from __future__ import annotations

from typing import Final

from seamless.intercept.whole import Place

ROUTER: Final = Place(mode="router", table="mangle", hook="POSTROUTING", gathers_fragments=True)
