"""The grammar of the configuration language, in pyparsing: text in, `Block` trees and syntax problems out.

docs/grammar.rst says the same in EBNF, statement by statement. How it is written here:

* After the keyword of a block or statement nothing else can follow, so ``-`` and not ``+`` joins what comes next: the
  parser reports the first thing that does not fit, instead of trying something else.
* Every element has a name, and the names are what a message says was expected. The brace that closes a block is named
  after all that may stand before it.
* Words of the right shape that mean nothing (``10.1.1.300``) become `Bad` values, so that they do not end the parse.
* Syntax errors do end the parse of their block; it goes on at the next line that begins with a block's keyword.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from typing import Final

import attrs
import pyparsing as pp

from seamless.config import values
from seamless.config.syntax import Bad, Block, Problems, Statement, Value, skip_blank, token_at
from seamless.config.syntax_hints import BYTE_ORDER_MARK, SyntaxSlip
from seamless.link.congestion import CONTROLLERS

_WORD: Final = "A-Za-z0-9_-"
_keywords: set[str] = set()
_words_of: dict[str, tuple[str, ...]] = {}
"""The words of the language that fit where an element of this name is expected."""


def _keyword(word: str) -> pp.ParserElement:
    """Return an element for a word of the language, which yields its text.

    Not `pp.Keyword`: after ``nodes`` that would complain of the ``s``.
    """
    _keywords.add(word)
    _words_of[word] = (word,)
    return pp.Regex(f"{word}(?![{_WORD}])").set_name(word)


def _silent(word: str) -> pp.ParserElement:
    return _keyword(word).suppress().set_name(word)


def _in_words(names: Iterable[str]) -> str:
    """Return "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _name_of(words: Iterable[str], phrase: str = "{}") -> str:
    """Return the name of an element that takes any of these words: ``phrase`` around "a, b or c"."""
    listed = tuple(words)
    name = phrase.format(_in_words(listed))
    _words_of[name] = listed
    return name


def _value(element: pp.ParserElement, meaning: Callable[..., object], name: str) -> pp.ParserElement:
    """Return an element that yields the `Value` that ``meaning`` makes of the tokens."""

    def placed(tokens: pp.ParseResults) -> Value:
        return Value(meaning(*tokens["value"]), tokens["locn_start"])

    return pp.Located(element).add_parse_action(placed).set_name(name)


def _text(pattern: str, meaning: Callable[[str], object], name: str) -> pp.ParserElement:
    return _value(pp.Regex(pattern).set_name(name), meaning, name)


def _choice(*words: str) -> pp.ParserElement:
    name = _name_of(words)
    return _value(pp.MatchFirst([_keyword(word) for word in words]).set_name(name), str, name)


def _number(name: str) -> pp.ParserElement:
    return pp.Regex(r"[0-9]+(?:\.[0-9]+)?").set_name(name)


def _unit(units: Iterable[str]) -> pp.ParserElement:
    names = list(units)
    _keywords.update(names)
    return pp.Regex(f"(?:{'|'.join(names)})(?![{_WORD}])").set_name(_name_of(names, "a unit ({})"))


def _measure(meaning: Callable[[str, str, str], object], units: Mapping[str, object], name: str) -> pp.ParserElement:
    return _value(_number(name) - _unit(units), partial(_with_name, meaning, name), name)


def _with_name(meaning: Callable[[str, str, str], object], name: str, number: str, unit: str) -> object:
    return meaning(number, unit, name)


NAME: Final = _text(f"[A-Za-z][{_WORD}]*", str, "a name (letters, digits, - and _, a letter first)")
ADDRESS: Final = _text("[0-9A-Za-z:.]+", values.address, values.AN_ADDRESS)
ENDPOINT: Final = _text(r"\[[0-9A-Za-z:.]*\](?::[0-9]+)?|[0-9A-Za-z:.]+", values.endpoint, values.AN_ENDPOINT)
NETWORK: Final = _text("[0-9A-Za-z:.]+(?:/[0-9A-Za-z.]*)?", values.network, values.A_NETWORK)
INTERFACE: Final = _text("[0-9A-Za-z:.]+(?:/[0-9A-Za-z.]*)?", values.interface, values.AN_INTERFACE)
PORTS: Final = _text(r"[0-9]+(?:\s*-\s*[0-9]+)?", values.ports, values.A_PORT)
PORT: Final = _text("[0-9]+", values.port, values.ONE_PORT)
KEY: Final = _text(r'"[^"\n]*"', values.key, values.A_KEY)
COST: Final = _text("[0-9]+", values.cost, values.A_COST)
RATE: Final = _measure(values.rate, values.RATE_UNITS, "a rate such as 500 mbit")
TIME: Final = _measure(values.duration, values.TIME_UNITS, "a time such as 100 ms")
SIZE: Final = _measure(values.size, values.SIZE_UNITS, "a size such as 16 MiB")
PERCENTAGE: Final = _value(
    _number(values.A_PERCENTAGE) - pp.Literal("%").suppress().set_name("%"), values.percentage, values.A_PERCENTAGE
)
RUN: Final = _value(_number(values.A_RUN) - _silent("packets"), values.run_length, values.A_RUN)


def _end(name: str = "';'") -> pp.ParserElement:
    return pp.Literal(";").suppress().set_name(name)


def _items(item: pp.ParserElement) -> pp.ParserElement:
    """Return an element for one or more items with commas between them."""
    return item - pp.ZeroOrMore(pp.Literal(",").suppress() - item)


def _list(item: pp.ParserElement) -> pp.ParserElement:
    return _items(item) - _end("',' or ';'")


def _together(tokens: pp.ParseResults) -> Value:
    """Return the `Value` of one side of ``carries``: all its networks, or the first bad one."""
    items: list[Value] = list(tokens)
    bad = next((item for item in items if isinstance(item.value, Bad)), None)
    return bad or Value(tuple(item.value for item in items), items[0].start)


def _side() -> pp.ParserElement:
    return _items(NETWORK).add_parse_action(_together).set_name(values.A_NETWORK)


def _rule(with_ports: bool) -> pp.ParserElement:
    """Return what follows ``tcp``, ``udp`` or ``ip``: destinations, and ports where the protocol has them."""
    to = _silent("to") - _items(NETWORK)
    if not with_ports:
        return ((to - _end("',' or ';'")) | _end()).set_name(_name_of(["to", "';'"]))
    ports = _silent("port") - _list(PORTS)
    after_to = (ports | _end()).set_name(_name_of(["','", "port", "';'"]))
    return ((to - after_to) | ports | _end()).set_name(_name_of(["to", "port", "';'"]))


def _capture() -> pp.ParserElement:
    """Return what follows ``capture``: addresses, a port, or both."""
    at = _silent("at") - _items(ADDRESS)
    port = _silent("port") - PORT - _end()
    after_at = (port | _end()).set_name(_name_of(["','", "port", "';'"]))
    return ((at - after_at) | port).set_name(_name_of(["at", "port"]))


def _to_another_rate() -> pp.ParserElement:
    """Return what follows the first rate of a link: a second one, or nothing."""
    to = _silent("to") - RATE - _end()
    return (to | _end()).set_name(_name_of(["to", "';'"]))


def _statement(phrase: str, rest: pp.ParserElement) -> pp.ParserElement:
    """Return an element that yields the `Statement` of a keyword (two words, perhaps) and what comes after it."""

    def made(tokens: pp.ParseResults) -> Statement:
        inner = list(tokens["value"])
        plain = tuple(item for item in inner if isinstance(item, Value))
        body = tuple(item for item in inner if isinstance(item, Statement))
        return Statement(phrase, plain, tokens["locn_start"], body)

    words = reduce(operator.sub, [_silent(word) for word in phrase.split()])
    return pp.Located(words - rest).add_parse_action(made).set_name(phrase)


def _body(statements: Mapping[str, pp.ParserElement]) -> pp.ParserElement:
    """Return an element for statements in braces."""
    elements = [_statement(phrase, rest) for phrase, rest in statements.items()]
    close = pp.Literal("}").suppress().set_name(_name_of([*statements, "'}'"]))
    return pp.Literal("{").suppress().set_name("'{'") - pp.ZeroOrMore(pp.MatchFirst(elements)) - close


def _block(
    keyword: str, header: list[pp.ParserElement], statements: Mapping[str, pp.ParserElement]
) -> pp.ParserElement:
    """Return an element that yields the `Block` of a keyword, its names and its statements."""

    def made(tokens: pp.ParseResults) -> Block:
        inner = list(tokens["value"])
        names = tuple(item for item in inner if isinstance(item, Value))
        inside = tuple(item for item in inner if isinstance(item, Statement))
        return Block(keyword, names, inside, tokens["locn_start"])

    whole = reduce(operator.sub, [_silent(keyword), *header, _body(statements)])
    return pp.Located(whole).add_parse_action(made).set_name(keyword)


OVERLAY: Final = {
    "hello": TIME - _end(),
    "dead": TIME - _end(),
    "give up": TIME - _end(),
    "operators": _list(NAME),
}
NODE: Final = {
    "address": _list(ENDPOINT),
    "serves": _list(NETWORK),
    "key": KEY - _end(),
    "leaf": _end(),
    "memory": SIZE - _end(),
    "capture": _capture(),
}
LINK: Final = {
    "between": ENDPOINT - ENDPOINT - _end(),
    "rate": RATE - _to_another_rate(),
    "congestion": _choice(*CONTROLLERS) - _end(),
    "cost": COST - _end(),
    "mtu": SIZE - _end(),
    "passive": NAME - _end(),
}
INTERCEPT: Final = {
    "tcp": _rule(with_ports=True),
    "udp": _rule(with_ports=True),
    "ip": _rule(with_ports=False),
    "on": _list(NAME),
    "when unreachable": _choice("direct", "refuse") - _end(),
    "connect": _choice("confirmed", "early", "learned") - _end(),
    "source": _choice("egress", "client") - _end(),
    "recovery": _choice("reliable", "none") - _end(),
    "release": _choice("ordered", "unordered") - _end(),
    "clamp mss": _end(),
}
HOST: Final = {
    "address": _list(ADDRESS),
    "run": _list(_choice("sshd", "nginx", "iperf3")),
    "gateway": NAME - _end(),
}
IMPAIRMENT: Final = {
    "delay": TIME - _end(),
    "rate": RATE - _end(),
    "queue": SIZE - _end(),
    "loss": PERCENTAGE - _end(),
    "burst": RUN - _end(),
    "duplicate": PERCENTAGE - _end(),
    "reorder": PERCENTAGE - _silent("by") - TIME - _end(),
    "corrupt": PERCENTAGE - _end(),
    "black hole": SIZE - _end(),
    "down": _end(),
}
WIRE: Final = {
    "between": INTERFACE - INTERFACE - _end(),
    **IMPAIRMENT,
    "mtu": SIZE - _end(),
    "carries": _side() - _side() - _end("',' or ';'"),
    "from": NAME - _body(IMPAIRMENT),
}

_STATEMENTS: Final = {
    "overlay": OVERLAY,
    "node": NODE,
    "link": LINK,
    "intercept": INTERCEPT,
    "host": HOST,
    "wire": WIRE,
}
_BLOCKS: Final = {
    "overlay": _block("overlay", [NAME], OVERLAY),
    "node": _block("node", [NAME], NODE),
    "link": _block("link", [NAME, NAME], LINK),
    "intercept": _block("intercept", [_choice("payload", "local", "router")], INTERCEPT),
    "host": _block("host", [NAME], HOST),
    "wire": _block("wire", [NAME, NAME], WIRE),
}
_BLOCK: Final = (
    pp.MatchFirst(_BLOCKS.values()).set_name(_name_of(_BLOCKS, "a block ({})")).ignore("#" + pp.rest_of_line)
)

KEYWORDS: Final = frozenset(_keywords)
"""Every word of the language, units included."""

_NEXT_BLOCK: Final = re.compile(rf"^[ \t]*({'|'.join(_BLOCKS)})(?![{_WORD}])", re.MULTILINE)
_NAMED: Final = re.compile(rf"(overlay|node|host)[ \t]+([A-Za-z][{_WORD}]*)")


@attrs.define
class Parsed:
    """The blocks that can be used, and what is known of those that cannot.

    ``broken`` holds (keyword, name) of the unusable ones, so that no message calls them missing;
    ``complete`` is False when there was any unusable block.
    """

    blocks: list[Block] = attrs.field(factory=list)
    broken: set[tuple[str, str]] = attrs.field(factory=set)
    complete: bool = True

    def drop(self, keyword: str, name: str) -> None:
        """Note that a block cannot be used."""
        self.broken.add((keyword, name))
        self.complete = False


def parse(text: str, problems: Problems) -> Parsed:
    """Read a whole file block by block, and collect every syntax error and invalid value."""
    parsed = Parsed()
    read: list[Block] = []
    block = _BLOCK.copy().add_parse_action(lambda tokens: read.append(tokens[0]))
    block.streamline()  # `-` is in force only in a streamlined element, and `try_parse` does not do it
    start = skip_blank(text, _after_byte_order_mark(text, problems))
    while start < len(text):
        try:
            start = skip_blank(text, block.try_parse(text, start, raise_fatal=True, do_actions=True))
        except pp.ParseBaseException as error:
            at = skip_blank(text, error.loc)
            problems.add(*_slip(text, start, at, error.msg).explained())
            named = _NAMED.match(text, start)
            parsed.drop(*("", "") if named is None else named.groups())
            line_start = text.rfind("\n", 0, at) + 1
            further = _NEXT_BLOCK.search(text, max(line_start, start + 1))
            start = len(text) if further is None else further.start(1)
    for one in read:
        _sort_out(one, parsed, problems)
    return parsed


def _after_byte_order_mark(text: str, problems: Problems) -> int:
    """Return where the text begins; note a byte order mark in front of it."""
    if not text.startswith(BYTE_ORDER_MARK):
        return 0
    problems.add(0, "the file begins with a byte order mark (U+FEFF): save it as UTF-8 without BOM")
    return len(BYTE_ORDER_MARK)


def _slip(text: str, start: int, at: int, complaint: str) -> SyntaxSlip:
    """Return what the parser knows about an error: ``complaint`` is its "Expected NAME"."""
    expected = complaint.removeprefix("Expected ")
    keyword = token_at(text, start)
    words = _words_of.get(expected, ())
    return SyntaxSlip(text, start, at, expected, words, _STATEMENTS.get(keyword, {}), _BLOCKS)


def _sort_out(block: Block, parsed: Parsed, problems: Problems) -> None:
    """Keep a block all of whose values mean something; of any other report the values that do not."""
    bad = [(value.start, value.value.message) for value in block.walk() if isinstance(value.value, Bad)]
    for start, message in bad:
        problems.add(start, message)
    if bad:
        parsed.drop(block.keyword, block.name())
    else:
        parsed.blocks.append(block)
