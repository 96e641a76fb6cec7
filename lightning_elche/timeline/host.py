"""What the machine is busy with, once a second."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

__all__ = ["HostSampler", "boot_id", "host_name"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HostSampler:
    """Reads how busy CPU and memory are and how full the disk is, in percent.

    Args:
        folder: Its disk counts.
        gpus: Returns what is known of the GPUs, by name; it may be empty.
    """

    def __init__(self, folder: Path, gpus: Callable[[], dict[str, Any]] = dict) -> None:
        self._folder = folder
        self._gpus = gpus
        self._is_first = True

    def __call__(self) -> dict[str, Any]:
        """Return the values; what cannot be read is `None`."""
        return {
            "cpu": self._cpu(),
            "memory": psutil.virtual_memory().percent,
            "disk": self._disk(),
            **self._gpus(),
        }

    def _cpu(self) -> float | None:
        # Since the call before in the same thread; what the first one returns means nothing.
        percent = psutil.cpu_percent()
        was_first, self._is_first = self._is_first, False
        return None if was_first else percent

    def _disk(self) -> float | None:
        try:
            return float(psutil.disk_usage(str(self._folder)).percent)
        except OSError:
            return None


def boot_id() -> str:
    """Return what names this start of the machine, and so its monotonic clock; "" if unknown."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def host_name() -> str:
    """Return the name of the machine."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
