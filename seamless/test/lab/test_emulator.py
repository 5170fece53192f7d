"""Packets of the real kernel over emulated wires: what the counters say is what the applications saw."""

from __future__ import annotations

import hashlib
import os
import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.model import Impairment
from seamless.lab import servers
from seamless.lab.lab import Lab
from seamless.test.lab.ground import FAR, FAR_IPV6, NEAR, PERFECT, SINK_PORT, Sink, traffic, two_hosts, why_not

SIZE = 1000


class OnKernel(SynchronousTestCase):
    """One lab for each test: two hosts and two wires take a quarter of a second."""

    skip = why_not()

    def lab(self, impairment: Impairment = PERFECT, *, seed: int = 1, **options: Any) -> Lab:
        lab = Lab(two_hosts(impairment, **options), seed=seed)
        self.addCleanup(lab.close)
        return lab.__enter__()

    def send(
        self, lab: Lab, count: int, *, address: str = FAR, gso: bool = False, pause: float = 0.0005
    ) -> dict[str, Any]:
        """Send datagrams from near to far and return what arrived."""
        sink = Sink(lab, SIZE)
        traffic(lab, "near", "source", address, SINK_PORT, count, SIZE, "gso" if gso else "plain", pause)
        return sink.result()


class Delay(OnKernel):
    def test_a_ping_takes_both_delays(self) -> None:
        lab = self.lab(Impairment(delay=0.015))
        times = sorted(traffic(lab, "near", "ping", FAR, 15, 0.01))
        self.assertGreaterEqual(times[0], 0.030)
        self.assertLess(times[len(times) // 2], 0.033)

    def test_the_rate_is_kept_in_one_direction_only(self) -> None:
        lab = self.lab()
        lab.set_wire("near", "far", direction="near", rate_bps=8_000_000)
        (slow,) = traffic(lab, "near", "ping", FAR, 1, 0)
        self.send(lab, 200, gso=True)
        counters = lab.counters("near", "far")
        self.assertLess(slow, 0.1)
        self.assertGreater(counters["near"]["queue_bytes_highest"], 100 * SIZE)
        self.assertEqual(counters["far"]["queue_bytes_highest"], 0)


class Loss(OnKernel):
    def test_the_counters_equal_what_the_receiver_missed(self) -> None:
        lab = self.lab()
        lab.set_wire("near", "far", direction="near", loss=0.1)
        answer = self.send(lab, 1000)
        counters = lab.counters("near", "far")["near"]
        self.assertEqual(counters["packets_in"], 1000)
        self.assertEqual(len(answer["numbers"]), 1000 - counters["lost"])
        self.assertTrue(60 < counters["lost"] < 140, counters["lost"])

    def test_the_counters_equal_what_tcpdump_saw(self) -> None:
        lab = self.lab(Impairment(loss=0.2))
        capture = lab.host_directory("far") / "capture"
        with open(capture, "wb") as output:
            tcpdump = lab.popen("far", ["tcpdump", "-lni", "near", "icmp[0] = 8"], stdout=output)
            self.addCleanup(tcpdump.kill)
            lab.run("far", ["sh", "-c", "until [ $(wc -l < /proc/net/packet) -gt 1 ]; do sleep 0.05; done; sleep 0.2"])
            times = traffic(lab, "near", "ping", FAR, 5, 0)
            tcpdump.terminate()
            tcpdump.wait()
        sides = lab.counters("near", "far")
        self.assertEqual(capture.read_text().count("echo request"), sides["near"]["packets_out"])
        self.assertEqual(times.count(None), sides["near"]["lost"] + sides["far"]["lost"])

    def test_the_same_seed_loses_the_same_packets(self) -> None:
        def survivors(seed: int) -> list[int]:
            return list(self.send(self.lab(Impairment(loss=0.3), seed=seed), 200)["numbers"])

        first = survivors(5)
        self.assertTrue(0 < len(first) < 200)
        self.assertEqual(survivors(5), first)
        self.assertNotEqual(survivors(6), first)


class Split(OnKernel):
    def test_bulk_tcp_arrives_whole_through_losses_that_split_super_packets(self) -> None:
        lab = self.lab(
            Impairment(delay=0.0005, loss=0.01, reorder=0.002, reorder_delay=0.001, duplicate=0.002), servers=("nginx",)
        )
        lab.start_servers()
        expected = hashlib.sha256(
            servers.web_file(lab.host_directory("far"), "bulk", 20_000_000).read_bytes()
        ).hexdigest()
        for url in (f"http://{FAR}/bulk", f"http://[{FAR_IPV6}]/bulk"):
            got = lab.run("near", ["sh", "-c", f"curl -gsS '{url}' | sha256sum"]).stdout.split()[0]
            self.assertEqual(got, expected)
        counters = lab.counters("near", "far")["far"]
        self.assertGreater(counters["packets_in"], 1.5 * counters["units_in"], "no super-packets were sent")
        for name in ("lost", "split", "reordered", "duplicated"):
            self.assertGreater(counters[name], 10, name)
        self.assertEqual(counters["refused"], 0)

    def test_udp_super_packets_arrive_whole(self) -> None:
        lab = self.lab()
        if not lab.takes_udp_offload:
            raise self.skipTest("TUN devices carry UDP super-packets since Linux 6.2")
        for address in (FAR, FAR_IPV6):
            answer = self.send(lab, 400, address=address, gso=True)
            self.assertEqual(answer, {"numbers": list(range(400)), "damaged": 0, "calls": 10})
        self.assertEqual(lab.counters("near", "far")["near"]["units_in"], 20)

    def test_a_loss_splits_udp_super_packets_and_hurts_no_other_datagram(self) -> None:
        lab = self.lab(Impairment(loss=0.02))
        numbers = []
        for address in (FAR, FAR_IPV6):
            answer = self.send(lab, 2000, address=address, gso=True)
            self.assertEqual(answer["damaged"], 0)
            numbers += answer["numbers"]
        counters = lab.counters("near", "far")["near"]
        self.assertGreater(counters["split"], 10)
        self.assertEqual(len(numbers), 4000 - counters["lost"])

    def test_duplicates_and_late_datagrams_are_counted_and_seen(self) -> None:
        lab = self.lab(Impairment(duplicate=0.02, reorder=0.02, reorder_delay=0.02))
        numbers = self.send(lab, 2000, gso=True)["numbers"]
        counters = lab.counters("near", "far")["near"]
        self.assertGreater(counters["duplicated"], 10)
        self.assertEqual(len(numbers), 2000 + counters["duplicated"])
        self.assertEqual(set(numbers), set(range(2000)))
        self.assertGreater(counters["reordered"], 10)
        self.assertNotEqual(sorted(numbers), numbers)


class Corruption(OnKernel):
    def test_applications_see_changed_bytes_that_every_checksum_missed(self) -> None:
        lab = self.lab(Impairment(corrupt=0.05))
        for gso in (False, True):
            before = lab.counters("near", "far")["near"]["corrupted"]
            answer = self.send(lab, 1000, gso=gso)
            corrupted = lab.counters("near", "far")["near"]["corrupted"] - before
            self.assertGreater(corrupted, 20)
            self.assertEqual(answer["damaged"], corrupted)
            self.assertEqual(len(answer["numbers"]), 1000 - corrupted)


class Changes(OnKernel):
    def test_black_hole(self) -> None:
        lab = self.lab(Impairment(black_hole_bytes=SIZE))
        self.assertEqual(self.send(lab, 100, gso=True)["numbers"], [])
        self.assertEqual(lab.counters("near", "far")["near"]["black_holed"], 100)
        self.assertNotIn(None, traffic(lab, "near", "ping", FAR, 3, 0))

    def test_outage_and_recovery_while_it_runs(self) -> None:
        lab = self.lab()
        self.assertNotIn(None, traffic(lab, "near", "ping", FAR, 2, 0))
        lab.set_wire("far", "near", down=True)
        self.assertTrue(lab.impairments("near", "far")["far"].down)
        self.assertEqual(traffic(lab, "near", "ping", FAR, 1, 0), [None])
        self.assertEqual(lab.counters("near", "far")["near"]["outage"], 1)
        lab.set_wire("near", "far", down=False, delay=0.02)
        (slower,) = traffic(lab, "near", "ping", FAR, 1, 0)
        self.assertGreater(slower, 0.04)

    def test_what_an_emulator_that_stands_still_could_not_read_is_counted(self) -> None:
        lab = self.lab()
        os.kill(lab.emulator_pid, signal.SIGSTOP)
        traffic(lab, "near", "source", FAR, SINK_PORT, 2500, SIZE, "plain", 0)
        os.kill(lab.emulator_pid, signal.SIGCONT)
        traffic(lab, "far", "ping", NEAR, 1, 0)
        near = lab.counters("near", "far")["near"]
        self.assertGreater(near["tun_dropped"], 100)
        self.assertGreaterEqual(near["packets_in"] + near["tun_dropped"], 2500)

    def test_a_silent_wire_stays_silent(self) -> None:
        lab = self.lab()
        for side in lab.counters("near", "far").values():
            self.assertEqual(side["units_in"], 0)
