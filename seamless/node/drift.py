"""Comparison of this node's configuration with those of its neighbors and peers, by digests.

The problem: one file is to be the same on every host, and a node whose file is another works on, for the most part. A
relay that lacks a node drops what goes there, another ``rate`` floods one direction, and no log names it. So a node
sends digests of what concerns both ends: to a neighbor when their link comes up, to a peer when their session has keys,
and to all of them when its configuration changes.

The rules:

* A section is a set of items; an item is a name and what the configuration says of it, both as 32-bit hashes. The
  receiver looks its own items up: nothing that came off the wire is ever shown, but how many items it lacks here.
* Of more than `MAX_ITEMS` items the hashes go by buckets; a difference then names all that is in a bucket here.
* What was found is reported once all sections had time to come, and again only when it has become something else.
* Per neighbor or peer a bounded number of frames is looked at, and of differences kept.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Set
from functools import cache
from hashlib import blake2s
from math import inf
from typing import Final

import attrs

from seamless.config.model import Configuration, InterceptConfig, LinkConfig
from seamless.delivery.token_bucket import TokenBucket
from seamless.interfaces import ConfigurationDiffers
from seamless.wire.digest import MAX_ITEMS, ConfigurationDigest

SETTLE_INTERVAL: Final = 1.0
"""Seconds from the first digest to the report: the others come within a round trip, or a resend."""
FRAMES_PER_SECOND: Final = 10.0
BURST_SECONDS: Final = 2.0
"""Digests of one node that are compared; it sends six when a link comes up."""
MAX_NAMED: Final = 8
"""Differences of one section that are named; the rest are counted."""
MAX_OF_BUCKET: Final = 4
"""Names of one bucket in a sentence."""


class Section(enum.IntEnum):
    """What an item is about; the numbers are the protocol's."""

    OVERLAY = 1
    LINK = 2
    NODES = 3
    SERVES = 4
    LINKS = 5
    INTERCEPTS = 6


_PLURAL: Final[dict[int, str]] = {
    Section.OVERLAY: "statements of its overlay block",
    Section.LINK: "statements of this link",
    Section.NODES: "nodes",
    Section.SERVES: "nodes that serve something",
    Section.LINKS: "links",
    Section.INTERCEPTS: "intercept blocks",
}
"""How items are counted that only the other has."""

_HOW: Final = {Section.NODES: " (another key, or leaf)"}
"""How an item differs that both have, where its label does not say it."""


@attrs.frozen
class Item:
    """One statement that both nodes should have alike, as 32-bit hashes; ``label`` names it in sentences."""

    subject: int
    digest: int
    label: str


def _hash(*words: object) -> int:
    """Return 32 bits of what these values are, the same in every process."""
    return int.from_bytes(blake2s("\0".join(map(str, words)).encode(), digest_size=4).digest(), "big")


def _item(name: str, label: str, *values: object) -> Item:
    return Item(_hash(name), _hash(*values), label)


def _link_items(link: LinkConfig) -> list[Item]:
    one, other = sorted(link.ends)
    paths = sorted(path if link.ends[0] == one else path[::-1] for path in link.paths)
    fields = {
        "rate": (link.floor_bps, link.rate_bps),
        "congestion": link.congestion,
        "cost": link.cost,
        "mtu": link.mtu_bytes,
        "passive": link.passive,
        "between": paths,
    }
    return [_item(field, f"{field} of link {one} {other}", value) for field, value in fields.items()]


def _intercept_item(number: int, intercept: InterceptConfig) -> Item:
    fields = attrs.asdict(attrs.evolve(intercept, line=0, column=0))
    return _item(str(number), f"intercept block {number} ({intercept.mode})", *fields.items())


def shared_items(configuration: Configuration) -> dict[Section, list[Item]]:
    """Return all that concerns every two nodes."""
    overlay, nodes = configuration.overlay, configuration.nodes.values()
    return {
        Section.OVERLAY: [
            _item("hello", "hello", overlay.hello_interval),
            _item("dead", "dead", overlay.dead_interval),
            _item("give up", "give up", overlay.give_up),
            _item("operators", "operators", *sorted(overlay.operators or ("every node",))),
        ],
        Section.NODES: [_item(node.name, f"node {node.name}", node.public_key.hex(), node.leaf) for node in nodes],
        Section.SERVES: [
            _item(node.name, f"serves of node {node.name}", *sorted(map(str, node.serves)))
            for node in nodes
            if node.serves
        ],
        Section.LINKS: [
            _item(" ".join(sorted(link.ends)), f"link {' '.join(sorted(link.ends))}", "")
            for link in configuration.links
        ],
        Section.INTERCEPTS: [_intercept_item(*numbered) for numbered in enumerate(configuration.intercepts, 1)],
    }


@attrs.frozen
class View:
    """Items as they go over the wire: ``labels`` names what stands behind each subject."""

    digests: Mapping[int, int]
    labels: Mapping[int, tuple[str, ...]]


def view(items: Iterable[Item], is_folded: bool) -> View:
    """Return the items by subject, or by bucket."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.subject % MAX_ITEMS if is_folded else item.subject, []).append(item)
    labels = {subject: tuple(item.label for item in group) for subject, group in groups.items()}
    if not is_folded:
        return View({subject: group[0].digest for subject, group in groups.items()}, labels)
    digests = {
        bucket: _hash(*sorted((item.subject, item.digest) for item in group)) for bucket, group in groups.items()
    }
    return View(digests, labels)


def encoded(section: Section, items: list[Item]) -> ConfigurationDigest:
    """Return the digest of a section: item by item, or folded when they are too many."""
    is_folded = len(items) > MAX_ITEMS
    return ConfigurationDigest(section, is_folded, tuple(view(items, is_folded).digests.items()))


def differences(section: Section, own: View, received: ConfigurationDigest) -> tuple[str, ...]:
    """Return what of a section the other has otherwise, in words about our own items."""
    theirs = dict(received.items)
    named = [
        _any_of(own.labels[subject]) + (_HOW.get(section, "") if subject in theirs else " (missing there)")
        for subject, digest in own.digests.items()
        if theirs.get(subject) != digest
    ]
    missing_here = len(theirs.keys() - own.digests.keys())
    more = [f"{len(named) - MAX_NAMED} more"] if len(named) > MAX_NAMED else []
    if missing_here:
        more.append(f"{_PLURAL[section]} that are missing here: {missing_here}")
    return (*named[:MAX_NAMED], *more)


def _any_of(labels: tuple[str, ...]) -> str:
    if len(labels) == 1:
        return labels[0]
    cut = [*labels[:MAX_OF_BUCKET], "..."] if len(labels) > MAX_OF_BUCKET else labels
    return f"one of ({', '.join(cut)})"


@attrs.define
class _Other:
    """What is known of one neighbor's or peer's configuration."""

    budget: TokenBucket
    received: dict[Section, ConfigurationDigest] = attrs.field(factory=dict)
    found: dict[Section, tuple[str, ...]] = attrs.field(factory=dict)
    reported: tuple[str, ...] = ()
    due_at: float | None = None

    def all_found(self) -> tuple[str, ...]:
        """Return all differences, section by section."""
        return tuple(words for section in sorted(self.found) for words in self.found[section])


class Drift:
    """The digests of the configuration of the node ``name``, and how those received from other nodes differ."""

    def __init__(self, configuration: Configuration, name: str) -> None:
        self._name = name
        self._others: dict[str, _Other] = {}
        self.due_at = inf
        """When `take_changes` may have something to report; infinity for never."""
        self.compared = 0
        """Digests that were looked at."""
        self._set_configuration(configuration)

    def _set_configuration(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._shared = shared_items(configuration)
        self._view = cache(self._make_view)

    def configure(self, configuration: Configuration, neighbors: Set[str], peers: Set[str], now: float) -> None:
        """Compare what others have sent with another configuration of ours; forget those that are no longer there."""
        self._set_configuration(configuration)
        self._others = {name: known for name, known in self._others.items() if name in neighbors | peers}
        for name, known in self._others.items():
            if name not in neighbors:
                known.received.pop(Section.LINK, None)
                known.found.pop(Section.LINK, None)
            for section, digest in known.received.items():
                self._compare(name, known, section, digest, now)

    # Out.

    def for_neighbor(self, neighbor: str) -> list[ConfigurationDigest]:
        """Return the digests for the node at the other end of a link."""
        return [encoded(Section.LINK, self._link_with(neighbor)), *self.for_peer()]

    def for_peer(self) -> list[ConfigurationDigest]:
        """Return the digests for the node at the other end of a session."""
        return [encoded(section, items) for section, items in self._shared.items()]

    def _link_with(self, other: str) -> list[Item]:
        ends = {self._name, other}
        return next((_link_items(link) for link in self._configuration.links if set(link.ends) == ends), [])

    # In.

    def receive(self, other: str, digest: ConfigurationDigest, now: float) -> None:
        """Compare a digest from the neighbor or peer ``other`` with ours; unknown sections are ignored."""
        known = self._others.get(other)
        if known is None:
            known = self._others[other] = _Other(TokenBucket(FRAMES_PER_SECOND * BURST_SECONDS, FRAMES_PER_SECOND, now))
        if digest.section not in _PLURAL or not known.budget.take(now):
            return
        self.compared += 1
        section = Section(digest.section)
        known.received[section] = digest
        self._compare(other, known, section, digest, now)

    def _compare(self, other: str, known: _Other, section: Section, digest: ConfigurationDigest, now: float) -> None:
        own = self._view(section, other if section is Section.LINK else "", digest.is_folded)
        known.found[section] = differences(section, own, digest)
        if known.due_at is None and known.all_found() != known.reported:
            known.due_at = now + SETTLE_INTERVAL
            self.due_at = min(self.due_at, known.due_at)

    def _make_view(self, section: Section, other: str, is_folded: bool) -> View:
        return view(self._link_with(other) if other else self._shared[section], is_folded)

    def take_changes(self, now: float) -> list[ConfigurationDiffers]:
        """Return what is to be reported: of every node with other differences than before, all that it has now."""
        changes: list[ConfigurationDiffers] = []
        if now < self.due_at:
            return changes
        for name, known in self._others.items():
            if known.due_at is not None and now >= known.due_at:
                known.due_at = None
                if known.all_found() != known.reported:
                    known.reported = known.all_found()
                    changes.append(ConfigurationDiffers(name, known.reported))
        self.due_at = min((known.due_at for known in self._others.values() if known.due_at is not None), default=inf)
        return changes

    def differences(self) -> dict[str, tuple[str, ...]]:
        """Return by name all nodes whose configuration differs from ours, and in what."""
        found = {name: known.all_found() for name, known in self._others.items()}
        return {name: words for name, words in found.items() if words}
