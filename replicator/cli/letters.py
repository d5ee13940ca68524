"""What the verbs about set-aside messages share: which queue, how a message is shown, which are meant, the question."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from replicator.errors import ConfigurationError
from replicator.filters import KeyFilter, Rule
from replicator.logs import printable
from replicator.queues.letters import Kind, Letter
from replicator.queues.looking import WAIT, Look, looking
from replicator.queues.opening import Queues, open_queues
from replicator.queues.queue import Queue

Command = TypeVar("Command", bound=Callable[..., Any])

MOST = 10_000
"""Messages that one command looks at: these are kept from others meanwhile."""

SHOWN = 20
"""Lines that are shown before a question."""

KEYS_SHOWN = 10
"""Keys on a line."""

_POISON = f"{Kind.POISON.value}: "
"""What the reasons of workers begin with, too."""


def queue_option(command: Command) -> Command:
    """--queue: that of the changes. The others belong to it."""
    text = "The queue of changes: URL or ARN of SQS's, or a file.  [default: QUEUE_URL]"
    return click.option("--queue", metavar="QUEUE", help=text)(command)


def list_options(command: Command) -> Command:
    """How messages are listed."""
    options = [
        click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Messages at the most."),
        click.option("--json", "as_json", is_flag=True, help="A line of JSON for each message."),
    ]
    for option in options:
        command = option(command)
    return command


@contextmanager
def opened(queue: str | None) -> Iterator[Queues]:
    """The queues that --queue, or else the environment, names. Raises ConfigurationError."""
    text = queue or os.environ.get("QUEUE_URL", "").strip()
    if not text:
        raise ConfigurationError("which queue? Say --queue, or set QUEUE_URL")
    queues = open_queues(text, os.environ, create=False)
    try:
        yield queues
    finally:
        queues.close()


def look_at(queue: Queue, queues: Queues, *, most: int = MOST) -> AbstractContextManager[Look]:
    """As looking(). A file knows at once that it has nothing."""
    return looking(queue, most=most, wait=WAIT if queues.file is None else 0.0)


def key_patterns(patterns: Sequence[str]) -> KeyFilter:
    """The keys that one of these patterns matches; all if there are none."""
    return KeyFilter([Rule(False, "*"), *(Rule(True, pattern) for pattern in patterns)] if patterns else ())


def check_chosen(**given: object) -> None:
    """Raises ConfigurationError unless exactly one of these options says which messages are meant."""
    names = [f"--{name}" for name in given]
    if sum(map(bool, given.values())) != 1:
        raise ConfigurationError(f"nothing was done: say which with one of {', '.join(names)}")


def echo(text: str, *, err: bool = False) -> None:
    """Prints what is in a message; what a key could do to a terminal is escaped."""
    click.echo(printable(text), err=err)


def print_letters(letters: Iterator[Letter], *, as_json: bool) -> int:
    """Prints a line for each, as they come; their number."""
    count = 0
    for count, letter in enumerate(letters, 1):  # noqa: B007 - counts
        if as_json:
            click.echo(json_line(letter))
        else:
            echo(line(letter))
    return count


def line(letter: Letter) -> str:
    """When it was sent, how often it was given out, its id, what it is about, and why it was set aside."""
    return (
        f"{_local(letter.message.sent)} {letter.message.receive_count:>4}x {letter.message.message_id} {what(letter)}"
    )


def what(letter: Letter, keys: Sequence[str] | None = None) -> str:
    """What it is about, and why it was set aside. keys: instead of all."""
    if letter.kind is Kind.POISON:
        return _poison(letter)
    place = letter.route or (f"bucket {letter.bucket}" if letter.bucket else "")
    names = list(keys or letter.keys)
    if len(names) > KEYS_SHOWN:
        names[KEYS_SHOWN:] = [f"and {len(names) - KEYS_SHOWN:,} more"]
    words = [place, ", ".join(names), letter.about, letter.reason]
    return ": ".join(word for word in words if word)


def _poison(letter: Letter) -> str:
    """Why it cannot be read, and how it begins. Why it was set aside is mostly the same, and then not said again."""
    known = letter.message.reason.removeprefix(_POISON)
    words = [letter.about] if known and letter.about.startswith(known) else [letter.about, letter.reason]
    return _POISON + ": ".join(words)


def json_line(letter: Letter) -> str:
    """The same for programs; a reason that is not known is null."""
    message = letter.message
    return json.dumps(
        {
            "id": message.message_id,
            "kind": letter.kind.value,
            "route": letter.route or None,
            "bucket": letter.bucket or None,
            "keys": list(letter.keys),
            "about": letter.about or None,
            "reason": message.reason or None,
            "received": message.receive_count,
            "since": None if message.sent is None else _iso(message.sent),
        }
    )


def check_answerable(*, yes: bool, dry_run: bool) -> None:
    """Raises ConfigurationError when there will be a question, and nobody to answer it."""
    if not (yes or dry_run or sys.stdin.isatty()):
        raise ConfigurationError("nothing was done: there is no terminal to ask at; --dry-run shows, --yes does it")


def _local(seconds: float | None) -> str:
    if seconds is None:
        return f"{'-':<19}"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
