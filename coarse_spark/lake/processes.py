"""Who works on a run: processes by host and number, and whether they are still there."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_CLOCK_SLACK = 2.0  # seconds: two looks at when a process started may differ a little


@dataclass(frozen=True)
class Process:
    """A process, so that another one can tell later whether it is still there.

    Attributes
    ----------
    host : name of its machine.
    namespace : of its process numbers: that of the machine since it booted, as machines may have
        one name, and of the container, each of which counts its own.
    number : the process id.
    started : when it started, in seconds, on Linux since the machine booted: numbers are used
        again.
    """

    host: str
    namespace: str
    number: int
    started: float

    @staticmethod
    @cache
    def current() -> Process:
        """Return this process."""
        number = os.getpid()
        return Process(socket.gethostname(), _namespace(), number, round(_started(number), 2))

    def __str__(self) -> str:
        """Return the text from which ``parse`` makes the process again."""
        return f"{self.host}/{self.namespace}/{self.number}/{self.started:.2f}"

    @staticmethod
    def parse(text: str) -> Process | None:
        """Return the process of a text; None where another version wrote it."""
        try:
            host, namespace, number, started = text.split("/")
            return Process(host, namespace, int(number), float(started))
        except ValueError:
            return None

    def alive(self) -> bool | None:
        """Whether the process is still there; None where that cannot be seen from here."""
        here = Process.current()
        if (self.host, self.namespace) != (here.host, here.namespace):
            return None
        try:
            found = psutil.Process(self.number)
            same = abs(_started(self.number) - self.started) < _CLOCK_SLACK
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _namespace() -> str:
    found = []  # without Linux neither is there: processes of a host are numbered together
    with suppress(OSError):  # the first namespace has the same number on every machine
        found.append(_BOOT.read_text().strip())
    with suppress(OSError):
        found.append(Path("/proc/self/ns/pid").readlink().name.strip("pid:[]"))
    return ":".join(found) or "-"


def _started(number: int) -> float:
    """Return when a process started, by a clock that nobody sets."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:  # gone, or no Linux, where the system keeps the moment as it was
        return psutil.Process(number).create_time()
    # the 22nd field; the second, in parentheses, may have blanks
    return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
