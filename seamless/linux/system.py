"""Runs other programs, and turns their failures into `SeamlessError`."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from seamless.errors import PrivilegeError, SeamlessError, UsageError

_ADMINISTRATION_PATHS: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where Debian keeps iptables, ip and sshd; an unprivileged user's PATH often lacks it."""

_DEBIAN_PACKAGES: Final = {
    "ip": "iproute2",
    "ip6tables": "iptables",
    "ip6tables-restore": "iptables",
    "ip6tables-save": "iptables",
    "iperf3": "iperf3",
    "iptables": "iptables",
    "iptables-restore": "iptables",
    "iptables-save": "iptables",
    "nginx": "nginx-light",
    "nsenter": "util-linux",
    "scp": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sysctl": "procps",
    "tcpdump": "tcpdump",
    "twistd": "python3-twisted",
    "unshare": "util-linux",
}
"""What to install for a program whose package has another name, or whose name people ask for."""

_REFUSALS: Final = ("Operation not permitted", "Permission denied", "you must be root")


def program(name: str) -> str:
    """Return the path of a program, or raise `SeamlessError` saying what to install.

    Without the firewall's programs the kernel's feature cannot be had: that is a `PrivilegeError`.
    """
    found = shutil.which(name) or shutil.which(name, path=_ADMINISTRATION_PATHS)
    if found is None:
        name = os.path.basename(name)
        package = _DEBIAN_PACKAGES.get(name, name)
        error = PrivilegeError if package == "iptables" else SeamlessError
        raise error(f"{name} is not installed: apt-get install {package}")
    return found


def run(argv: Sequence[str], input: str | None = None) -> str:
    """Run a program to its end and return what it wrote to stdout; raise with its own words if it fails."""
    command = [program(argv[0]), *argv[1:]]
    done = subprocess.run(command, input=input, capture_output=True, text=True)
    if done.returncode:
        complaint = done.stderr.strip() or f"exit code {done.returncode}"
        error = PrivilegeError if any(words in complaint for words in _REFUSALS) else SeamlessError
        raise error(f"{' '.join(argv)} failed: {complaint}")
    return done.stdout


def user_id(name: str) -> int:
    """Return the id of the user of this name, or number."""
    try:
        return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise UsageError(f"there is no user {name} on this host: make one, or name another") from None


def closed_folder(user: int, path: Path) -> Path | None:
    """Return the first parent folder of ``path`` that a user may not enter; None if there is none. Knows no ACLs."""
    try:
        group = pwd.getpwuid(user).pw_gid
    except KeyError:
        group = -1
    for folder in reversed(path.resolve().parents):
        status = folder.stat()
        right = stat.S_IXUSR if status.st_uid == user else stat.S_IXGRP if status.st_gid == group else stat.S_IXOTH
        if not status.st_mode & right:
            return folder
    return None


def cpu_seconds(pid: int) -> float:
    """Return the processor time, user and system, that a process has taken (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def raise_descriptor_limit() -> int:
    """Let this process open as many descriptors as it may without privilege; return how many that are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
