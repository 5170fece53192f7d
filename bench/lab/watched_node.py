"""A node's daemon as ``twistd seamless`` makes it, which also writes its links' counters to a file, for benchmarks.

python bench/lab/watched_node.py STATUS_FILE --config FILE --node NAME --key FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.application.app import startApplication
from twisted.application.internet import TimerService
from twisted.application.service import Application, IServiceCollection
from twisted.internet import reactor as global_reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from seamless.service import NodeService
from seamless.tap import Options, makeService
from seamless.transport import clock

INTERVAL: Final = 0.25
"""Seconds between two writings: nothing beside what a node does in that time."""

reactor: Any = global_reactor


def write(service: NodeService, file: Path) -> None:
    links = [attrs.asdict(link) for link in service.driver.node.status(clock.now()).links]
    new = file.with_suffix(".new")
    new.write_text(json.dumps(links))
    new.rename(file)


def main() -> None:
    file, *words = sys.argv[1:]
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    options = Options()
    options.parseOptions(words)
    supervised: Any = makeService(options)
    (node_service,) = (child for child in supervised if isinstance(child, NodeService))
    TimerService(INTERVAL, write, node_service, Path(file)).setServiceParent(node_service)
    application = Application("seamless")
    supervised.setServiceParent(IServiceCollection(application))
    startApplication(application, False)
    reactor.run()


if __name__ == "__main__":
    main()
