"""Where in the firewall the two whole-packet interceptors take packets aside.

``intercept local`` captures whole packets of this host's own applications, on their way out, after the kernel has
chosen their source address: ``filter/OUTPUT`` comes behind address translation and ahead of fragmentation, so a packet
there is what the application meant. At the other end it is released through the loopback device, to the application on
that host. (``mangle/OUTPUT`` would not do: the kernel routes a packet a second time there if its mark was changed.)

``intercept router`` captures whole packets of the hosts behind this gateway, which need nothing but their default
route. ``mangle/POSTROUTING`` is the last hook before they leave: behind the gateway's own filter and its routes, ahead
of address translation, so that both ends see the hosts' own addresses. At the other end a packet is released to a host
of that site, cut to the MTU of the way there.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs


@attrs.frozen
class CapturePoint:
    """The table and hook of the firewall at which one whole-packet interceptor captures."""

    mode: Literal["local", "router"]
    table: str
    hook: str
    gathers_fragments: bool
    """Whether fragments pass here that must be put together first, since only the first one knows its ports.

    Connection tracking does that, and runs as soon as there is a rule that matches its state.
    """


LOCAL: Final = CapturePoint(mode="local", table="filter", hook="OUTPUT", gathers_fragments=False)
ROUTER: Final = CapturePoint(mode="router", table="mangle", hook="POSTROUTING", gathers_fragments=True)
