"""A lab in the background: the process that `seamless lab up` leaves running, and the folder in which it is found.

``python -m seamless.lab.background FILE SEED [nodes]`` brings the lab up in its folder, says ``ready`` on its standard
output, and takes it down on SIGTERM. If it is killed instead, the lab goes with it all the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from seamless.config.load import load_file
from seamless.errors import EXIT_DONE, ConfigurationError, PrivilegeError, SeamlessError, UnreachableError, UsageError
from seamless.lab.bed import Bed
from seamless.lab.daemons import environment
from seamless.lab.lab import Lab

_ROOT_DIRECTORY: Final = Path("/run/seamless-lab")
_DEPARTURE_SECONDS: Final = 30.0
"""Seconds to wait for a lab to go; its nodes and hosts may each take some to end."""
_POLL_SECONDS: Final = 0.05


def labs_directory() -> Path:
    """Return the folder that holds the folders of this user's labs."""
    if os.geteuid() == 0:
        return _ROOT_DIRECTORY
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "seamless-lab" if runtime else Path(f"/tmp/seamless-lab-{os.getuid()}")


def start(file: Path, seed: int, nodes: bool) -> Bed:
    """Bring the lab of a configuration up in the background and return it, ready."""
    configuration = load_file(file)
    if not configuration.hosts:
        raise ConfigurationError(f"{file} describes no host: add `host` and `wire` blocks, as etc/lab.conf has")
    directory = labs_directory() / configuration.name
    if _is_up(directory):
        raise UsageError(f"The lab {configuration.name} is up already: seamless lab down")
    shutil.rmtree(directory, ignore_errors=True)  # What a killed owner left: files only, the hosts went with it.
    directory.mkdir(parents=True, mode=0o700)
    argv = [
        sys.executable,
        "-m",
        "seamless.lab.background",
        str(file.resolve()),
        str(seed),
        *(["nodes"] if nodes else []),
    ]
    with open(directory / "lab.log", "wb") as log:
        owner = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd="/",
            env=environment(),
            start_new_session=True,
        )
    assert owner.stdout is not None
    answer = owner.stdout.read()
    if answer != "ready\n":
        error = PrivilegeError if owner.wait() == PrivilegeError.exit_code else SeamlessError
        raise error(answer.strip() or f"The lab did not come up; its log is {directory / 'lab.log'}")
    return Bed.attach(directory)


def find(name: str | None) -> Bed:
    """Return the lab of this name that is up, or the only one."""
    if name is not None:
        return Bed.attach(labs_directory() / name)
    folders = [folder for folder in labs_directory().glob("*") if _is_up(folder)]
    if not folders:
        raise UnreachableError("No lab is up: seamless lab up FILE")
    if len(folders) > 1:
        raise UsageError(f"Say which lab: --lab {' or --lab '.join(sorted(folder.name for folder in folders))}")
    return Bed.attach(folders[0])


def _is_up(directory: Path) -> bool:
    try:
        Bed.attach(directory)
    except UnreachableError:
        return False
    return True


def stop(bed: Bed) -> None:
    """Take a lab down and return when it is gone."""
    os.kill(bed.owner_pid, signal.SIGTERM)
    give_up_at = time.monotonic() + _DEPARTURE_SECONDS
    # A process that has ended and was not waited for has no root directory any more.
    while _is_up(bed.directory) or Path(f"/proc/{bed.owner_pid}/root").exists():
        if time.monotonic() > give_up_at:
            raise SeamlessError(f"Process {bed.owner_pid} does not take its lab down: kill -9 {bed.owner_pid} does.")
        time.sleep(_POLL_SECONDS)


def main() -> int:
    """Bring a lab up, and take it down on SIGTERM; return the exit code."""
    file, seed, *rest = sys.argv[1:]
    waited_for = {signal.SIGTERM, signal.SIGINT}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Also while it comes up: an exception takes it down.
    configuration = load_file(file)
    directory = labs_directory() / configuration.name
    try:
        with Lab(configuration, directory=directory, configuration_file=Path(file), seed=int(seed)) as lab:
            lab.start_servers()
            if "nodes" in rest:
                lab.start_nodes()
            print("ready", flush=True)
            os.close(sys.stdout.fileno())
            signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
            signal.sigwait(waited_for)
    except SeamlessError as error:
        print(error, flush=True)
        return error.exit_code
    shutil.rmtree(directory, ignore_errors=True)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
