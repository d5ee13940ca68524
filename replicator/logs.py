"""Where the log goes: one line a record, on the console or in a file that rotates.

| variable   | value                                                                              |
|------------|------------------------------------------------------------------------------------|
| LOG_METHOD | console (default): stderr; or file                                                 |
| LOG_PATH   | for file: a file, or a directory that exists, in which it is called replicator.log |
| LOG_LEVEL  | DEBUG, INFO (default), WARNING or ERROR, in any case                               |

Everybody logs with `from replicator.logs import logger`. Names of files and keys may be put into messages as they are:
what could begin a second line, or do something to a terminal, is escaped here.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from replicator.errors import ConfigurationError
from replicator.model import MiB

logger = logging.getLogger("replicator")

ROTATE_AT, KEEP = 10 * MiB, 5

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@contextmanager
def start_logging(environment: Mapping[str, str], *, json: bool, stream: TextIO | None = None) -> Iterator[None]:
    """Logs as the environment says while the block runs; then the file is closed.

    json: a line of JSON for each record (time, level, message, and what it has in `extra`). stream: the console,
    stderr unless given. Raises ConfigurationError, with a file that cannot be written as well. A log that cannot be
    written later (a full disk) is said once on the console, and stops nothing.
    """
    console = stream or sys.stderr
    level = _level(environment)
    handler = _handler(environment, console)
    handler.setFormatter(_json_lines() if json else _Lines())
    level_before, propagate_before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level_before)
        logger.propagate = propagate_before
        # A file on a network may say only now that there is no room; the work is done by then.
        with suppress(OSError):
            handler.close()


def printable(text: str) -> str:
    """The text on one line, with what could do something to a terminal or a log escaped as Python writes it."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _level(environment: Mapping[str, str]) -> str:
    text = environment.get("LOG_LEVEL", "").strip() or "INFO"
    if text.upper() not in _LEVELS:
        raise ConfigurationError(f"LOG_LEVEL={text[:40]!r}: must be {', '.join(_LEVELS[:-1])} or {_LEVELS[-1]}")
    return text.upper()


def _handler(environment: Mapping[str, str], console: TextIO) -> logging.Handler:
    method = environment.get("LOG_METHOD", "").strip() or "console"
    if method.lower() not in ("console", "file"):
        raise ConfigurationError(f"LOG_METHOD={method[:40]!r}: must be console or file")
    if method.lower() == "console":
        return _Console(console)
    text = environment.get("LOG_PATH", "").strip()
    if not text:
        raise ConfigurationError("LOG_PATH is not set: LOG_METHOD=file needs a file or a directory")
    return _open_file(text, _Alarm(console))


def _open_file(text: str, alarm: _Alarm) -> _File:
    path = Path(text) / "replicator.log" if text.endswith("/") or os.path.isdir(text) else Path(text)
    # os.path rather than Path, which raises where a directory may not be searched.
    is_device = os.path.exists(path) and not os.path.isfile(path)
    if os.path.isdir(path.parent) and not is_device and not os.access(path.parent, os.W_OK):
        raise ConfigurationError(
            f"LOG_PATH={text!r}: {path.parent} cannot be written to, so no log can be begun or rotated there"
        )
    try:
        return _File(path, alarm)
    except OSError as error:
        raise ConfigurationError(f"LOG_PATH={text!r}: {error.strerror}") from error


class _Lines(logging.Formatter):
    """As 2026-11-20T12:00:00Z INFO uploaded a/b.dat; always one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", _TIME)
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """One line, tracebacks included."""
        return printable(super().format(record))


def _json_lines() -> logging.Formatter:
    # Most runs do not want it, and it takes a while to import.
    from pythonjsonlogger.json import JsonFormatter

    names = {"asctime": "time", "levelname": "level"}
    formatter = JsonFormatter([*names, "message"], datefmt=_TIME, rename_fields=names)
    formatter.converter = time.gmtime
    return formatter


class _Alarm:
    """Says once, on the console, that the log cannot be written."""

    def __init__(self, console: TextIO) -> None:
        self._console = console
        self._said = False

    def say(self, text: str) -> None:
        """Says it, unless something was said before; a console that is gone is no reason to stop."""
        if not self._said:
            self._said = True
            with suppress(OSError, ValueError):
                print(printable(text), file=self._console, flush=True)


class _Console(logging.StreamHandler[TextIO]):
    """Writes to the console for as long as there is one."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lets a record go that nobody can read any more; what is wrong with a call of the logger is still said."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handleError(record)


class _File(RotatingFileHandler):
    """Writes to a file that rotates at ROTATE_AT; begins a new one when another program moved or removed it."""

    def __init__(self, path: Path, alarm: _Alarm) -> None:
        super().__init__(path, maxBytes=ROTATE_AT, backupCount=KEEP, encoding="utf-8", errors="backslashreplace")
        self._alarm = alarm

    def shouldRollover(self, record: logging.LogRecord) -> int:
        """Asked before each record; the stream is opened again below, or by the handler itself, if it is None."""
        if not self._is_in_its_place():
            self._let_go()
        return super().shouldRollover(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """The next record tries again with a file newly opened: there may be room by then."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._let_go()
        self._alarm.say(f"replicator: the log {self.baseFilename} cannot be written ({error.strerror}); going on")

    def _is_in_its_place(self) -> bool:
        if self.stream is None:
            return True
        try:
            return os.path.samestat(os.stat(self.baseFilename), os.fstat(self.stream.fileno()))
        except FileNotFoundError:
            return False

    def _let_go(self) -> None:
        if self.stream is not None:
            with suppress(OSError):
                self.stream.close()
        self.stream = None
