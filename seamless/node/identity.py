"""A node's key and incarnation, and the associations with other nodes that are made from both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seamless.config.model import NodeConfig
from seamless.crypto.association import Association
from seamless.crypto.keys import public_key_of, x25519_private_key
from seamless.errors import ConfigurationError

Random: TypeAlias = Callable[[int], bytes]
"""Given n, returns n secret random bytes."""


class Identity:
    """A node's keys and incarnation (wall-clock nanoseconds at the start of the process).

    ``private_key`` and ``public_key`` are the X25519 pair of the handshakes, derived from the Ed25519 key.
    """

    def __init__(self, config: NodeConfig, private_key: bytes, incarnation: int, random: Random) -> None:
        """Raise `ConfigurationError` when ``private_key`` (32 raw bytes, an Ed25519 seed) is not that of the node."""
        self.private_key = x25519_private_key(private_key)
        self.public_key = config.x25519_public_key
        self.incarnation = incarnation
        self.random = random
        self._signing_key = Ed25519PrivateKey.from_private_bytes(private_key)
        self._counter = incarnation
        self._next_incarnation = incarnation
        if public_key_of(private_key) != config.public_key:
            raise ConfigurationError(
                f"the key does not belong to node {config.name}: its public key is not the one that the configuration"
                f" has; start with the key of {config.name}, or put what 'seamless pubkey' prints for this one into"
                " its block"
            )

    def retire(self, association: Association) -> None:
        """Forget an association; one with the same node later is that of a new incarnation.

        Its packet and record numbers start anew, and only so does the remote node start its own anew.
        """
        association.close()
        self._next_incarnation = max(self._next_incarnation, association.incarnation + 1)

    def next_counter(self) -> int:
        """Return a number greater than all before, of this process and of those before it."""
        self._counter += 1
        return self._counter

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of this node; each use has its own beginning of ``message``."""
        return self._signing_key.sign(message)

    def associate(
        self,
        remote_public_key: bytes,
        prologue: bytes,
        allocate_index: Callable[[], int],
        release_index: Callable[[int], None],
    ) -> Association:
        """Return the association with the owner of an X25519 key for links or for a session, by ``prologue``."""
        return Association(
            private_key=self.private_key,
            public_key=self.public_key,
            remote_public_key=remote_public_key,
            prologue=prologue,
            incarnation=self._next_incarnation,
            allocate_index=allocate_index,
            release_index=release_index,
            random=self.random,
            next_counter=self.next_counter,
        )
