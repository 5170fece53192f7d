"""Reports why a daemon ended: one sentence on standard error and an exit code, with an unmodified twistd.

twistd itself exits with 0 whenever its reactor ran, prints a traceback for whatever ``startService`` raises, and as a
daemon reports 1 for it. It also starts services before its reactor handles SIGTERM, which then ends the process with
half of the firewall rules installed. So a `Supervised` service holds the node's services, starts them when the reactor
runs, and lets no error out: it logs it, has the reactor stop as for SIGTERM (rules are removed, the pid file goes),
and the process then ends with the error's code.

Without ``-n`` twistd forks twice before services start, and the person waits at the first process. A pipe of ours
leads there from the daemon. The first process reads it just after its fork (``os.register_at_fork``), before it comes
to twistd's own waiting:

    first process   fork ── reads the pipe until it closes ── a sentence: prints it, exits with the code
                      │                                    └─ nothing: goes on as twistd would
    daemon            └─ fork ── reactor ── start ── good: closes the pipe, and lives on
                                                   └─ not: tidies up, writes code and sentence, exits

Any other exception than a `SeamlessError` is a mistake of ours: its traceback goes to the log, and the code is 1.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import MultiService
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorCore
from twisted.logger import ILogObserver, Logger

from seamless.errors import SeamlessError

PIPE_READ_BYTES: Final = 65536
"""More than any sentence; the kernel's pipe holds as much."""


class ExitReport:
    """The sentence and exit code with which this process ends. Make it once in a process, before twistd forks."""

    def __init__(self, *, daemonizes: bool) -> None:
        self.error: SeamlessError | None = None
        self._pipe = _pipe_to_first_process() if daemonizes else None
        atexit.register(self._exit)

    def good(self) -> None:
        """Let the first process end with exit code 0: the service has started."""
        self._close(b"")

    def bad(self, error: SeamlessError) -> None:
        """Keep the first error, and print its sentence on standard error."""
        if self.error is None:
            self.error = error
            # twistd sends sys.stderr to its log; a daemon's own standard error is /dev/null.
            print(f"seamless: {error}", file=sys.__stderr__, flush=True)

    def _close(self, message: bytes) -> None:
        if self._pipe is not None:
            os.write(self._pipe, message)
            os.close(self._pipe)
            self._pipe = None

    def _exit(self) -> None:
        """End the process with the error's code: after the reactor, and after everything registered since."""
        if self.error is not None:
            self._close(f"{self.error.exit_code} {self.error}".encode())
            sys.stdout.flush()
            os._exit(self.error.exit_code)


def _pipe_to_first_process() -> int:
    """Return the descriptor on which the daemon may write "CODE SENTENCE" for the process that is now running."""
    reader, writer = os.pipe()
    first_process = os.getpid()

    def wait_in_first_process() -> None:
        if os.getpid() != first_process:
            return
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            code, _, sentence = pipe.read(PIPE_READ_BYTES).decode().partition(" ")
        if code:
            print(f"seamless: {sentence}", file=sys.__stderr__, flush=True)
            os._exit(int(code))

    os.register_at_fork(after_in_parent=wait_in_first_process)
    return writer


class Supervised(MultiService):
    """The services of a daemon. One that cannot start stops them all, and the process with its exit code.

    ``stopService`` is then called on all of them, also on those that have not started.
    """

    _log = Logger()

    observer: ILogObserver | None = None
    """Writes the log, if twistd's own is not to do it."""

    def __init__(self, report: ExitReport, reactor: IReactorCore) -> None:
        super().__init__()
        self._report = report
        self._reactor = reactor

    def setServiceParent(self, parent: Any) -> None:
        """Become the service of an application, which from then on says to twistd where its log goes."""
        super().setServiceParent(parent)
        if self.observer is not None:
            parent.setComponent(ILogObserver, self.observer)

    def privilegedStartService(self) -> None:
        """Start what needs privilege, before twistd gives it up."""
        self._attempt(super().privilegedStartService)

    def startService(self) -> None:
        """Start all services once the reactor handles signals, and report the outcome to the first process."""
        if self._report.error is None:
            self._reactor.callWhenRunning(self._start)

    def _start(self) -> None:
        self._attempt(super().startService)
        if self._report.error is None:
            self._report.good()

    def give_up(self, error: SeamlessError) -> None:
        """Stop the daemon as SIGTERM does, and then end with the code of ``error``."""
        self._log.critical("{error}", error=error)
        self._report.bad(error)
        self._reactor.callWhenRunning(self._reactor.stop)

    def _attempt(self, start: Callable[[], None]) -> None:
        try:
            start()
        except SeamlessError as error:
            self.give_up(error)
        except CannotListenError as error:
            self.give_up(_port_in_use(error))
        except Exception as error:
            self._log.failure("a mistake in seamless")
            self.give_up(
                SeamlessError(f"a mistake in seamless ({type(error).__name__}: {error}); report it with the log")
            )


def _port_in_use(error: CannotListenError) -> SeamlessError:
    return SeamlessError(
        f"cannot listen on {error.interface or '*'} port {error.port}: {error.socketError}; "
        "stop the program that has this port, or configure another"
    )
