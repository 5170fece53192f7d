"""``seamless measure`` on a real wire: daemons, kernel and command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_file
from seamless.lab.daemons import environment
from seamless.lab.lab import Lab
from seamless.test.lab.bedtest import wait_until
from seamless.test.lab.ground import why_not
from seamless.test.node.network import node

RATE_BPS = 20_000_000
FILE = "\n".join(
    (
        "overlay measured { }",
        node("near", "10.91.2.1"),
        node("far", "10.91.2.2"),
        "link near far { }",
        "host near { } host far { }",
        f"wire near far {{ between 10.91.2.1/30 10.91.2.2/30; delay 5 ms; rate {RATE_BPS} bit; queue 100000 bytes; }}",
    )
)


class MeasureTests(SynchronousTestCase):
    skip = why_not()

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="seamless-measure-")
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "measured.conf"
        path.write_text(FILE)
        self.lab = Lab(load_file(path), configuration_file=path)
        self.lab.__enter__()
        self.addCleanup(self.lab.close)
        self.lab.start_nodes()
        self.lab.node("near").wait_until_link_is_up("far")

    def command(self, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "seamless.tools.main", "measure", "far", *words]
        argv += ["--socket", str(self.lab.node_socket("near"))]
        return subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def link(self, name: str) -> Any:
        status = self.lab.node(name).status()
        assert status is not None
        return status["links"][0]

    def test_a_wire_of_20_mbit(self) -> None:
        """Interrupted first, then as it should be."""
        first = self.command()
        wait_until(lambda: self.link("far")["congestion"] == "measuring", "the neighbor loads its direction")
        first.send_signal(signal.SIGINT)
        first.communicate()
        wait_until(lambda: self.link("far")["congestion"] != "measuring", "the neighbor has stopped")
        sent = self.link("far")["load_sent"]
        self.assertGreater(sent, 0)

        refused = self.command()
        self.assertIn("has just been measured: try again in a few seconds", refused.communicate()[1])
        self.assertEqual((refused.returncode, self.link("far")["load_sent"]), (1, sent))

        def is_measured() -> bool:
            asked = self.command("--json")
            self.answer = asked.communicate()[0]
            return asked.returncode == os.EX_OK

        wait_until(is_measured, "the link is measured")
        found = json.loads(self.answer)
        for way in ("out", "back"):
            self.assertLess(abs(found[way]["capacity_bps"] / RATE_BPS - 1), 0.1, found)
            self.assertEqual(found[way]["mtu_bytes"], 1500)
        self.assertLess(found["rate_bps"], RATE_BPS)
        self.assertEqual({self.link(name)["congestion"] for name in ("near", "far")}, {found["congestion"]})
