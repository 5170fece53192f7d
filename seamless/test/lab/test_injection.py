"""Hand-made packets from a peer with good keys: what leaves a gateway, and under which reason the rest is counted.

A forger stands in the place of a node. Firewall rules of the test's own on the egress count what its raw sockets send,
to whomever. Long TCP is released below the firewall: the wires to the egress's site and the native wire, which are as
good as silent, count its bytes.
"""

from __future__ import annotations

import logging
import re
import subprocess
from random import Random
from typing import Final

from twisted.trial.runner import TestSuite

from seamless.test.lab.bedtest import wait_until
from seamless.test.lab.class_suite import ClassSuite
from seamless.test.lab.impostor import replace, tell
from seamless.test.lab.wholebed import ETC, WholePacketCase

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting  # noqa: E402
from scapy.layers.l2 import GRE  # noqa: E402
from scapy.packet import Packet  # noqa: E402

A1, B1 = "10.2.1.1", "10.2.2.1"
A1_V6, B1_V6 = "2001:db8:1::1", "2001:db8:2::1"
SYN: Final = TCP(sport=40000, dport=22, flags="S")
DATAGRAM: Final = UDP(sport=40000, dport=5201) / b"data"
TIMESTAMP_OPTION: Final = b"\x44\x04\x05\x00"
MUTATIONS: Final = 200

GOOD: Final = bytes(IP(src=A1, dst=B1) / SYN)
GOOD_V6: Final = bytes(IPv6(src=A1_V6, dst=B1_V6) / SYN)

ALLOWED: Final = (
    IP(src=A1, dst=B1) / SYN,
    IP(src="10.2.1.77", dst="10.2.2.3") / TCP(sport=5205, dport=9, flags="A"),  # an answer
    IP(src=A1, dst=B1) / DATAGRAM,
    IPv6(src=A1_V6, dst=B1_V6) / SYN,
)
"""One wire packet each."""

LONG_BYTES: Final = 30_000
"""Of a forged super-packet; all that is said on the wires beside it is less."""
LONG: Final = TCP(sport=40000, dport=22, flags="A") / bytes(LONG_BYTES)

LONG_ALLOWED: Final[tuple[Packet, ...]] = (IP(src=A1, dst=B1) / LONG, IPv6(src=A1_V6, dst=B1_V6) / LONG)
LONG_REFUSED: Final = (
    ("source", IP(src="192.0.2.1", dst=B1) / LONG),
    ("destination", IP(src=A1, dst="10.1.12.5") / LONG),
    ("ports", IP(src=A1, dst=B1) / TCP(sport=40000, dport=23, flags="A") / bytes(LONG_BYTES)),
    ("checksum", IP(src=A1, dst=B1) / TCP(sport=40000, dport=22, flags="A", chksum=1) / bytes(LONG_BYTES)),
    ("length", bytes(IP(src=A1, dst=B1) / LONG)[:-1]),
    ("source", IPv6(src="2001:db8:9::1", dst=B1_V6) / LONG),
)

REFUSED: Final[tuple[tuple[str, Packet | bytes], ...]] = (
    # Checksums.
    ("checksum", IP(src=A1, dst=B1, chksum=1) / SYN),
    ("checksum", IP(src=A1, dst=B1) / TCP(dport=22, flags="S", chksum=1)),
    ("checksum", IP(src=A1, dst=B1) / UDP(dport=5201, chksum=1) / b"data"),
    ("checksum", IPv6(src=A1_V6, dst=B1_V6) / TCP(dport=22, flags="S", chksum=1)),
    ("checksum", IPv6(src=A1_V6, dst=B1_V6) / UDP(dport=5201, chksum=0) / b"data"),
    # Lengths.
    ("truncated", GOOD[:10]),
    ("truncated", GOOD_V6[:39]),
    ("truncated", IP(src=A1, dst=B1, proto=6) / bytes(SYN)[:19]),
    ("length", GOOD[:-1]),
    ("length", GOOD + b"x"),
    ("length", GOOD_V6 + b"x"),
    ("length", b"\x44" + GOOD[1:]),
    ("length", IP(src=A1, dst=B1) / TCP(dport=22, flags="S", dataofs=15)),
    ("length", IP(src=A1, dst=B1) / UDP(dport=5201, len=60) / b"data"),
    ("version", b"\x55" + GOOD[1:]),
    # Options, and headers that steer.
    ("options", IP(src=A1, dst=B1, options=[TIMESTAMP_OPTION]) / SYN),
    ("options", IPv6(src=A1_V6, dst=B1_V6) / IPv6ExtHdrRouting(addresses=["2001:db8:2::9"]) / SYN),
    ("options", IPv6(src=A1_V6, dst=B1_V6) / IPv6ExtHdrHopByHop() / SYN),
    ("expired", IP(src=A1, dst=B1, ttl=0) / SYN),
    ("expired", IPv6(src=A1_V6, dst=B1_V6, hlim=0) / SYN),
    # Fragments.
    ("fragment", IP(src=A1, dst=B1, proto=6, flags="MF") / bytes(SYN)[:8]),
    ("fragment", IP(src=A1, dst=B1, proto=17, frag=8190) / bytes(100)),
    ("ports", IP(src=A1, dst=B1, proto=6, frag=1) / bytes(40)),
    # Sources: of the other site, the gateway's own, of nobody, and of this very host.
    ("source", IP(src="10.2.2.9", dst=B1) / SYN),
    ("source", IP(src="10.1.1.1", dst=B1) / SYN),
    ("source", IP(src="192.0.2.1", dst=B1) / SYN),
    ("source", IP(src="0.0.0.0", dst=B1) / SYN),
    ("source", IP(src="127.0.0.1", dst=B1) / SYN),
    ("source", IPv6(src="2001:db8:2::9", dst=B1_V6) / SYN),
    ("source", IPv6(src="fe80::1", dst=B1_V6) / SYN),
    # Destinations: back again, the gateway's own, its neighbor's, everybody, nobody.
    ("destination", IP(src=A1, dst="10.2.1.2") / SYN),
    ("destination", IP(src=A1, dst="10.1.3.2") / SYN),
    ("destination", IP(src=A1, dst="10.1.12.5") / SYN),
    ("destination", IP(src=A1, dst="127.0.0.1") / SYN),
    ("destination", IP(src=A1, dst="224.0.0.1") / DATAGRAM),
    ("destination", IP(src=A1, dst="255.255.255.255") / DATAGRAM),
    ("destination", IPv6(src=A1_V6, dst="ff02::1") / DATAGRAM),
    ("destination", IPv6(src=A1_V6, dst="::1") / SYN),
    # Ports and protocols.
    ("ports", IP(src=A1, dst=B1) / TCP(sport=40000, dport=23, flags="S")),
    ("ports", IP(src=A1, dst=B1) / UDP(sport=40000, dport=22) / b"data"),
    ("ports", IP(src=A1, dst=B1) / ICMP()),
    ("ports", IP(src=A1, dst=B1) / GRE()),
    ("ports", IPv6(src=A1_V6, dst=B1_V6) / ICMPv6EchoRequest()),
)
"""Why, and what."""


class InjectionTests(WholePacketCase):
    """The gateway dst, and a forger in the place of another node."""

    table = "mangle"
    configuration = (ETC / "router.conf").read_text()

    def setUp(self) -> None:
        super().setUp()
        links = ["-p", "udp", "--sport", "7400", "-j", "RETURN"]
        counted = ["-m", "mark", "--mark", "0x1000/0x1000", "-m", "comment", "--comment", "counted"]
        for tool in ("iptables", "ip6tables"):
            for rule in (counted, links):
                self.lab.run("dst", [tool, "-t", "mangle", "-I", "OUTPUT", *rule])
                self.addCleanup(self.lab.run, "dst", [tool, "-t", "mangle", "-D", "OUTPUT", *rule])

    def left(self) -> int:
        """Return how many packets dst has released through raw sockets since the test began, to any host."""
        shown = [
            self.lab.run("dst", [f"{tool}-save", "-c", "-t", "mangle"]).stdout for tool in ("iptables", "ip6tables")
        ]
        counts = [re.findall(r"^\[(\d+):\d+\] -A OUTPUT .*counted", text, re.MULTILINE) for text in shown]
        self.assertEqual([len(found) for found in counts], [1, 1])
        return sum(int(found[0]) for found in counts)

    def wire_bytes(self) -> int:
        """Return how many bytes dst has ever sent to the hosts of its site, and over the native wire."""
        return sum(self.lab.counters("dst", host)["dst"]["bytes_in"] for host in ("b1", "b2", "b3", "src"))

    def wait_for_left(self, packets: int) -> None:
        wait_until(lambda: self.left() == packets, f"{packets} packets leave")

    def wait_for_bytes(self, least: int) -> None:
        wait_until(lambda: self.wire_bytes() > least, f"more than {least} bytes leave")

    def forger(self, node: str) -> subprocess.Popen[bytes]:
        """Put a forger in the place of a node."""
        self.lab.stop_node(node)
        return replace(self, self.lab, self.configuration_path(), node, "seamless.test.lab.injector")

    def inject(self, forger: subprocess.Popen[bytes], packet: Packet | bytes) -> list[str]:
        """Send one packet; return which of the egress's counters say what became of it."""
        before = self.verdicts()
        self.assertEqual(tell(forger, bytes(packet)), "sent")
        wait_until(lambda: self.verdicts() != before, f"dst judges {bytes(packet).hex()}")
        after = self.verdicts()
        self.assertEqual(sum(after.values()), sum(before.values()) + 1)
        return [name for name in after if after[name] != before[name]]

    def verdicts(self) -> dict[str, int]:
        """Return what dst has made of packets from its peers."""
        counters = self.counters("dst")
        return {name: count for name, count in counters.items() if name == "admitted" or name.startswith("refused_")}

    def test_each_refusal_has_its_reason(self) -> None:
        forger = self.forger("src")
        for reason, packet in REFUSED:
            self.assertEqual(self.inject(forger, packet), [f"refused_{reason}"], repr(packet))
        self.assertEqual(self.left(), 0)
        # That a packet which leaves is counted, the allowed ones show.
        for number, packet in enumerate(ALLOWED, 1):
            self.assertEqual(self.inject(forger, packet), ["admitted"], repr(packet))
            self.wait_for_left(number)

    def test_super_packets(self) -> None:
        forger = self.forger("src")
        before = self.wire_bytes()
        for reason, packet in LONG_REFUSED:
            self.assertEqual(self.inject(forger, packet), [f"refused_{reason}"], repr(packet)[:200])
        self.assertLess(self.wire_bytes() - before, LONG_BYTES)
        for number, allowed in enumerate(LONG_ALLOWED, 1):
            self.assertEqual(self.inject(forger, allowed), ["admitted"])
            self.wait_for_bytes(before + number * LONG_BYTES)
        wait_until(lambda: self.counter("dst", "cut_by_kernel") == 2, "both in one piece")

    def test_bytes_that_were_changed(self) -> None:
        """One byte of an allowed packet is another: only what dst says that it admitted has left."""
        forger = self.forger("src")
        random = Random(1)
        before = self.verdicts()
        for _ in range(MUTATIONS):
            packet = bytearray(random.choice([bytes(one) for one in ALLOWED]))
            packet[random.randrange(len(packet))] ^= random.randrange(1, 256)
            self.inject(forger, bytes(packet))
        admitted = self.verdicts()["admitted"] - before["admitted"]
        wait_until(lambda: self.left() == admitted, "what was admitted leaves")
        self.assertGreater(self.verdicts()["refused_checksum"], before["refused_checksum"])

    def test_a_relay_has_nothing_to_send(self) -> None:
        """What src may send, r2 may not: it serves no address."""
        forger = self.forger("r2")
        for packet in ALLOWED:
            self.assertEqual(self.inject(forger, packet), ["refused_source"])
        self.assertEqual(self.left(), 0)


def testSuite() -> TestSuite:
    """Return all tests, with their bed (trial asks for this name)."""
    return ClassSuite(InjectionTests)
