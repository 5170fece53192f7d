"""A bed for tests of what connect() tells: a client's site, an ingress, an egress, and a site behind that.

    a ── src ═══════ dst ── b
                      └── a LAN on which no host answers

Native and captured connections take the same wire, so errno and ICMP can be compared: the same attempts are made with
the nodes stopped, and with the nodes running.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_file
from seamless.lab.lab import Lab
from seamless.linux import control_socket
from seamless.test.lab.bedtest import PATIENCE, TestBed, wait_until
from seamless.test.lab.ground import why_not
from seamless.transport.dial import IP_RECVERR, IPV6_RECVERR

OPEN: Final = 5001
CLOSED: Final = 5002
FILTERED: Final = 5003
PROHIBITED: Final = 5004
PORT_UNREACHABLE: Final = 5005
ROUND_TRIP: Final = 0.02

CONFIGURATION: Final = """
overlay connect { }
node src {
    address 10.1.4.1:7400;
    serves 10.2.1.0/24, 2001:db8:1::/64;
    key "7QEzXKA80eEaimxwwo3ikbFUJ4nNqsKfQ9shXCsLCOGGhw==";
}
node dst {
    address 10.1.4.2:7400;
    serves 10.1.9.2, 10.2.2.0/24, 10.3.3.0/24, 2001:db8:9::2, 2001:db8:2::/64, 2001:db8:3::/64;
    key "7QGKUtMFb24mofm1tfdhNaOosfKrUdAPCkTJCqIfI6hCFA==";
}
link src dst { rate 500 mbit; congestion off; }
intercept payload { tcp port 5001-5009; on src; %s }
host a { address 10.2.1.1, 2001:db8:1::1; gateway src; }
host src { }
host dst { address 10.1.9.2, 2001:db8:9::2; }
host b { address 10.2.2.1, 2001:db8:2::1; gateway dst; }
wire src dst {
    between 10.1.4.1/30 10.1.4.2/30;
    delay 10 ms;
    carries 10.2.1.0/24 10.1.9.2, 10.2.2.0/24, 10.3.3.0/24;
}
wire src dst {
    between 2001:db8:4::1/64 2001:db8:4::2/64;
    delay 10 ms;
    carries 2001:db8:1::/64 2001:db8:9::2, 2001:db8:2::/64, 2001:db8:3::/64;
}
wire a src { between 10.1.11.5/30 10.1.11.6/30; }
wire b dst { between 10.1.12.5/30 10.1.12.6/30; }
wire a src { between 2001:db8:11::1/64 2001:db8:11::2/64; }
wire b dst { between 2001:db8:12::1/64 2001:db8:12::2/64; }
"""

EGRESS: Final = ("10.1.9.2", "2001:db8:9::2")
SERVER: Final = ("10.2.2.1", "2001:db8:2::1")
ABSENT: Final = ("10.2.2.130", "2001:db8:2:0:8000::2")
UNREACHABLE: Final = ("10.2.2.65", "2001:db8:2:0:4000::1")
FORBIDDEN: Final = ("10.2.2.97", "2001:db8:2:0:6000::1")
NO_ROUTE: Final = ("10.3.3.3", "2001:db8:3::3")

_ROUTES: Final = """
ip link add lan0 type veth peer name lan1
ip link set lan0 up
ip link set lan1 up
ip address add 10.2.2.129/25 dev lan0
ip address add 2001:db8:2:0:8000::1/65 dev lan0 nodad
ip route add unreachable 10.2.2.64/28
ip route add unreachable 2001:db8:2:0:4000::/68
ip route add prohibit 10.2.2.96/28
ip route add prohibit 2001:db8:2:0:6000::/68
"""


class Attempt(NamedTuple):
    """A connection to be tried: from a host to an address and port."""

    host: str
    address: str
    port: int
    source: str | None = None


class Result(NamedTuple):
    """How it ended: an errno by name, 0 when it stands; by which type and code of ICMP; and after how many seconds."""

    error: str
    icmp: tuple[int, int] | None
    seconds: float


class ConnectCase(SynchronousTestCase):
    """One bed for all tests of a class; ``connect`` is the statement that its interceptor has."""

    skip = why_not()
    statements: ClassVar[str] = "connect confirmed;"
    _shared: ClassVar[TestBed | None] = None

    @classmethod
    def open_bed(cls) -> TestBed:
        """Return the bed of this class, which the first of its tests brings up."""
        if cls._shared is None:
            path = Path(f"_{cls.__name__}-{os.getpid()}.conf").absolute()
            path.write_text(CONFIGURATION % cls.statements, encoding="utf-8")
            cls._shared = TestBed(Lab(load_file(path), configuration_file=path).__enter__())
            cls.prepare(cls._shared)
        return cls._shared

    @classmethod
    def prepare(cls, bed: TestBed) -> None:
        """Set up the routes and firewalls behind the egress."""
        for line in _ROUTES.strip().splitlines():
            bed.lab.run("dst", line.split())
        for host in ("dst", "b"):
            for tool, prohibited in (("iptables", "icmp-admin-prohibited"), ("ip6tables", "icmp6-adm-prohibited")):
                for port, target in (
                    (FILTERED, ["DROP"]),
                    (PROHIBITED, ["REJECT", "--reject-with", prohibited]),
                    (PORT_UNREACHABLE, ["REJECT"]),
                ):
                    rule = ["-p", "tcp", "--dport", str(port), "-j", *target]
                    bed.lab.run(host, [tool, "-A", "INPUT", *rule])
        for host in ("src", "dst", "b"):  # ICMP is limited to one a second for each destination otherwise
            bed.lab.run(host, ["sysctl", "-qw", "net.ipv4.icmp_ratemask=0", "net.ipv6.icmp.ratelimit=0"])

    @classmethod
    def close_bed(cls) -> None:
        """Take it down, if it is up."""
        if cls._shared is not None:
            cls._shared.close()
            cls._shared.lab.close()
            cls._shared = None

    def setUp(self) -> None:
        self.bed = self.open_bed()
        self.lab = self.bed.lab

    def start(self) -> None:
        """Have both nodes run, and the overlay carry."""
        self.lab.start_nodes([name for name in ("src", "dst") if not self.bed.is_running(name)])
        wait_until(lambda: self.bed.reaches("src", "dst") and self.bed.reaches("dst", "src"), "the overlay carries")
        wait_until(lambda: "SEAMLESS-src" in self.lab.run("src", ["ip6tables-save"]).stdout, "src has its rules")

    def stop(self) -> None:
        """Have no node run."""
        for name in ("src", "dst"):
            if self.bed.is_running(name):
                self.lab.stop_node(name)

    def connected(self, host: str, source: str, server_host: str, server: str) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection from an address of a client's host: the client's, the server's."""
        with self.listener(server_host, server) as listening:
            client = self.new_socket(host, server)
            client.bind((source, 0))
            client.connect((server, OPEN))
            accepted, _ = listening.accept()
        self.addCleanup(accepted.close)
        accepted.settimeout(PATIENCE)
        return client, accepted

    def listener(self, host: str, address: str, port: int = OPEN) -> socket.socket:
        """Return a socket that listens at one address of a host."""
        listening = self.new_socket(host, address)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(4096)
        return listening

    def new_socket(self, host: str, address: str) -> socket.socket:
        """Return a socket of a host, for the IP version of ``address``."""
        made = self.bed.new_socket(host, "6" if ":" in address else "t")
        self.addCleanup(made.close)
        return made

    def counters(self, node: str = "src", name: str = "payload connect") -> dict[str, int]:
        """Return what an interceptor of a node counts."""
        report = control_socket.ask(self.lab.node_socket(node), {"ask": "status"})
        (found,) = (one for one in report["interceptors"] if one["name"] == name)
        return dict(found["counters"])

    def attempt(self, host: str, address: str, port: int = OPEN, retries: int | None = None) -> Result:
        """Make one connection; return how it ended. ``retries``: how often the kernel sends a SYN again."""
        attempt = Attempt(host, address, port)
        return self.attempts([attempt], retries)[attempt]

    def attempts(self, wanted: Sequence[Attempt], retries: int | None = None) -> dict[Attempt, Result]:
        """Make all these connections at once, each by a socket of its own; return how each ended.

        The kernel sends a SYN again once, to hosts that do not exist twice: what is not answered ends after 3 or 7 s.
        """
        results: dict[Attempt, Result] = {}
        waiting: dict[int, tuple[Attempt, socket.socket, float]] = {}
        poll = select.poll()
        for attempt in wanted:
            sock = self.new_socket(attempt.host, attempt.address)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, retries or (2 if attempt.address in ABSENT else 1))
            version = socket.IPPROTO_IPV6 if ":" in attempt.address else socket.IPPROTO_IP
            sock.setsockopt(version, IPV6_RECVERR if ":" in attempt.address else IP_RECVERR, 1)
            if attempt.source is not None:
                sock.bind((attempt.source, 0))
            begun = time.monotonic()
            error = sock.connect_ex((attempt.address, attempt.port))
            if error == errno.EINPROGRESS:
                poll.register(sock, select.POLLOUT)
                waiting[sock.fileno()] = attempt, sock, begun
            else:
                results[attempt] = Result(_name(error), None, time.monotonic() - begun)
        give_up_at = time.monotonic() + PATIENCE
        while waiting and time.monotonic() < give_up_at:
            for descriptor, _ in poll.poll(500):
                attempt, sock, begun = waiting.pop(descriptor)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                results[attempt] = Result(_name(error), _icmp(sock), time.monotonic() - begun)
                poll.unregister(sock)
        for attempt, _, begun in waiting.values():
            results[attempt] = Result("nothing", None, time.monotonic() - begun)
        return results


def cells(hosts: Iterable[str], sources: Sequence[str | None] = (None, None)) -> list[Attempt]:
    """Return every kind of answer that a server's network gives, from each of these hosts, for both IP versions.

    ``sources``: the client's address, of each version.
    """
    ports = (OPEN, CLOSED, FILTERED, PROHIBITED, PORT_UNREACHABLE)
    return [
        Attempt(host, address, port, sources[version])
        for host in hosts
        for version in (0, 1)
        for address, port in (
            *((EGRESS[version], port) for port in ports),
            *((SERVER[version], port) for port in ports),
            *((there[version], OPEN) for there in (ABSENT, UNREACHABLE, FORBIDDEN, NO_ROUTE)),
        )
    ]


def _icmp(sock: socket.socket) -> tuple[int, int] | None:
    """Return type and code of the ICMP message that a socket has in its error queue."""
    try:
        ((_, _, data),) = sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)[1]
    except OSError:
        return None
    return data[5], data[6]


def _name(error: int) -> str:
    return errno.errorcode.get(error, str(error))
