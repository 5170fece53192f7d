"""Digests of configurations, for properties of the frames that carry them."""

from __future__ import annotations

from hypothesis import strategies as st

from seamless.wire.digest import MAX_ITEMS, ConfigurationDigest

_u32 = st.integers(0, (1 << 32) - 1)
digests = st.builds(
    ConfigurationDigest,
    st.integers(0, 255),
    st.booleans(),
    st.lists(st.tuples(_u32, _u32), max_size=MAX_ITEMS).map(tuple),
)
