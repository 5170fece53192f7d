"""The main job and its promises once more, with nodes that gave up their privilege: applications notice nothing."""

from __future__ import annotations

from seamless.test.lab import test_main_job, test_promises
from seamless.test.lab.bedtest import LONG, BedSuite, BedTestCase, bed_suite
from seamless.test.trust.unprivileged import Shed


class FileTransfers(Shed, test_main_job.FileTransfers):
    pass


class Iperf3(Shed, test_main_job.Iperf3):
    pass


class Interactive(Shed, test_main_job.Interactive):
    pass


class ManyConnections(Shed, test_main_job.ManyConnections):
    pass


class Endings(Shed, test_promises.Endings):
    pass


class Backpressure(Shed, test_promises.Backpressure):
    pass


class Deaths(Shed, test_promises.Deaths):
    pass


ALL: tuple[type[BedTestCase], ...] = (
    FileTransfers,
    Iperf3,
    Interactive,
    Endings,
    Backpressure,
    Deaths,
    ManyConnections,
)
WHOLE = (Iperf3, Interactive, Endings)
"""What is run every time: a minute of it. All of it is run with SEAMLESS_LONG_TESTS=1."""
PARTS: tuple[BedTestCase, ...] = (
    FileTransfers("test_scp_there_and_back"),
    FileTransfers("test_an_upload_from_the_other_side"),
    FileTransfers("test_curl_one_megabyte"),
    FileTransfers("test_curl_keeps_a_connection_alive"),
    FileTransfers("test_curl_a_hundred_in_parallel"),
    Deaths("test_kill_of_the_ingress"),
    Deaths("test_unreachable_egress_and_direct"),
)


def testSuite() -> BedSuite:
    return bed_suite(*ALL) if LONG else BedSuite([*PARTS, *bed_suite(*WHOLE)])
