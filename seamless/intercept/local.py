"""``intercept local``: whole packets of this host's own applications.

Packets are sent aside on their way out, after the kernel has chosen their source address and before anything else is
done to them: ``filter/OUTPUT`` comes behind address translation and ahead of fragmentation, so what we see is what the
application meant. At the other end they are released through the loopback device, to the application on that host.

Not taken: ``mangle/OUTPUT``, where the kernel routes a packet a second time if its mark was changed.
"""

from __future__ import annotations

from typing import Final

from seamless.intercept.whole import Place

LOCAL: Final = Place(mode="local", table="filter", hook="OUTPUT", gathers_fragments=False)
