"""Two network namespaces joined by a slow cable: ranks on different machines, on one machine."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("ip", "tc", "nsenter")
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, kw_only=True)
class Host:
    """One end of the cable.

    Attributes:
        namespace: The network namespace.
        interface: The interface in it.
        address: Its IPv4 address.
    """

    namespace: str
    interface: str
    address: str

    @property
    def prefix(self) -> list[str]:
        """What to put before a program's arguments so that it runs there.

        Not `ip netns exec`, which hides the control groups.
        """
        return ["nsenter", f"--net={self._path}", "--"]

    def enter(self) -> None:
        """Move this thread, and all that it will start, into the namespace."""
        libc = ctypes.CDLL(None, use_errno=True)
        with self._path.open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the namespace {self.namespace}")
        os.environ["GLOO_SOCKET_IFNAME"] = self.interface

    @property
    def _path(self) -> Path:
        return Path("/run/netns") / self.namespace


def can_rate_limit() -> bool:
    """Return whether namespaces can be made here: root, and the tools."""
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in TOOLS)


@contextmanager
def rate_limited_hosts(mbit: float) -> Iterator[tuple[Host, Host]]:
    """Join two new namespaces by a cable of `mbit` Mbit/s each way, and remove them in the end."""
    first, second = hosts = (host_at(1), host_at(2))
    made: list[Host] = []
    try:
        for host in hosts:
            _run(f"ip netns add {host.namespace}")
            made.append(host)
        peer = f"peer name {second.interface} netns {second.namespace}"
        _run(f"ip -n {first.namespace} link add {first.interface} type veth {peer}")
        for host in hosts:
            _set_up(host, mbit)
        yield hosts
    finally:
        for host in made:
            _run(f"ip netns del {host.namespace}")


def host_at(end: int) -> Host:
    """Return a name and an address for one end, which no other run uses at the same time."""
    tag = f"elche{os.getpid()}"  # an interface's name has at most 15 characters
    return Host(namespace=f"{tag}-{end}", interface=f"{tag}-{end}", address=f"10.77.0.{end}")


def _set_up(host: Host, mbit: float) -> None:
    _run(f"ip -n {host.namespace} addr add {host.address}/24 dev {host.interface}")
    for interface in (host.interface, "lo"):
        _run(f"ip -n {host.namespace} link set {interface} up")
    limit = f"tbf rate {mbit}mbit burst 64kb latency 50ms"
    _run(f"tc -n {host.namespace} qdisc add dev {host.interface} root {limit}")


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)
