"""Opens TUN devices with segmentation offload inside another network namespace.

``IFF_VNET_HDR`` puts a ``struct virtio_net_hdr`` before every packet, and ``TUNSETOFFLOAD`` tells the kernel that
the reader of the device takes unfinished checksums and packets of up to 64 kB. Both together make it possible to carry
gigabits through a Python process (Documentation/networking/tuntap.rst).
"""

from __future__ import annotations

import ctypes
import os
from fcntl import ioctl
from struct import Struct
from typing import Final

from seamless.errors import PrivilegeError

_TUN_DEVICE: Final = "/dev/net/tun"

# include/uapi/linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_TUN_F_CSUM: Final = 0x01
_TUN_F_TSO4: Final = 0x02
_TUN_F_TSO6: Final = 0x04
_TUN_F_USO4: Final = 0x20
_TUN_F_USO6: Final = 0x40
_TCP_OFFLOAD: Final = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6
_UDP_OFFLOAD: Final = _TUN_F_USO4 | _TUN_F_USO6
"""Since Linux 6.2; before it the kernel cuts UDP super-packets itself, which costs speed and nothing else."""

_IFREQ: Final = Struct("16sH22x")
_CLONE_NEWNET: Final = 0x40000000
"""include/uapi/linux/sched.h"""

_libc = ctypes.CDLL(None, use_errno=True)


def enter_network(holder_pid: int) -> None:
    """Move this process into the network namespace of another; what it opens from now on belongs there.

    ``os.setns`` comes with Python 3.12 only.
    """
    namespace = os.open(f"/proc/{holder_pid}/ns/net", os.O_RDONLY)
    try:
        if _libc.setns(namespace, _CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            raise PrivilegeError(f"Cannot enter the network namespace of process {holder_pid} ({reason}): run as root")
    finally:
        os.close(namespace)


def open_tun(name: str) -> tuple[int, bool]:
    """Make a TUN device in this network namespace. Returns its non-blocking descriptor, and whether it takes UDP GSO.

    The device is gone when the descriptor is closed.
    """
    try:
        descriptor = os.open(_TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise PrivilegeError(f"{_TUN_DEVICE} does not exist: modprobe tun, or use a kernel with CONFIG_TUN") from None
    except PermissionError:
        raise PrivilegeError(f"{_TUN_DEVICE} is closed to this user: run as root, or chmod 666 {_TUN_DEVICE}") from None
    try:
        ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        return descriptor, _offload(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise PrivilegeError(
            f"Cannot make the TUN device {name} ({error.strerror}): it needs CAP_NET_ADMIN in its network namespace"
        ) from None


def _offload(descriptor: int) -> bool:
    try:
        ioctl(descriptor, _TUNSETOFFLOAD, _TCP_OFFLOAD | _UDP_OFFLOAD)
    except OSError:
        ioctl(descriptor, _TUNSETOFFLOAD, _TCP_OFFLOAD)
        return False
    return True
