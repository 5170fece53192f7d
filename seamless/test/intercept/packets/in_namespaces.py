"""A small overlay for tests of whole packets: a captures what b serves, and c is a stranger to both."""

from __future__ import annotations

from seamless.config.load import load_text
from seamless.config.model import Configuration

NODES = """
overlay lab { }
node a { address 10.1.1.1; serves 10.1.9.1, 2001:db8:1::/64; key "7QF4GWn94NXtQcWsLDWIg7WfmWYCV6jslXfYjrwAiLA10Q=="; }
node b { address 10.1.1.2; serves 10.1.9.2, 2001:db8:2::/64; key "7QGSN9xvXk+7c72Uz+7fxELAE3iMR/ChZQMgkuaqnRhSoQ=="; }
node c { address 10.1.1.3; serves 10.1.9.3; key "7QEzXKA80eEaimxwwo3ikbFUJ4nNqsKfQ9shXCsLCOGGhw=="; }
link a b { }
link b c { }
"""

LOCAL = "intercept local { tcp to 10.1.9.2, 2001:db8:2::/64 port 22, 8000-8099; udp to 10.1.9.2 port 53; on a; }"


def configuration(intercepts: str = LOCAL) -> Configuration:
    """Return the overlay with these interceptors."""
    return load_text(NODES + intercepts, "test.conf")
