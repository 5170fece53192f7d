"""Read a configuration: text to blocks to the model to the checks, and every problem in one error.

This is the interface that the rest of seamless uses: `load_file`, `load_text`, and the error that they raise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

import attrs

from seamless.config import check, lab_blocks, overlay_blocks
from seamless.config.check import N
from seamless.config.grammar import Parsed, parse
from seamless.config.model import Configuration, HostConfig, NodeConfig, Overlay, WireConfig
from seamless.config.syntax import Block, ConfigurationProblems, Problem, Problems
from seamless.errors import ConfigurationError

__all__ = ["ConfigurationProblems", "Problem", "load_file", "load_text"]

T = TypeVar("T")


def load_file(path: str | Path) -> Configuration:
    """Return the configuration in this file; raise `ConfigurationError` when it cannot be read or used."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist: check the name of the configuration file") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path} is a folder: name the configuration file in it") from None
    except PermissionError:
        raise ConfigurationError(f"{path} may not be read by this user: change its mode, or the user") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}): check the name of the file") from None
    return load_text(text, str(path))


def load_text(text: str, filename: str) -> Configuration:
    """Return the configuration in this text; raise `ConfigurationProblems` with all that is wrong with it."""
    problems = Problems(filename, text)
    configuration = _Assembly(parse(text, problems), problems).configuration()
    if problems:
        raise ConfigurationProblems(problems.in_order())
    return attrs.evolve(configuration, text=text)


class _Assembly:
    """Builds every block and runs every check that can be run on what was built."""

    def __init__(self, parsed: Parsed, problems: Problems) -> None:
        self._parsed = parsed
        self._problems = problems
        self._blocks = [block for block in parsed.blocks if self._kept(block, overlay_blocks.is_sound(block, problems))]

    def _kept(self, block: Block, usable: bool) -> bool:
        if not usable:
            self._parsed.drop(block.keyword, block.name())
        return usable

    def _built(self, keyword: str, builder: Callable[[Block], T]) -> list[tuple[Block, T]]:
        """Return the blocks with this keyword that could be built, each with what was built from it."""
        pairs = []
        for block in self._blocks:
            if block.keyword == keyword:
                before = len(self._problems)
                value = builder(block)
                if self._kept(block, len(self._problems) == before):
                    pairs.append((block, value))
        return pairs

    def configuration(self) -> Configuration:
        """Return the whole; it is good for use if no problem was noted."""
        parsed, problems = self._parsed, self._problems
        node_pairs = self._nodes()
        nodes = _by_name(node_pairs)
        overlay = self._overlay(nodes)
        link_pairs = self._built("link", lambda block: overlay_blocks.link(block, nodes, parsed, problems))
        check.note_double_links(link_pairs, problems)
        intercept_pairs = self._built(
            "intercept", lambda block: overlay_blocks.intercept(block, nodes, parsed, problems)
        )
        hosts, wires = self._lab()
        configuration = Configuration(overlay, nodes, _values(link_pairs), _values(intercept_pairs), hosts, wires)
        if parsed.complete:
            check.note_many_neighbors(node_pairs, _values(link_pairs), problems)
            check.note_captures(intercept_pairs, configuration, problems)
            lab_blocks.note_nodes_off_their_hosts(node_pairs, hosts, wires, problems)
        return configuration

    def _overlay(self, nodes: Collection[str]) -> Overlay:
        """Return the one overlay; note that there is none, or more."""
        parsed, problems = self._parsed, self._problems
        pairs = self._built("overlay", lambda block: overlay_blocks.overlay(block, nodes, parsed, problems))
        for block, _ in pairs[1:]:
            self._problems.add(block.start, "there is an overlay block already: one file describes one overlay")
        if pairs:
            return pairs[0][1]
        if not any(keyword == "overlay" for keyword, _ in self._parsed.broken):
            self._problems.add(0, "there is no overlay block: add `overlay NAME { }`")
        return Overlay("")

    def _nodes(self) -> list[tuple[Block, NodeConfig]]:
        problems = self._problems
        pairs = check.unique(self._built("node", lambda block: overlay_blocks.node(block, problems)), problems)
        check.note_shared_keys(pairs, problems)
        check.note_shared_addresses(pairs, problems)
        check.note_overlapping_serves(pairs, problems)
        return pairs

    def _lab(self) -> tuple[dict[str, HostConfig], tuple[WireConfig, ...]]:
        parsed, problems = self._parsed, self._problems
        host_pairs = check.unique(self._built("host", lambda block: lab_blocks.host(block, problems)), problems)
        hosts = _by_name(host_pairs)
        wire_pairs = self._built("wire", lambda block: lab_blocks.wire(block, hosts, parsed, problems))
        lab_blocks.note_shared_addresses(host_pairs, wire_pairs, problems)
        lab_blocks.note_gateways(host_pairs, hosts, _values(wire_pairs), parsed, problems)
        return hosts, _values(wire_pairs)


def _by_name(pairs: Iterable[tuple[Block, N]]) -> dict[str, N]:
    return {config.name: config for _, config in pairs}


def _values(pairs: Iterable[tuple[Block, T]]) -> tuple[T, ...]:
    return tuple(value for _, value in pairs)
