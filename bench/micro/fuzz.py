"""Feed every way in for as long as you like, guided by coverage: ``python -m bench.micro.fuzz TARGET SECONDS``

Needs atheris (pip install atheris). A finding ends it with a traceback and the bytes in crash-*. The last line says how
many inputs there were, and how much memory the process took at most. The targets are in seamless/test/trust/targets.py.
"""

from __future__ import annotations

import os
import resource
import sys
import time

import atheris

with atheris.instrument_imports(include=["seamless"]):
    from seamless.test.trust.targets import CORES, PARSERS, Target


def main(name: str, seconds: str) -> None:
    target: Target = PARSERS[name] if name in PARSERS else CORES[name]()
    count = 0
    begin = time.monotonic()

    def counted(data: bytes) -> None:
        nonlocal count
        count += 1
        target(data)
        elapsed = time.monotonic() - begin
        if elapsed > float(seconds):
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"{name}: {count} inputs in {elapsed:.0f} s, {peak_mb} MB", flush=True)
            os._exit(0)  # libFuzzer knows no other way to stop from within

    atheris.Setup([sys.argv[0], "-max_len=3000", "-verbosity=0"], counted)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in {*PARSERS, *CORES}:
        sys.exit(f"{__doc__}\ntargets: {', '.join([*PARSERS, *CORES])}")
    main(*sys.argv[1:])
