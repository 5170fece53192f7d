"""Read a configuration: text to blocks to the model to the checks, and every problem in one error.

This is the door that the rest of seamless uses: `load_file`, `load_text`, and the error that they raise.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from seamless.config import build, check, lab
from seamless.config.grammar import Parsed, parse
from seamless.config.model import Configuration, Overlay
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
    parsed = parse(text, problems)
    blocks = [block for block in parsed.blocks if _keep(block, build.is_sound(block, problems), parsed)]
    configuration = _assemble(blocks, parsed, problems)
    if problems:
        raise ConfigurationProblems(problems.in_order())
    return configuration


def _keep(block: Block, usable: bool, parsed: Parsed) -> bool:
    if not usable:
        parsed.drop(block.keyword, block.name())
    return usable


def _assemble(blocks: list[Block], parsed: Parsed, problems: Problems) -> Configuration:
    """Build every block and run every check that can be run on what was built."""

    def built(keyword: str, builder: Callable[[Block, Problems], T]) -> list[tuple[Block, T]]:
        pairs = []
        for block in blocks:
            if block.keyword == keyword:
                before = len(problems)
                value = builder(block, problems)
                if _keep(block, len(problems) == before, parsed):
                    pairs.append((block, value))
        return pairs

    overlays = built("overlay", build.overlay)
    _note_number_of_overlays(overlays, parsed, problems)
    node_pairs = built("node", build.node)
    nodes = check.by_name(node_pairs, problems)
    check.note_shared_keys(node_pairs, problems)
    check.note_shared_addresses(node_pairs, problems)
    check.note_overlapping_serves(node_pairs, problems)

    link_pairs = built("link", lambda block, into: build.link(block, nodes, parsed, into))
    check.note_double_links(link_pairs, problems)
    intercept_pairs = built("intercept", lambda block, into: build.intercept(block, nodes, parsed, into))

    host_pairs = built("host", lab.host)
    hosts = check.by_name(host_pairs, problems)
    wire_pairs = built("wire", lambda block, into: lab.wire(block, hosts, parsed, into))
    wires = tuple(config for _, config in wire_pairs)
    lab.note_shared_addresses(host_pairs, wire_pairs, problems)
    lab.note_gateways(host_pairs, hosts, wires, parsed, problems)
    configuration = Configuration(
        overlay=overlays[0][1] if overlays else Overlay(""),
        nodes=nodes,
        links=tuple(config for _, config in link_pairs),
        intercepts=tuple(config for _, config in intercept_pairs),
        hosts=hosts,
        wires=wires,
    )
    if parsed.complete:
        check.note_captures(intercept_pairs, configuration, problems)
        lab.note_nodes_off_their_hosts(node_pairs, hosts, wires, problems)
    return configuration


def _note_number_of_overlays(overlays: list[tuple[Block, Overlay]], parsed: Parsed, problems: Problems) -> None:
    """Note a file with no overlay block, or with several."""
    if not overlays and not any(keyword == "overlay" for keyword, _ in parsed.broken):
        problems.add(0, "there is no overlay block: add `overlay NAME { }`")
    for block, _ in overlays[1:]:
        problems.add(block.start, "there is an overlay block already: one file describes one overlay")
