"""Hand-made packets from a peer: only what the configuration allows leaves, and each refusal has its reason."""

from __future__ import annotations

import logging

import attrs
from twisted.trial.unittest import SynchronousTestCase

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6, IPv6ExtHdrRouting  # noqa: E402
from scapy.packet import Packet  # noqa: E402

from seamless.intercept.packets.release import Release, ReleaseCounters  # noqa: E402
from seamless.test.intercept.packets.in_namespaces import configuration  # noqa: E402

A, B, C = "10.1.9.1", "10.1.9.2", "10.1.9.3"


class ReleaseTests(SynchronousTestCase):
    """Node b releases what node a sends."""

    def setUp(self) -> None:
        self.release = Release(configuration(), "a", "b", ReleaseCounters())

    def check(self, packet: Packet | bytes, reason: str | None) -> None:
        """Hand one packet in; it must be released, or refused for this reason and no other."""
        before = attrs.asdict(self.release.counters)
        released = self.release.receive(bytes(packet), 0.0)
        after = attrs.asdict(self.release.counters)
        changed = [name for name in after if after[name] != before[name]]
        self.assertEqual(changed, ["admitted" if reason is None else f"refused_{reason}"])
        self.assertEqual(released, [bytes(packet)] if reason is None else [])

    def test_what_a_captures(self) -> None:
        self.check(IP(src=A, dst=B) / TCP(dport=22, flags="S"), None)
        self.check(IP(src=A, dst=B) / TCP(dport=8050, sport=1, flags="S"), None)
        self.check(IP(src=A, dst=B) / UDP(dport=53), None)
        self.check(IPv6(src="2001:db8:1::7", dst="2001:db8:2::9") / TCP(dport=22, flags="S"), None)

    def test_answers(self) -> None:
        """The other direction is released at a, and only as answers."""
        self.release = Release(configuration(), "b", "a", ReleaseCounters())
        self.check(IP(src=B, dst=A) / TCP(sport=22, flags="SA"), None)
        self.check(IP(src=B, dst=A) / UDP(sport=53), None)
        self.check(IP(src=B, dst=A) / TCP(sport=23, dport=22, flags="S"), "ports")

    def test_addresses(self) -> None:
        self.check(IP(src=C, dst=B) / TCP(dport=22), "source")
        self.check(IP(src=B, dst=B) / TCP(dport=22), "source")
        self.check(IP(src="127.0.0.1", dst=B) / TCP(dport=22), "source")
        self.check(IP(src=A, dst=C) / TCP(dport=22), "destination")
        self.check(IP(src=A, dst="127.0.0.1") / TCP(dport=22), "destination")
        self.check(IP(src=A, dst="224.0.0.1") / UDP(dport=53), "destination")
        self.check(IP(src=A, dst="255.255.255.255") / UDP(dport=53), "destination")
        self.check(IPv6(src="2001:db8:3::7", dst="2001:db8:2::9") / TCP(dport=22), "source")

    def test_ports_and_protocols(self) -> None:
        self.check(IP(src=A, dst=B) / TCP(dport=23), "ports")
        self.check(IP(src=A, dst=B) / UDP(dport=22), "ports")
        self.check(IP(src=A, dst=B) / ICMP(), "ports")
        self.check(IP(src=A, dst=B, proto=6, frag=10) / bytes(40), "ports")

    def test_not_sane(self) -> None:
        good = bytes(IP(src=A, dst=B) / TCP(dport=22, flags="S") / b"data")
        self.check(good[:-1], "length")
        self.check(good + b"x", "length")
        self.check(good[:10], "truncated")
        self.check(b"", "truncated")
        self.check(good[:-1] + b"x", "checksum")
        self.check(IP(src=A, dst=B, chksum=1) / TCP(dport=22), "checksum")
        self.check(IP(src=A, dst=B) / TCP(dport=22, chksum=1), "checksum")
        self.check(IP(src=A, dst=B, options=[b"\x83\x07\x04\x0a\x01\x01\x01\x00"]) / TCP(dport=22), "options")
        self.check(IPv6(src="2001:db8:1::7", dst="2001:db8:2::9") / IPv6ExtHdrRouting() / TCP(dport=22), "options")
        self.check(IP(src=A, dst=B, ttl=0) / TCP(dport=22), "expired")
        self.check(IP(src=A, dst=B, proto=6, flags="MF") / bytes(TCP(dport=22))[:8], "fragment")
        self.check(b"\x55" + good[1:], "version")

    def test_a_peer_that_captures_nothing(self) -> None:
        self.release = Release(configuration(), "c", "b", ReleaseCounters())
        self.check(IP(src=C, dst=B) / TCP(dport=22), "source")

    def test_any_protocol(self) -> None:
        self.release = Release(configuration("intercept router { ip to 10.1.9.2; on a; }"), "a", "b", ReleaseCounters())
        self.check(IP(src=A, dst=B) / ICMP(), None)
        self.check(IP(src=A, dst=B, proto=47) / b"gre", None)
        self.check(IP(src=A, dst=B, proto=17, frag=10) / bytes(40), None)
        self.check(IPv6(src="2001:db8:1::7", dst="2001:db8:2::9") / UDP(), "destination")

    def test_tcp_is_put_in_order(self) -> None:
        def packet(sequence: int, flags: str, data: bytes = b"") -> bytes:
            return bytes(IP(src=A, dst=B) / TCP(dport=22, seq=sequence, flags=flags) / data)

        syn, first, second, reset = packet(0, "S"), packet(1, "A", b"1234"), packet(5, "A", b"56"), packet(7, "RA")
        self.assertEqual(self.release.receive(syn, 0.0), [syn])
        self.assertEqual(self.release.receive(second, 0.0), [])
        self.assertEqual(self.release.receive(reset, 0.0), [])
        self.assertEqual(self.release.receive(first, 0.01), [first, second, reset])

    def test_unordered_nothing_waits(self) -> None:
        text = "intercept local { tcp to 10.1.9.2 port 22; on a; release unordered; }"
        self.release = Release(configuration(text), "a", "b", ReleaseCounters())
        for sequence in (0, 500, 100):
            self.check(IP(src=A, dst=B) / TCP(dport=22, seq=sequence, flags="A") / b"x", None)

    def test_without_recovery_nothing_waits(self) -> None:
        text = "intercept local { tcp to 10.1.9.2 port 22; on a; recovery none; }"
        self.release = Release(configuration(text), "a", "b", ReleaseCounters())
        for sequence in (0, 500, 100):
            self.check(IP(src=A, dst=B) / TCP(dport=22, seq=sequence, flags="A") / b"x", None)
