"""What the cryptography costs: sealing and opening, the replay window, a handshake, and refusing one.

Microseconds of one core per operation. The rates in seamless/crypto/gate.py stand on these figures.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bench.experiment import Conditions
from seamless.crypto.association import Association
from seamless.crypto.gate import Answer, HandshakeGate
from seamless.crypto.initiation import InitiationReader
from seamless.crypto.messages import LINK_PROLOGUE, build_initiation, mac1_key, open_cookie, with_mac2
from seamless.crypto.noise import public_key_of
from seamless.crypto.replay import ReplayWindow
from seamless.crypto.sealing import ReceiveKey, SendKey

OPERATIONS = 22
"""Of those below: each gets its share of the time."""
BATCH_DATAGRAMS = 44
SOURCE = ("192.0.2.1", 7400)


@attrs.frozen
class Costs:
    """Measures operations, each for so many seconds."""

    seconds: float

    def microseconds(self, operation: Callable[[], object], per_call: int = 1) -> float:
        """Return the CPU time of one operation, of which ``operation`` does ``per_call``."""
        calls = 0
        start = time.process_time()
        while (elapsed := time.process_time() - start) < self.seconds:
            for _ in range(20):
                operation()
            calls += 20
        return elapsed / calls / per_call * 1e6


def key_pair() -> tuple[bytes, bytes]:
    private_key = os.urandom(32)
    return private_key, public_key_of(X25519PrivateKey.from_private_bytes(private_key))


def association(keys: tuple[bytes, bytes], remote: tuple[bytes, bytes]) -> Association:
    return Association(
        private_key=keys[0],
        public_key=keys[1],
        remote_public_key=remote[1],
        prologue=LINK_PROLOGUE,
        incarnation=1,
        allocate_index=itertools.count(1).__next__,
        release_index=lambda index: None,
        random=os.urandom,
        next_counter=itertools.count(1).__next__,
    )


def sealing(costs: Costs) -> None:
    send, receive = SendKey(bytes(32), 1), ReceiveKey(bytes(32), 1)
    for size in (100, 1400, 16_384):
        plaintext = bytes(size)
        datagram = send.seal(4, 1, plaintext)
        nonce, sealed = datagram[:12], datagram[12:]
        encrypt, decrypt = send.encrypt, receive.decrypt
        print(f"seal {size} bytes: {costs.microseconds(lambda: send.seal(4, 1, plaintext)):8.2f}", end="")  # noqa: B023
        print(f"   encrypt alone: {costs.microseconds(lambda: encrypt(nonce, plaintext, None)):8.2f}")  # noqa: B023
        print(f"open {size} bytes: {costs.microseconds(lambda: receive.open(datagram)):8.2f}", end="")  # noqa: B023
        print(f"   decrypt alone: {costs.microseconds(lambda: decrypt(nonce, sealed, None)):8.2f}")  # noqa: B023


def replay(costs: Costs) -> None:
    window = ReplayWindow()
    starts = itertools.count(0, BATCH_DATAGRAMS)

    def whole() -> None:
        start = next(starts)
        window.accept_batch(range(start, start + BATCH_DATAGRAMS))

    def with_losses() -> None:
        start = next(starts)
        window.accept_batch([*range(start, start + 20), *range(start + 23, start + BATCH_DATAGRAMS)])

    def one_by_one() -> None:
        start = next(starts)
        for number in range(start, start + BATCH_DATAGRAMS):
            window.accept(number)

    print("replay window, per datagram of a batch:")
    for operation in (whole, with_losses, one_by_one):
        print(f"  {operation.__name__:12} {costs.microseconds(operation, BATCH_DATAGRAMS):8.3f}")


def handshake(costs: Costs) -> None:
    ours, theirs = key_pair(), key_pair()
    reader = InitiationReader(*theirs, [ours[1]], LINK_PROLOGUE)
    alice, bob = association(ours, theirs), association(theirs, ours)
    clock = itertools.count(0.0, 10.0)

    def initiate(now: float) -> bytes:
        alice.initiate(now)
        return alice.messages_to_send(now)[-1]

    def whole() -> None:
        now = next(clock)
        alice.handle_timeout(now)
        bob.handle_timeout(now)
        bob.receive_initiation(reader.open(initiate(now)), now)
        alice.receive_response(bob.messages_to_send(now)[-1], now)

    initiation = initiate(next(clock))
    print(f"open an initiation: {costs.microseconds(lambda: reader.open(initiation)):8.1f}")
    alice.close()
    print(f"a handshake, both sides: {costs.microseconds(whole):8.1f}")


def gate(costs: Costs) -> None:
    ours, theirs = key_pair(), key_pair()

    def new_gate() -> HandshakeGate:
        return HandshakeGate(
            private_key=ours[0], public_key=ours[1], known_keys=[theirs[1]], random=os.urandom, now=0.0
        )

    strange = build_initiation(1, bytes(116), mac1_key(bytes(32)))
    bare = build_initiation(1, bytes(116), mac1_key(ours[1]))
    calm, flooded = new_gate(), new_gate()
    answer = calm.admit(bare, SOURCE, 0.0)
    assert isinstance(answer, Answer)
    guarded = with_mac2(bare, open_cookie(answer.datagram, bare, ours[1]))
    while isinstance(flooded.admit(bare, SOURCE, 0.0), Answer):
        pass
    clock = itertools.count(0.0, 0.01)
    print("gate, per initiation:")
    for name, operation in (
        ("wrong length", lambda: calm.admit(strange[:-1], SOURCE, 0.0)),
        ("no cookies left", lambda: flooded.admit(bare, SOURCE, 0.0)),
        ("wrong mac1", lambda: calm.admit(strange, SOURCE, 0.0)),
        ("good cookie", lambda: calm.admit(guarded, SOURCE, 0.0)),
        ("cookie given out", lambda: calm.admit(bare, SOURCE, next(clock))),
    ):
        print(f"  {name:18} {costs.microseconds(operation):8.2f}")


def run(conditions: Conditions) -> None:
    """Print all of it; ``conditions.seconds`` in all."""
    costs = Costs(conditions.seconds / OPERATIONS)
    sealing(costs)
    replay(costs)
    handshake(costs)
    gate(costs)
