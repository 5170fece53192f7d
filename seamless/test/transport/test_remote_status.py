"""Status of other nodes over an overlay in memory: who may ask, how often, and answers that are none."""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from seamless.errors import UnreachableError, UsageError
from seamless.test.transport.reported import Reported
from seamless.testing import MemoryNode, MemoryOverlay
from seamless.tools.status import overview, remote_text
from seamless.tools.trace_command import text as trace_text
from seamless.transport.endpoints import OverlayServerEndpoint
from seamless.transport.overview import Overview
from seamless.transport.remote_status import (
    ANSWER_MAX_BYTES,
    ANSWER_TIMEOUT,
    ANSWERS_MAX,
    QUESTIONS,
    REUSE_INTERVAL,
    STATUS_SERVICE,
    Report,
    StatusService,
    read_report,
)

LATENCY = 0.01


class RemoteTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.overlay = MemoryOverlay(self.clock, LATENCY)
        self.operators: set[str] | None = None
        self.src = self.start("src")
        self.dst = self.start("dst")

    def start(self, name: str) -> StatusService:
        node = MemoryNode(self.overlay, name)
        service = StatusService(
            self.clock,
            node,
            lambda: {"node": name, "at": self.clock.seconds()},
            lambda peer: self.operators is None or peer in self.operators,
        )
        service.startService()
        return service

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds / LATENCY)):
            self.clock.advance(LATENCY)

    def refused(self, asking: Deferred[Report]) -> str:
        return str(self.failureResultOf(asking, UnreachableError).value)

    def answered_with(self, answer: bytes, *, hangs: bool = False) -> Deferred[Report]:
        """Ask a node that answers with these bytes."""

        class Lying(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(answer)
                if not hangs:
                    self.transport.loseConnection()

        liar = MemoryNode(self.overlay, "liar")
        OverlayServerEndpoint(liar, STATUS_SERVICE).listen(Factory.forProtocol(Lying))
        asking = self.src.ask("liar")
        self.run_for(ANSWER_TIMEOUT + 1)
        return asking


class QuestionTests(RemoteTestCase):
    def test_a_report(self) -> None:
        asking = self.src.ask("dst")
        self.run_for(0.5)
        self.assertEqual(self.successResultOf(asking)["node"], "dst")
        self.assertEqual((self.overlay.driver("src").open_streams, self.overlay.driver("dst").open_streams), (0, 0))

    def test_one_that_may_not_ask(self) -> None:
        self.operators = {"dst"}
        asking, other = self.src.ask("dst"), self.dst.ask("src")
        self.run_for(0.5)
        self.assertEqual(self.refused(asking), "node dst does not tell src: see `operators` in `overlay`")
        self.assertEqual(self.successResultOf(other)["node"], "src")
        self.assertEqual((self.dst.refused, self.dst.reports_made), (1, 0))

    def test_one_that_asks_a_thousand_times_a_second(self) -> None:
        """It is told a few times, and few reports are made; another peer is told as ever."""
        asked: list[Deferred[Report]] = []
        self.start("r1")
        for _ in range(100):
            asked += [self.src.ask("dst") for _ in range(10)]
            self.clock.advance(0.01)
        self.run_for(1.0)
        outcomes = [asking.addErrback(lambda failure: str(failure.value)) for asking in asked]
        told = [found for found in map(self.successResultOf, outcomes) if isinstance(found, dict)]
        self.assertLessEqual(len(told), QUESTIONS + 4)
        self.assertGreater(len(told), 2)
        self.assertLessEqual(self.dst.reports_made, 1 / REUSE_INTERVAL + 1)
        self.assertGreater(self.dst.refused, 900)
        self.assertEqual(self.overlay.driver("dst").open_streams, 0)

    def test_one_that_reads_no_answers(self) -> None:
        """So many are held for it and no more."""
        made = [self.dst.answering("src") for _ in range(ANSWERS_MAX + 1)]
        self.assertIsNone(made[-1])
        made[0].connectionLost()  # type: ignore[union-attr]
        self.assertIsNotNone(self.dst.answering("src"))

    def test_no_path(self) -> None:
        self.overlay.cut("src", "dst")
        self.assertEqual(self.refused(self.src.ask("dst")), "there is no path to node dst now")

    def test_a_node_without_this_service(self) -> None:
        self.dst.stopService()
        asking = self.src.ask("dst")
        self.run_for(0.5)
        self.assertIn("node dst does not answer", self.refused(asking))


class LiarTests(RemoteTestCase):
    def test_silence(self) -> None:
        self.assertEqual(self.refused(self.answered_with(b"{", hangs=True)), "node liar has not answered for 2 s")

    def test_more_than_a_report(self) -> None:
        self.assertIn("does not answer", self.refused(self.answered_with(bytes(ANSWER_MAX_BYTES + 1))))

    def test_no_report(self) -> None:
        for answer in (
            b"", b"{", b"[]", b"3", b'"x"', b"\xff\xfe", b"null", b"[" * 100_000, b'{"node": "dst"}',
            b'{"a":' * 50 + b"1" + b"}" * 50,
        ):  # fmt: skip
            error = self.assertRaises(UnreachableError, read_report, answer, "liar")
            self.assertIn("is no report", str(error))

    def test_control_characters(self) -> None:
        answer = json.dumps({"node": "liar", "links": [{"reason": "a\x1b[2J\n", "\x07": "\ud800"}]}).encode()
        report = read_report(answer, "liar")
        self.assertEqual(report["links"][0], {"reason": r"a\x1b[2J\n", r"\x07": "?"})
        error = self.assertRaises(UnreachableError, read_report, b'{"error": "no\\u001b[2J"}', "liar")
        self.assertEqual(str(error), r"no\x1b[2J")


class Fake:
    """A running node of a configuration, whose paths all lead over r1."""

    def __init__(self, name: str, names: list[str]) -> None:
        self.driver: Any = self
        self.acceptors: Any = None
        self.node = self
        self.configuration = self
        self.name = name
        self.nodes = names
        self.own: Report = {"node": name}

    def path(self, peer: str) -> tuple[str, ...]:
        return () if peer == "lost" else (self.name, "r1", peer)

    def report(self) -> Any:
        return attrs.make_class("Report", list(self.own))(**self.own)


class OverviewTests(RemoteTestCase):
    """Fifty nodes, of which two are dead and one speaks another language."""

    def setUp(self) -> None:
        super().setUp()
        self.report = json.loads(json.dumps(attrs.asdict(Reported("r1").report())))
        self.names = ["src", "dst", "r1", *(f"n{number}" for number in range(46)), "lost"]
        self.others = {name: self.start(name) for name in self.names[2:]}
        for name, service in {**self.others, "dst": self.dst}.items():
            service._report = lambda name=name: {**self.report, "node": name}  # type: ignore[misc]
        fake = Fake("src", self.names)
        fake.own = {**self.report, "node": "src"}
        self.view = Overview(fake, fake, self.src)  # type: ignore[arg-type]

    def test_all(self) -> None:
        self.overlay.cut("src", "n3")
        self.others["n4"]._report = lambda: {"node": "n4", "links": 3}
        self.others["n5"].answering = lambda peer: Protocol()  # type: ignore[assignment,method-assign,return-value]
        asking = self.view.all()
        self.run_for(ANSWER_TIMEOUT - 0.1)
        self.assertNoResult(asking)
        self.run_for(0.2)
        reports = self.successResultOf(asking)
        self.assertEqual(list(reports), self.names)
        self.assertEqual([name for name in self.names if "unknown" in reports[name]], ["n3", "n5"])
        shown = overview(reports).splitlines()
        (row,) = [index for index, line in enumerate(shown) if line.startswith("n5 ")]
        self.assertEqual(shown[row].split()[:2], ["n5", "unknown"])
        self.assertIn("node n5 has not answered for 2 s", shown[row + 1])
        self.assertIn("another form: is it of another version?", "\n".join(shown))
        self.assertEqual(sum("2 of 2" in line for line in shown), len(self.names) - 3)

    def test_one_node(self) -> None:
        asking = self.view.of("r1")
        self.run_for(0.5)
        report = self.successResultOf(asking)
        self.assertIn("node r1 of overlay lab", remote_text(report))
        for nonsense in (None, "nobody", 3, ["r1"]):
            self.assertRaises(UsageError, self.view.of, nonsense)

    def test_trace(self) -> None:
        self.report["links"][0]["neighbor"] = "dst"
        asking = self.view.trace("dst")
        self.run_for(0.5)
        answer = self.successResultOf(asking)
        self.assertEqual(answer["path"], ("src", "r1", "dst"))
        lines = trace_text(answer).splitlines()
        self.assertIn("unknown: it reports no link to r1", lines[1])
        self.assertRegex(lines[2], r"^r1 - dst +10\.0 ms")
        self.assertRaises(UsageError, self.view.trace, "src")
        self.assertRaises(UnreachableError, self.view.trace, "lost")
