"""Who works on a run: processes by host and number, and whether they are still there."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_CLOCK_SLACK = 2.0  # seconds: two looks at when a process started may differ a little


@dataclass(frozen=True)
class Process:
    """A process, so that another one can tell later whether it is still there.

    Attributes
    ----------
    host : name of its machine.
    namespace : of its process numbers: containers of one host count processes of their own.
    number : the process id.
    started : when it started, seconds since 1970: numbers are used again.
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
        started = round(psutil.Process(number).create_time(), 2)
        return Process(socket.gethostname(), _namespace(), number, started)

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
            same = abs(found.create_time() - self.started) < _CLOCK_SLACK
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _namespace() -> str:
    try:
        return Path("/proc/self/ns/pid").readlink().name.strip("pid:[]") or "-"
    except OSError:  # no Linux: processes of a host are numbered together
        return "-"
