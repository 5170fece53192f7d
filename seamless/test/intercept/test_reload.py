"""The configuration read again by running nodes, on virtual time: what changes, what goes on, and what is refused.

Each node has a file of its own, as each host has. The privileged part is played by `Rules`, which reads the same file
and whose answers a test can hold back.
"""

from __future__ import annotations

import gc
import socket
from pathlib import Path
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_file, load_text
from seamless.config.model import Configuration, InterceptConfig
from seamless.errors import ConfigurationError, SeamlessError
from seamless.intercept.firewall import FirewallService
from seamless.intercept.interceptors import Interceptors
from seamless.intercept.reload import LOGGED_MAX, Reloader
from seamless.interfaces import StreamKey
from seamless.link.status import LinkStatus
from seamless.linux.ruleset import Ruleset
from seamless.service import NodeService
from seamless.test.node.network import node
from seamless.test.transport.grounds import own_address
from seamless.test.transport.memory_ports import DriverNetwork, Owner
from seamless.transport.driver import Driver
from seamless.transport.streams import Acceptors

GAP_MAX = 0.05
"""Seconds for which a transfer may stand still at most."""
RATE = "rate 8 mbit; congestion off;"
RATE_BPS = 8e6
KIND = 0x7F
"""First byte of the target of the transfer's stream."""
LINKS = {"src r1": f"{RATE} cost 10;", "r1 dst": f"{RATE} cost 10;", "src dst": f"{RATE} cost 40;"}
NAMES = ("src", "r1", "dst")


def statements(name: str, more: str = "") -> str:
    """Return the block of a node."""
    block = node(name, f"10.0.0.{(*NAMES, 'r2').index(name) + 1}:7400")
    return block.replace("}", f"{more} }}")


class Rules:
    """The rules' service, as far as a reload asks something of it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.calls: list[str] = []
        self.held: list[Deferred[str]] | None = None
        """Answers that wait, when a test holds them."""
        self.install_error: SeamlessError | None = None

    def read_again(self) -> Deferred[str]:
        self.calls.append("read")
        try:
            return self._answer(load_file(self.file).digest)
        except ConfigurationError as error:
            return fail(error)

    def install_again(self) -> Deferred[str]:
        self.calls.append("install")
        return self._answer("") if self.install_error is None else fail(self.install_error)

    def _answer(self, text: str) -> Deferred[str]:
        answer: Deferred[str] = Deferred()
        if self.held is None:
            answer.callback(text)
        else:
            self.held.append(answer.addCallback(lambda _: text))
        return answer


class Host:
    """One node with its file, its interceptors and what reloads them."""

    def __init__(self, net: DriverNetwork, driver: Driver, file: Path) -> None:
        self.driver = driver
        self.file = file
        self.acceptors = Acceptors(driver)
        self.interceptors = Interceptors(net.clock, driver.node.configuration, driver.name, is_left_out=True)
        self.rules = Rules(file)
        self.reloader = Reloader(net.clock, file, lambda: driver, self.interceptors, cast(FirewallService, self.rules))
        driver.start()
        self.interceptors.use(driver, self.acceptors)
        self.interceptors.startService()


class ReloadTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        host, port = own_address()
        self.capture = f"capture at {host} port {port + 1000};"
        self.old = self.text()
        self.net = DriverNetwork(load_text(self.old, "old"))
        for name in ("addReader", "removeReader"):
            setattr(self.net.clock, name, lambda reader: None)  # listening sockets that nothing connects to
        self.hosts = {name: self.host(name) for name in NAMES}
        self.net.run(5.0, lambda: self.hosts["src"].driver.reachable("dst"))
        self.net.run(1.0)

    def host(self, name: str) -> Host:
        file = Path(self.mktemp()).with_name(f"{name}.conf")
        file.parent.mkdir(exist_ok=True)
        file.write_text(self.old)
        host = Host(self.net, self.net.drivers[name], file)
        self.addCleanup(host.interceptors.stopService)
        return host

    def text(
        self,
        overlay: str = "",
        links: dict[str, str] | None = None,
        nodes: str = "",
        ports: str = "22",
        src: str | None = None,
        dst: str = "serves 10.1.9.2;",
    ) -> str:
        """Return a file; ``links`` replaces or adds, an empty one removes; the rest is added to its block."""
        merged = {**LINKS, **(links or {})}
        return "\n".join(
            (
                f"overlay test {{ {overlay} }}",
                src or statements("src", self.capture),
                statements("r1"),
                statements("dst", dst),
                nodes,
                *(f"link {ends} {{ {text} }}" for ends, text in merged.items() if text),
                f"intercept payload {{ tcp port {ports}; on src; }}" if ports else "",
            )
        )

    def reload(self, name: str, text: str | None = None) -> Deferred[tuple[str, ...]]:
        if text is not None:
            self.hosts[name].file.write_text(text)
        return self.hosts[name].reloader.reload()

    def refused(self, name: str, text: str) -> str:
        """Return the sentences with which a node refuses a file, after a check that nothing has changed."""
        driver = self.hosts[name].driver
        before = driver.node.configuration, driver.node.status(self.net.clock.seconds()), self.listening()
        failure = self.failureResultOf(self.reload(name, text), SeamlessError)
        self.assertEqual((driver.node.configuration, driver.node.status(self.net.clock.seconds()), self.listening()),
                         before)  # fmt: skip
        return str(failure.value)

    def listening(self) -> tuple[Any, ...]:
        ingress = self.hosts["src"].interceptors._ingress
        assert ingress is not None
        return ingress.addresses

    def link(self, name: str, neighbor: str) -> LinkStatus:
        links = self.hosts[name].driver.node.status(self.net.clock.seconds()).links
        return next(link for link in links if link.neighbor == neighbor)


class Reader(Owner):
    """Reads a transfer and notes the longest time between two arrivals."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.longest = 0.0
        self.at: float | None = None

    def stream_data(self, chunks: list[bytes]) -> None:
        super().stream_data(chunks)
        now = self.driver._reactor.seconds()
        self.longest = max(self.longest, 0.0 if self.at is None else now - self.at)
        self.at = now


class Writer(Owner):
    """Writes as much as the stream takes."""

    def __init__(self, driver: Driver, data: bytes) -> None:
        super().__init__(driver)
        self.left = memoryview(data)

    def stream_writable(self) -> None:
        while self.left:
            piece, self.left = bytes(self.left[:65536]), self.left[65536:]
            if self.driver.send(self.stream, piece) <= 0:
                return


class TransferTests(ReloadTestCase):
    """A transfer from src to dst over r1, and every node reloads in turn."""

    def transfer(self, seconds: float) -> None:
        self.readers: list[Reader] = []
        self.hosts["dst"].acceptors.register(KIND, self.opened)
        self.data = Random(1).randbytes(int(seconds * RATE_BPS / 8))
        self.writer = Writer(self.hosts["src"].driver, self.data)
        self.writer.stream = self.hosts["src"].driver.open_stream("dst", bytes([KIND]), self.writer)
        self.writer.stream_writable()
        self.net.run(0.5)

    def opened(self, stream: StreamKey, peer: str, target: bytes) -> None:
        self.readers.append(Reader(self.hosts["dst"].driver))
        self.readers[0].stream = stream
        self.hosts["dst"].driver.accept_stream(stream, self.readers[0])

    def check_undisturbed(self, *texts: str) -> None:
        """Have each node take these files in turn, beside the transfer; the links that stay are the same ones."""
        before = {name: self.link(name, other) for name, other in (("src", "r1"), ("dst", "r1"))}
        self.transfer(1.0 + 0.4 * len(texts))
        received = len(self.readers[0].received)
        for text in texts:
            for name in ("dst", "r1", "src"):
                self.successResultOf(self.reload(name, text))
                self.net.run(0.1)
        self.assertGreater(len(self.readers[0].received), received, "the transfer went on meanwhile")
        self.assertLess(len(self.readers[0].received), len(self.data), "the transfer was still under way")
        self.net.run(20.0, lambda: len(self.readers[0].received) == len(self.data))
        self.assertEqual(self.readers[0].received, self.data)
        self.assertLess(self.readers[0].longest, GAP_MAX)
        for name, link in before.items():
            self.assertEqual((self.link(name, "r1").since, self.link(name, "r1").restarts), (link.since, 0))

    def test_an_added_port(self) -> None:
        self.check_undisturbed(self.text(ports="22, 80"))
        src = self.hosts["src"]
        self.assertEqual(src.rules.calls, ["read", "install"])
        self.assertEqual([host.rules.calls for host in self.hosts.values() if host is not src], [[], []])

    def test_another_capture_port(self) -> None:
        address, port = own_address()
        other = statements("src", f"capture at {address} port {port + 2000};")
        self.check_undisturbed(self.text(src=other))
        self.assertEqual(self.listening(), ((address, port + 2000),))

    def test_a_node_with_its_link_comes_and_goes(self) -> None:
        more = self.text(nodes=statements("r2"), links={"r1 r2": RATE})
        self.check_undisturbed(more, self.old)

    def test_a_removed_link(self) -> None:
        """That of the transfer, which goes the other way from then on."""
        without = self.text(links={"src r1": ""})
        self.transfer(2.0)
        for name in ("dst", "r1", "src"):
            self.successResultOf(self.reload(name, without))
            self.net.run(0.1)
        self.net.run(20.0, lambda: len(self.readers[0].received) == len(self.data))
        self.assertEqual(self.readers[0].received, self.data)
        self.assertLess(self.readers[0].longest, GAP_MAX)
        self.assertGreater(self.link("src", "dst").data_sent, 400)

    def test_rates_intervals_and_what_is_served(self) -> None:
        self.check_undisturbed(
            self.text(links={"src r1": "rate 12 mbit; congestion off; cost 10;"}),
            self.text("hello 50 ms; dead 200 ms;"),
            self.text(dst="serves 10.1.9.0/24;"),
        )

    def test_a_removed_peer_resets_its_stream_with_a_reason(self) -> None:
        self.transfer(2.0)
        reasons: list[str] = []
        self.writer.stream_reset = lambda code, reason: reasons.append(reason)  # type: ignore[method-assign]
        gone = "\n".join(
            line
            for line in self.text(ports="", links={"r1 dst": "", "src dst": ""}).splitlines()
            if not line.startswith("node dst")
        )
        self.successResultOf(self.reload("src", gone))
        self.assertEqual(reasons, ["node dst is not in the configuration any more"])


class RefusalTests(ReloadTestCase):
    def test_a_bad_file_changes_nothing(self) -> None:
        said = self.refused("src", self.text(overlay="hello 100;") + "\nlink src nobody { }\n")
        self.assertRegex(said, r"src\.conf:1:25: expected a unit")
        self.assertIn("nobody", said)
        self.assertEqual(len(said.splitlines()), 2)

    def test_a_file_that_is_gone(self) -> None:
        self.hosts["src"].file.unlink()
        failure = self.failureResultOf(self.hosts["src"].reloader.reload(), ConfigurationError)
        self.assertIn("does not exist", str(failure.value))

    def test_own_address_and_key(self) -> None:
        moved = self.text(src=statements("src", self.capture).replace("10.0.0.1:", "10.0.0.9:"))
        self.assertRegex(self.refused("src", moved), "nothing was changed.*other addresses: restart the daemon")
        key = statements("r2").split('"')[1]
        other = statements("src", self.capture)
        rekeyed = self.text(src=other.replace(other.split('"')[1], key))
        self.assertRegex(self.refused("src", rekeyed), "another key: restart the daemon with that key")

    def test_own_name(self) -> None:
        renamed = self.old.replace("node src ", "node new ").replace("link src", "link new").replace("on src", "on new")
        self.assertRegex(self.refused("src", renamed), "it has no node src, which is this one")

    def test_whole_packets(self) -> None:
        self.assertRegex(
            self.refused("dst", self.text(src=statements("src", self.capture + " serves 10.1.9.1;"), ports="")
                         + "intercept local { udp to 10.1.9.2 port 5; on src; }"),
            "other whole packets .* on node dst: restart the daemon",
        )  # fmt: skip

    def test_a_capture_port_that_another_program_has(self) -> None:
        host, port = own_address()
        with socket.create_server((host, port + 3000)):
            taken = self.text(src=statements("src", f"capture at {host} port {port + 3000};"))
            self.assertRegex(self.refused("src", taken), f"TCP {host} port {port + 3000} is in use by another program")
        self.assertEqual(self.hosts["src"].rules.calls, [], "the rules are not even looked at")

    def test_other_capture_addresses_with_the_same_port(self) -> None:
        """Every address of this host and one of them cannot be listened at with one port at the same time."""
        port = self.listening()[0][1]
        other = self.text(src=statements("src", f"capture port {port};"))
        self.assertRegex(self.refused("src", other), "change the port of `capture` too, or restart the daemon")

    def test_the_file_changes_between_two_readings(self) -> None:
        """The daemon and its privileged part must not act on two different files."""
        rules = self.hosts["src"].rules
        rules.file = self.hosts["r1"].file
        rules.file.write_text(self.text(ports="25"))
        self.assertRegex(self.refused("src", self.text(ports="22, 80")), "changed while it was read: reload once more")
        self.assertEqual(rules.calls, ["read"])

    def test_rules_that_cannot_be_installed(self) -> None:
        self.hosts["src"].rules.install_error = SeamlessError("iptables says no")
        failure = self.failureResultOf(self.reload("src", self.text(ports="22, 80")), SeamlessError)
        self.assertRegex(str(failure.value), "is taken, but its firewall rules .*iptables says no.*reload once more")

    def test_what_is_refused_is_in_the_log_and_the_next_one_is_taken(self) -> None:
        self.refused("src", "overlay { }")
        self.assertEqual(self.successResultOf(self.reload("src", self.old)), ())


def kept(kinds: tuple[type, ...]) -> list[int]:
    """Return how many objects of each of these kinds there are."""
    gc.collect()
    objects = [type(each) for each in gc.get_objects()]
    return [objects.count(kind) for kind in kinds]


class OrderTests(ReloadTestCase):
    def test_one_that_is_asked_for_meanwhile_reads_what_was_written_meanwhile(self) -> None:
        rules = self.hosts["src"].rules
        rules.held = []
        first = self.reload("src", self.text(ports="22, 80"))
        self.assertEqual(rules.calls, ["read"])
        second = self.reload("src", self.text(ports="22, 81"))
        third = self.reload("src")
        self.assertNoResult(first)
        self.assertEqual(rules.calls, ["read"], "one at a time")
        held, rules.held = rules.held, None
        for answer in held:
            answer.callback("")
        self.assertIn("80-80", self.successResultOf(first)[0])
        changed = self.successResultOf(second)
        self.assertIn("81-81", changed[0])
        self.assertEqual(self.successResultOf(third), changed)
        self.assertEqual(rules.calls, ["read", "install"] * 2)

    def test_rules_come_last(self) -> None:
        """Nothing is diverted before something listens for it, and before it is known where it goes."""
        rules = self.hosts["src"].rules
        rules.held = []
        address, port = own_address()
        other = self.text(src=statements("src", f"capture at {address} port {port + 2000};"))
        before = self.listening()
        reloading = self.reload("src", other)
        self.assertEqual(self.listening(), (*before, (address, port + 2000)))
        self.assertEqual(self.hosts["src"].driver.node.configuration.text, self.old)
        rules.held.pop().callback("")
        self.assertEqual(self.hosts["src"].driver.node.configuration.text, other)
        self.assertEqual(rules.calls, ["read", "install"])
        self.assertEqual(len(self.listening()), 2)
        rules.held.pop().callback("")
        self.successResultOf(reloading)
        self.assertEqual(self.listening(), ((address, port + 2000),))

    def test_a_hundred_times(self) -> None:
        """Nothing is left over, of sockets, timers, sessions or children."""
        before = None
        others = [self.text(ports=f"22, {port}", links={"r1 dst": f"{RATE} cost {port};"}) for port in range(80, 90)]
        for turn in range(100):
            self.successResultOf(self.reload("src", (*others, self.old)[turn % 11]))
            self.net.run(0.01)
            if turn % 11 == 10:
                src = self.hosts["src"]
                found = (
                    len(self.listening()),
                    len(src.interceptors.services),
                    len(self.net.clock.getDelayedCalls()) // 10,
                    len(src.driver._owners),
                    len(list(src.driver.node._links)),
                    *kept((Configuration, InterceptConfig, Ruleset)),
                )
                before = before or found
                self.assertEqual(found, before)
        self.assertEqual(self.hosts["src"].rules.calls.count("install"), 100)

    def test_a_program_sees_the_configuration_that_is_in_force(self) -> None:
        src = self.hosts["src"]
        service = NodeService(src.driver.node.configuration, "src", bytes(32), self.net.clock)
        self.assertEqual(service.configuration.text, self.old)
        service._driver = src.driver
        new = self.text(ports="22, 80")
        self.successResultOf(self.reload("src", new))
        self.assertEqual(service.configuration.text, new)

    def test_a_long_list_is_cut_in_the_log_and_whole_in_the_answer(self) -> None:
        many = "\n".join(node(f"n{number}", f"10.0.1.{number}:7400") for number in range(1, LOGGED_MAX + 6))
        self.assertEqual(len(self.successResultOf(self.reload("src", self.text(nodes=many)))), LOGGED_MAX + 5)
