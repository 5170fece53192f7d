"""Every error that seamless raises on purpose.

A core raises `RemoteProtocolError` for what came off the wire and nothing else; the caller's own mistakes are
`LocalProtocolError`. What a person can meet is a sentence that says what to do, and knows its exit code.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIGURATION = 3
EXIT_PRIVILEGE = 4
EXIT_UNREACHABLE = 5


class SeamlessError(Exception):
    """The root of our own errors; its text is a sentence for a person."""

    exit_code: ClassVar[int] = EXIT_FAILED


class LocalProtocolError(SeamlessError):
    """The caller broke a rule: a mistake in our own code or in the embedding program."""


class RemoteProtocolError(SeamlessError):
    """Bytes from the network broke a rule. Never the caller's fault; never fatal to more than their sender."""


class AuthenticationError(RemoteProtocolError):
    """A datagram or record does not open under its key."""


class UsageError(SeamlessError):
    """A command was called with the wrong words."""

    exit_code = EXIT_USAGE


class ConfigurationError(SeamlessError):
    """A configuration file, or a key file, that cannot be used."""

    exit_code = EXIT_CONFIGURATION


class PrivilegeError(SeamlessError):
    """Missing privilege or kernel feature."""

    exit_code = EXIT_PRIVILEGE


class UnreachableError(SeamlessError):
    """A daemon or a peer does not answer."""

    exit_code = EXIT_UNREACHABLE


class DialError(UnreachableError):
    """A TCP connection could not be made. ``errno`` says why, and ``icmp_code`` how a network on the way said so.

    ``icmp_code``: of an ICMP destination unreachable; None when it was a TCP reset, or this host itself.
    """

    def __init__(self, sentence: str, errno: int, icmp_code: int | None = None) -> None:
        super().__init__(sentence)
        self.errno = errno
        self.icmp_code = icmp_code
