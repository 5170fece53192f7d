"""The real servers that run on hosts of a lab: sshd, nginx and iperf3, with their own keys, configuration and folders.

Nothing of the machine's own configuration is used or touched. On every host ``/etc/ssh`` and ``/etc/hosts`` are the
lab's, so an unmodified ``scp file dst:/tmp/`` finds its key, knows the server's, and asks nothing.
"""

from __future__ import annotations

import os
import pwd
import random
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from seamless.errors import ConfigurationError, SeamlessError
from seamless.linux.netns import Host
from seamless.linux.system import program, run

SSH_PORT: Final = 22
WEB_PORTS: Final = (80, 8000, 8080)
IPERF3_PORT: Final = 5201

_START_SECONDS: Final = 10.0
"""Seconds until a server that does not listen counts as failed."""
_POLL_SECONDS: Final = 0.02
_WEB_BLOCK_BYTES: Final = 1 << 20
_SSHD_EMPTY_DIRECTORY: Final = Path("/run/sshd")
"""Where sshd as root shuts away its unprivileged half; a machine whose own sshd never ran lacks it."""

_SSH_CONFIG: Final = """\
User {user}
IdentityFile {ssh}/client_key
IdentitiesOnly yes
GlobalKnownHostsFile {ssh}/known_hosts
UserKnownHostsFile /dev/null
StrictHostKeyChecking yes
BatchMode yes
LogLevel ERROR
"""

_SSHD_CONFIG: Final = """\
Port {port}
HostKey {ssh}/host_key
AuthorizedKeysFile {ssh}/client_key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
UseDNS no
PidFile none
PrintMotd no
MaxStartups 1000
Subsystem sftp internal-sftp
"""

_SHADOW: Final = "{user}:*:20000:0:99999:7:::\n"
"""An account that is not locked and has no password (shadow(5))."""

_NGINX_CONFIG: Final = """\
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
user root root;
worker_processes 1;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    server {{
{listens}
        root {directory}/www;
    }}
}}
"""


@attrs.frozen
class Server:
    """A server that is ready to be started: how, on which ports it will listen, and where it writes its log."""

    argv: list[str]
    ports: tuple[int, ...]
    log: Path


def write_ssh_client(directory: Path, addresses: Mapping[str, str]) -> None:
    """Make the keys of a lab, the ssh client's configuration, and the hosts file that its hosts see."""
    ssh = directory / "ssh"
    if not ssh.exists():
        ssh.mkdir()
        for key in ("client_key", "host_key"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "seamless lab", "-f", str(ssh / key)])
    host_key = (ssh / "host_key.pub").read_text(encoding="ascii")
    (ssh / "known_hosts").write_text(f"* {host_key}", encoding="ascii")
    user = pwd.getpwuid(os.getuid()).pw_name
    (ssh / "ssh_config").write_text(_SSH_CONFIG.format(ssh=ssh, user=user), encoding="utf-8")
    (directory / "etc-shadow").write_text(_SHADOW.format(user=user), encoding="utf-8")
    lines = ["127.0.0.1 localhost", "::1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
    (directory / "etc-hosts").write_text("\n".join(lines) + "\n", encoding="ascii")


def covers(directory: Path, rootless: bool) -> dict[str, str]:
    """Return a mapping from paths to the files that a host sees there in place of the machine's own.

    An sshd that may not read the shadow file takes every account for locked, so without root another replaces it.
    """
    covered = {"/etc/ssh": directory / "ssh", "/etc/hosts": directory / "etc-hosts"}
    if rootless:
        covered["/etc/shadow"] = directory / "etc-shadow"
    return {path: str(file) for path, file in covered.items()}


def prepare(name: str, host_directory: Path, lab_directory: Path, rootless: bool) -> Server:
    """Write what a server needs into its host's directory; ``name`` is what the configuration calls it."""
    log = host_directory / f"{name}.log"
    if name == "sshd":
        return Server(_sshd(host_directory, lab_directory / "ssh", rootless), (SSH_PORT,), log)
    if name == "nginx":
        return Server(_nginx(host_directory), WEB_PORTS, log)
    if name == "iperf3":
        return Server([program("iperf3"), "-s", "-p", str(IPERF3_PORT), "--forceflush"], (IPERF3_PORT,), log)
    raise ConfigurationError(f"The lab cannot run {name}; it can run sshd, nginx and iperf3.")


def _sshd(host_directory: Path, ssh: Path, rootless: bool) -> list[str]:
    """Without root, sshd runs as the person who runs the lab: with one user mapped it cannot change to another."""
    configuration = host_directory / "sshd_config"
    configuration.write_text(_SSHD_CONFIG.format(port=SSH_PORT, ssh=ssh), encoding="utf-8")
    argv = [program("sshd"), "-D", "-e", "-f", str(configuration)]
    if not rootless:
        _SSHD_EMPTY_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        return argv
    return [program("unshare"), "--user", f"--map-user={os.getuid()}", f"--map-group={os.getgid()}", *argv]


def _nginx(host_directory: Path) -> list[str]:
    web_file(host_directory, "1M", 1_000_000)
    configuration = host_directory / "nginx.conf"
    listens = "\n".join(f"        listen {port} backlog=4096; listen [::]:{port} backlog=4096;" for port in WEB_PORTS)
    configuration.write_text(_NGINX_CONFIG.format(directory=host_directory, listens=listens), encoding="utf-8")
    return [program("nginx"), "-p", str(host_directory), "-e", "stderr", "-c", str(configuration)]


def web_file(host_directory: Path, name: str, size_bytes: int) -> Path:
    """Write a file that nginx on this host serves as ``/name``; no two megabytes of it are alike. Returns its path."""
    path = host_directory / "www" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    block = random.Random(name).randbytes(_WEB_BLOCK_BYTES - 8)
    with open(path, "wb") as file:
        for number in range(-(-size_bytes // _WEB_BLOCK_BYTES)):
            left = size_bytes - number * _WEB_BLOCK_BYTES
            file.write((number.to_bytes(8, "big") + block)[:left])
    return path


def wait_until_listening(host: Host, server: Server, process: subprocess.Popen[bytes]) -> None:
    """Return once a server listens on all its ports; raise `SeamlessError` with its log if it never does."""
    give_up_at = time.monotonic() + _START_SECONDS
    while not set(server.ports) <= host.listening_ports():
        if process.poll() is not None or time.monotonic() > give_up_at:
            words = server.log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
            raise SeamlessError(
                f"{Path(server.argv[0]).name} on {host.name} does not listen on {server.ports}: {words}"
            )
        time.sleep(_POLL_SECONDS)
