"""``twistd seamless``: parses the command line, and makes the service of one node.

Everything that can be known before twistd forks is found out here, where a person still looks: the configuration, the
name of the node, the key and whether it is the node's. Sockets and rules wait for ``startService``.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from twisted.application.service import IService
from twisted.logger import ILogObserver
from twisted.python import usage

import seamless
from seamless.config.load import load_file
from seamless.config.model import NodeConfig
from seamless.crypto.keys import encode_public_key, public_key_of
from seamless.errors import EXIT_USAGE, ConfigurationError, PrivilegeError, SeamlessError, UsageError
from seamless.linux.system import closed_folder
from seamless.service import NodeService
from seamless.tools import log_output
from seamless.tools.exit_report import ExitReport, Supervised
from seamless.tools.keys import read_private_key
from seamless.tools.node_choice import choose_node
from seamless.transport.hangup import HangupService
from seamless.transport.systemd import SystemdNotification


class Options(usage.Options):
    """The options of ``twistd seamless``."""

    synopsis = "[--config FILE] [--node NAME] [--key FILE] [--log-level LEVEL] [--privileged SOCKET]"
    longdesc = (
        "Runs one node of an overlay network. The configuration is the same file on every host; --node says which of "
        "its nodes this is. SIGTERM removes the firewall rules and resets unfinished connections; SIGHUP has the "
        "configuration read again, as seamless reload does. Started as root with twistd's own --uid it gives its "
        "privilege up once its sockets are made; a small process keeps root for the rules. No other program may run as "
        "that user: its connections are never captured. Exit codes: 0 done, 1 failed while running, 2 usage, "
        "3 bad configuration or key, 4 missing privilege or kernel feature."
    )
    optParameters = [
        ["config", "c", "/etc/seamless/seamless.conf", "The configuration of the overlay"],
        ["node", None, None, "The node that this is; left out, the one with the name of this host"],
        ["key", "k", "/etc/seamless/seamless.key", "The file with this node's private key (seamless genkey)"],
        ["log-level", None, log_output.DEFAULT_LEVEL, f"Lines of this level and above: {', '.join(log_output.LEVELS)}"],
        ["log-format", None, "text", "text, or json: one object a line"],
        ["privileged", None, None, "The socket of seamless-rules, where systemd runs that; left out, it is started"],
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the options; on an error end with exit code 2 (twistd itself would end with 1)."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            print(f"seamless: {str(error).rstrip('.')}; see twistd seamless --help", file=sys.stderr)
            raise SystemExit(EXIT_USAGE) from None


def makeService(options: Options) -> IService:
    """Return the service of the node that ``options`` name, or end the process with a sentence and its exit code."""
    from twisted.internet import reactor

    service = Supervised(ExitReport(daemonizes=not _stays_in_foreground(options)), reactor)
    try:
        log_output.check(options["log-level"], options["log-format"])
        node = _make_node_service(options, service.give_up)
        HangupService(reactor, node.reload_upon_signal).setServiceParent(service)
        node.setServiceParent(service)
        SystemdNotification(reactor).setServiceParent(service)
        service.observer = _log_observer(options)
    except SeamlessError as error:
        _end(error)
    return service


def _log_observer(options: Options) -> ILogObserver | None:
    """Return what writes the log; None where twistd, or a logger of its options, is to do it."""
    level, form, twistd = options["log-level"], options["log-format"], options.parent
    if twistd is None or twistd["logger"]:
        return None
    if twistd["syslog"]:
        if (level, form) != (log_output.DEFAULT_LEVEL, "text"):
            raise UsageError("with twistd's --syslog there is neither --log-level nor --log-format: syslog has its own")
        return None
    return log_output.make_observer(
        log_output.open_log(twistd["logfile"], is_foreground=_stays_in_foreground(options)), level, form
    )


def _make_node_service(options: Options, failed: Callable[[SeamlessError], None]) -> NodeService:
    configuration = load_file(options["config"])
    node = choose_node(configuration, options["config"], options["node"], socket.gethostname())
    private_key = read_private_key(options["key"])
    _check_key(node, private_key, options)
    # Whole, since twistd may change to another folder before it is read again.
    config_file = Path(options["config"]).absolute()
    return NodeService(
        configuration,
        node.name,
        private_key,
        config_file=config_file,
        failed=failed,
        user=_later_user(options),
        standing=options["privileged"],
    )


def _check_key(node: NodeConfig, private_key: bytes, options: Options) -> None:
    public_key = public_key_of(private_key)
    if public_key != node.public_key:
        raise ConfigurationError(
            f"{options['key']}: this is not the key of node {node.name}: its public key is "
            f"{encode_public_key(public_key)}, but {options['config']} says {encode_public_key(node.public_key)}; "
            f"start with the key of {node.name}, "
            "or put this public key into the configuration on every host"
        )


def _later_user(options: Options) -> int | None:
    """Return the user id that twistd will take before it starts services, None if it keeps the one it has."""
    user: int | None = options.parent["uid"] if options.parent is not None else None
    if user is None or user == os.geteuid():
        return None
    for path in (seamless.__file__, sys.executable, os.__file__):
        folder = closed_folder(user, Path(path))
        if folder is not None:
            raise PrivilegeError(
                f"user {user} may not enter {folder}, where what the daemon still has to load is: install seamless and "
                "its Python elsewhere, such as in /opt, or let that user enter"
            )
    return user


def _stays_in_foreground(options: Options) -> bool:
    twistd = options.parent
    return twistd is None or bool(twistd["nodaemon"] or twistd["debug"])


def _end(error: SeamlessError) -> NoReturn:
    words = str(error) if isinstance(error, ConfigurationError) else f"seamless: {error}"
    print(words, file=sys.stderr)
    raise SystemExit(error.exit_code)
