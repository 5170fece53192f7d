"""Everything that is promised in figures, on the bed of ``etc/lab.conf``, as tables.

One lab: first TCP CUBIC, TCP BBR and (if kcptun is installed) iperf3 through kcptun, over the native wire; then nodes,
and iperf3 over them one way, the other way, with eight connections, both ways at once, and as a flood beside a sender
that limits itself. CPU is in processors, that is CPU seconds per second, of each node's daemon and of the emulator, and
what the whole machine was busy with: where that is all it has, rates say how fast the machine is.
RSS is the highest that a daemon ever had. Lost and spurious are shares of the datagrams with data on all hops together;
spurious are those that were declared lost and then acknowledged.
"""

from __future__ import annotations

from bench.experiment import Conditions, Verdicts
from bench.lab import others
from bench.lab.watched import Watched, bed, costing, start_watched
from seamless.lab import measure
from seamless.lab.demo_report import NATIVE_WAYS, percent, rate
from seamless.lab.lab import Lab
from seamless.lab.measure import NATIVE_WIRE

TARGETS_BPS = {0.005: 450e6, 0.05: 425e6, 0.2: 340e6}
"""By loss: one connection, links of 500 Mb/s."""
USUAL_LOSS = 0.005
FLOOD_SECONDS = 20.0
LIMITED_BPS = 450e6
"""What the limited sender of the flood's comparison sends: a little less than fits."""
MOST_RSS_BYTES = 300e6
MOST_WASTED = 0.01
FAIRNESS = 0.8
"""Slowest to fastest of eight connections."""


# The native wire.


def native(lab: Lab, conditions: Conditions) -> None:
    """Measure what seamless is compared with."""
    for loss in conditions.cases(tuple(TARGETS_BPS)):
        measure.set_loss(lab, loss)
        for way, name in NATIVE_WAYS.items():
            measure.set_congestion_control(lab, name)
            print(f"{percent(loss):>6} {way:<10} {rate(measure.iperf3(lab, conditions.seconds).bps):>11}", flush=True)
        if others.is_installed("kcptun-client"):
            with others.kcptun(lab) as far:
                got = measure.iperf3(lab, conditions.seconds, "-p", str(far.iperf3_port), to=far.address)
            print(f"{percent(loss):>6} kcptun     {rate(got.bps):>11}", flush=True)


# The overlay.


def one_connection(lab: Lab, watched: Watched, conditions: Conditions) -> None:
    verdicts = conditions.verdicts
    for loss, wanted_bps in conditions.cases(tuple(TARGETS_BPS.items())):
        measure.set_loss(lab, loss)
        with costing(watched) as cost:
            got = measure.iperf3(lab, conditions.seconds)
        print(f"{percent(loss):>6} seamless   {rate(got.bps):>11}   {cost}")
        verdicts.judge(got.bps >= wanted_bps, f"at least {rate(wanted_bps)}")
        if loss <= 0.05:
            verdicts.judge(cost.spurious < MOST_WASTED * cost.sent, f"spurious less than {percent(MOST_WASTED)}")
    measure.set_loss(lab, USUAL_LOSS)


def other_shapes(lab: Lab, watched: Watched, seconds: float, verdicts: Verdicts) -> None:
    """Measure the other direction, eight connections, and both directions at once."""
    wanted_bps = TARGETS_BPS[USUAL_LOSS]
    with costing(watched) as cost:
        got = measure.iperf3(lab, seconds, "-R")
    print(f"{percent(USUAL_LOSS):>6} -R         {rate(got.bps):>11}   {cost}")
    verdicts.judge(got.bps >= wanted_bps, f"at least {rate(wanted_bps)}")
    with costing(watched) as cost:
        got = measure.iperf3(lab, seconds, "-P", "8")
    slowest, fastest = min(got.each_bps), max(got.each_bps)
    print(f"{percent(USUAL_LOSS):>6} -P 8       {rate(got.bps):>11}   {cost}")
    verdicts.judge(slowest >= FAIRNESS * fastest, f"fair: the slowest {rate(slowest)}, the fastest {rate(fastest)}")
    with costing(watched) as cost:
        got = measure.iperf3(lab, seconds, "--bidir")
    print(f"{percent(USUAL_LOSS):>6} --bidir    {rate(got.bps):>11} and {rate(got.backward_bps)} back   {cost}")


def flood(lab: Lab, watched: Watched, seconds: float, verdicts: Verdicts) -> None:
    """Send as fast as the sockets take it, and compare with a sender that limits itself."""
    limited = measure.iperf3(lab, seconds, "-b", f"{LIMITED_BPS:.0f}")
    with costing(watched) as cost:
        got = measure.iperf3(lab, FLOOD_SECONDS)
    peaks = watched.peak_rss_bytes()
    print(f"{percent(USUAL_LOSS):>6} flood      {rate(got.bps):>11}   {cost}")
    print("       RSS " + ", ".join(f"{name} {peak / 1e6:.0f} MB" for name, peak in peaks.items()))
    verdicts.judge(got.bps >= 0.95 * limited.bps, f"at least 95 % of the limited sender's {rate(limited.bps)}")
    verdicts.judge(cost.downs == 0, f"links that went down: {cost.downs}, none")
    verdicts.judge(max(peaks.values()) < MOST_RSS_BYTES, f"no node over {MOST_RSS_BYTES / 1e6:.0f} MB")


def run(conditions: Conditions) -> None:
    """Measure TCP and kcptun over the native wire, then everything that crosses the overlay."""
    with bed() as lab:
        native(lab, conditions)
        measure.set_loss(lab, 0.0)
        measure.wait_for_silence(lab)
        watched = start_watched(lab)
        native_bytes = measure.wire_bytes(lab, *NATIVE_WIRE)
        one_connection(lab, watched, conditions)
        if not conditions.is_smoke:
            other_shapes(lab, watched, conditions.seconds, conditions.verdicts)
            flood(lab, watched, conditions.seconds, conditions.verdicts)
        native_bytes = measure.wire_bytes(lab, *NATIVE_WIRE) - native_bytes
        conditions.verdicts.judge(native_bytes == 0, f"bytes on the native wire: {native_bytes}, none")
