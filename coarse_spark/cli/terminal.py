"""Standard error of a command: lines of the log, and on a terminal one line of progress below."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.text import Text

from coarse_spark import progress
from coarse_spark.text import printable


class _Printable(logging.Formatter):
    """Lines of the log as they may be printed."""

    def format(self, record: logging.LogRecord) -> str:
        whole = record.getMessage() if record.name == progress.STEPS else super().format(record)
        return printable(whole)


class _Terminal(logging.Handler):
    """Prints lines of the log above the line of progress."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._live: Live | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line of the log."""
        with suppress(OSError):  # the terminal is gone: nobody looks on
            self._console.print(Text(self.format(record)), soft_wrap=True)

    def show(self, line: str) -> None:
        """Show progress in place of the line before."""
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        text = Text(printable(line), "dim", no_wrap=True, overflow="ellipsis")
        self._live.update(text, refresh=True)

    def clear(self) -> None:
        """Remove the line of progress."""
        live, self._live = self._live, None
        if live is not None:
            with suppress(OSError):
                live.stop()

    def close(self) -> None:
        """Let go of the terminal."""
        super().close()
        with suppress(OSError):
            self._console.file.close()


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Let standard output and error show "?" for characters that their encoding lacks.

    What they cannot take at the end, on a disk that is full, is dropped; so is everything where
    one is closed.
    """
    closed = [name for name in ("stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    streams = [
        stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)
    ]
    for stream in streams:
        stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream in streams:
            try:
                stream.flush()
            except OSError:  # Python would fail at its own end
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        for name in closed:
            getattr(sys, name).close()
            setattr(sys, name, None)


@contextmanager
def progress_shown() -> Iterator[None]:
    """Send the pipeline's progress and the package's warnings to standard error.

    In the block. On a terminal a line of progress stands below; it is gone at the end.
    """
    terminal = _terminal()
    handler = logging.StreamHandler(sys.stderr) if terminal is None else terminal
    handler.setFormatter(_Printable("%(asctime)s  %(message)s", "%H:%M:%S"))
    package = logging.getLogger("coarse_spark")
    telling = [package.getChild(name) for name in ("pipeline", "progress")]
    if terminal is None:  # lines for machines, which nobody reads on a terminal
        telling.append(logging.getLogger(progress.STEPS))
    before = package.handlers, package.propagate, package.level, [each.level for each in telling]
    package.handlers, package.propagate = [handler], False
    package.setLevel(logging.WARNING)
    for logger in telling:
        logger.setLevel(logging.INFO)
    try:
        with progress.display_on(terminal):
            yield
    finally:
        package.handlers, package.propagate = before[:2]
        for logger, level in zip([package, *telling], [before[2], *before[3]], strict=True):
            logger.setLevel(level)
        handler.close()


def _terminal() -> _Terminal | None:
    """Return standard error where it is a terminal that can rewrite a line, else None."""
    if not sys.stderr.isatty():
        return None
    # of its own: what is written while the Java process starts goes to a file (``lake.session``)
    own = os.fdopen(
        os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace"
    )
    console = Console(file=own, highlight=False)
    return None if console.is_dumb_terminal else _Terminal(console)
