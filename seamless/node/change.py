"""The difference between two configurations, as a value: what a running node has to do, and the same in words.

`changes` compares two configurations for one node. `Node.apply` acts on the answer, and its text
shows it. Wires and hosts of a lab are left out: no daemon acts on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from seamless.config.model import Configuration, InterceptConfig, LinkConfig, NodeConfig
from seamless.config.values import spelt_rate
from seamless.crypto.keys import encode_public_key
from seamless.node.plan import LinkPlan, planned_links, topology_of


@attrs.frozen
class Difference:
    """One statement of the configuration language that differs; its values as text, None where it is missing.

    ``statement`` is empty when the whole ``subject`` (a node, a link, an intercept block) is added or removed.
    """

    subject: str
    statement: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        """Return the difference in words."""
        if not self.statement:
            return f"{self.subject} is {'added' if self.old is None else 'removed'}"
        return f"{self.statement} of {self.subject}: {self.old or 'not set'} -> {self.new or 'not set'}"


@attrs.frozen
class Change:
    """What differs between an old and a new configuration, seen from one node.

    ``opened``, ``closed`` and ``adjusted`` (old and new) are links of that node; ``removed_nodes`` are those whose
    identifier the new configuration lacks, whatever their names. ``needs_restart`` has a sentence for each thing that a
    running node cannot change.
    """

    differences: tuple[Difference, ...] = ()
    needs_restart: tuple[str, ...] = ()
    added_nodes: tuple[NodeConfig, ...] = ()
    removed_nodes: tuple[NodeConfig, ...] = ()
    opened: tuple[LinkPlan, ...] = ()
    closed: tuple[LinkPlan, ...] = ()
    adjusted: tuple[tuple[LinkPlan, LinkPlan], ...] = ()
    changes_topology: bool = False

    def __str__(self) -> str:
        """Return all differences in words, one in a line."""
        return "\n".join(map(str, self.differences)) or "nothing differs"


def changes(old: Configuration, new: Configuration, name: str) -> Change:
    """Return the difference between two configurations for the node ``name``, which ``old`` has."""
    reasons = tuple(_reasons_to_restart(old.nodes[name], new))
    before = planned_links(old, name)
    after = planned_links(new, name) if name in new.nodes else {}
    return Change(
        differences=tuple(_differences(_subjects(old), _subjects(new))),
        needs_restart=reasons,
        added_nodes=_missing_in(old, new),
        removed_nodes=_missing_in(new, old),
        opened=tuple(plan for key, plan in after.items() if key not in before),
        closed=tuple(plan for key, plan in before.items() if key not in after),
        adjusted=tuple((before[key], plan) for key, plan in after.items() if key in before and before[key] != plan),
        changes_topology=topology_of(old) != topology_of(new),
    )


def _missing_in(one: Configuration, other: Configuration) -> tuple[NodeConfig, ...]:
    """Return the nodes of ``other`` whose identifier ``one`` does not have."""
    known = one.node_by_identifier
    return tuple(node for identifier, node in other.node_by_identifier.items() if identifier not in known)


def _reasons_to_restart(own: NodeConfig, new: Configuration) -> Iterator[str]:
    node = new.nodes.get(own.name)
    if node is None:
        yield f"it has no node {own.name}, which is this one: stop the daemon, or start it under its new name"
        return
    if node.public_key != own.public_key:
        yield f"node {own.name}, which is this one, has another key: restart the daemon with that key"
    if node.addresses != own.addresses:
        yield f"node {own.name}, which is this one, has other addresses: restart the daemon, which binds them anew"


# In words.


def _differences(
    old: Mapping[str, Mapping[str, str | None]], new: Mapping[str, Mapping[str, str | None]]
) -> Iterator[Difference]:
    for subject in (*old, *(subject for subject in new if subject not in old)):
        if subject not in new or subject not in old:
            yield Difference(subject, "", *(("present", None) if subject in old else (None, "present")))
            continue
        for statement, value in new[subject].items():
            if value != old[subject].get(statement):
                yield Difference(subject, statement, old[subject].get(statement), value)


def _subjects(configuration: Configuration) -> dict[str, dict[str, str | None]]:
    """Return the statements of a configuration as text, by the block that they stand in."""
    overlay = configuration.overlay
    subjects: dict[str, dict[str, str | None]] = {
        "the overlay": {
            "name": overlay.name,
            "hello": _milliseconds(overlay.hello_interval),
            "dead": _milliseconds(overlay.dead_interval),
            "give up": _milliseconds(overlay.give_up),
            "operators": None if overlay.operators is None else ", ".join(overlay.operators),
        }
    }
    subjects |= {f"node {node.name}": _of_node(node) for node in configuration.nodes.values()}
    subjects |= {f"link {' '.join(sorted(link.ends))}": _of_link(link) for link in configuration.links}
    for number, intercept in enumerate(configuration.intercepts, 1):
        subjects[f"intercept block {number}"] = _of_intercept(intercept)
    return subjects


def _of_node(node: NodeConfig) -> dict[str, str | None]:
    return {
        "address": ", ".join(f"{host}:{port}" for host, port in node.addresses),
        "serves": ", ".join(map(str, node.serves)) or None,
        "key": encode_public_key(node.public_key),
        "leaf": "yes" if node.leaf else None,
        "memory": f"{node.memory_bytes} bytes",
        "capture at": " ".join((*map(str, node.capture_at), f"port {node.capture_port}")),
    }


def _of_link(link: LinkConfig) -> dict[str, str | None]:
    is_turned = link.ends[0] > link.ends[1]
    paths = [path[::-1] if is_turned else path for path in link.paths]
    return {
        "rate": " to ".join(spelt_rate(each) for each in (link.floor_bps, link.rate_bps) if each is not None) or None,
        "congestion": link.congestion,
        "cost": None if link.cost is None else str(link.cost),
        "mtu": f"{link.mtu_bytes} bytes",
        "passive": link.passive,
        "between": ", ".join(f"{one[0]}:{one[1]} and {other[0]}:{other[1]}" for one, other in paths),
    }


def _of_intercept(intercept: InterceptConfig) -> dict[str, str | None]:
    values = attrs.asdict(intercept, recurse=False, filter=lambda field, _: field.eq is not False)
    values["rules"] = ", ".join(
        " ".join((rule.protocol, *map(str, rule.to or ("to all",)), *(f"port {a}-{b}" for a, b in rule.ports or ())))
        for rule in intercept.rules
    )
    values["on"] = None if intercept.on is None else ", ".join(intercept.on)
    return {field.replace("_", " "): None if value is None else str(value) for field, value in values.items()}


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:g} ms"
