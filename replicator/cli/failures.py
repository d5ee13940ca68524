"""replicator failures and redrive: what finally failed, and once more with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import click

from replicator.cli.letters import (
    MOST,
    check_chosen,
    echo,
    key_patterns,
    line,
    list_options,
    look_at,
    opened,
    print_letters,
    queue_option,
)
from replicator.errors import ConfigurationError
from replicator.items import is_item
from replicator.queues.letters import Kind, Letter, read_letter
from replicator.queues.looking import Look
from replicator.queues.opening import Queues
from replicator.queues.queue import Outgoing, Queue
from replicator.sizes import counted


@click.command()
@queue_option
@list_options
def failures(queue: str | None, limit: int, as_json: bool) -> int:
    """List the dead letters: changes that failed again and again.

    For each: when it was first sent, how often it was given out (each listing counts as well), its id, bucket or route,
    key, and why. Nothing is removed. While this runs, others do not see what it looks at.
    """
    with opened(queue) as queues, look_at(_dead_letters(queues), queues, most=limit) as look:
        count = print_letters(_letters(look), as_json=as_json)
    if not count and not as_json:
        echo("no dead letters")
    if look.more:
        echo(f"replicator: there are more than {limit:,}: say --limit", err=True)
    return 0


@click.command(short_help="Send dead letters back, to be tried again.")
@queue_option
@click.option("--all", "every", is_flag=True, help="All but poison.")
@click.option("--include", "patterns", multiple=True, metavar="PATTERN", help="Those of which a key matches.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="The one that `failures` shows with this id.")
@click.option("--poison", is_flag=True, help="Also what could not be read, for a version that can.")
@click.option("--dry-run", is_flag=True, help="Show which, and do nothing.")
def redrive(
    queue: str | None,
    every: bool,
    patterns: tuple[str, ...],
    ids: tuple[str, ...],
    poison: bool,
    dry_run: bool,
) -> int:
    """Send dead letters back to the queues that they came from, to be tried again.

    Needs no care: whatever is tried looks at the source as it is then. A message is sent before its dead letter is
    deleted, so if this is interrupted one may be tried twice. Messages are sent back whole, with all their keys.
    """
    check_chosen(all=every, include=patterns, id=ids)
    keys = key_patterns(patterns)

    def is_chosen(letter: Letter) -> bool:
        if ids:
            return letter.message.message_id in ids
        return every or any(keys.includes(key) for key in letter.keys)

    with opened(queue) as queues, look_at(_dead_letters(queues), queues) as look:
        done = Redriven(queues, look, poison=poison, dry_run=dry_run)
        for batch in look.batches():
            done.take([letter for letter in map(read_letter, batch) if is_chosen(letter)])
            if ids and done.met.issuperset(ids):
                break
    return done.tell(ids)


@dataclass
class Redriven:
    """Sends dead letters back, and knows what became of all that were chosen."""

    queues: Queues
    look: Look
    poison: bool
    dry_run: bool
    met: set[str] = field(default_factory=set)
    sent: int = 0
    left: int = 0
    again: int = 0
    refused: list[str] = field(default_factory=list)
    _bodies: set[int] = field(default_factory=set)

    def take(self, letters: list[Letter]) -> None:
        """Sends these, and only then deletes them."""
        readable = [one for one in letters if self.poison or one.kind is not Kind.POISON]
        good = [one for one in readable if self._is_new(one.message.body)]
        self.met.update(one.message.message_id for one in letters)
        self.left += len(letters) - len(readable)
        self.again += len(readable) - len(good)
        self.sent += len(good)
        if self.dry_run:
            for one in good:
                echo(line(one))
            return
        bodies = [one.message.body for one in good]
        self.queues.items.send([Outgoing(body) for body in bodies if is_item(body)])
        self.queues.changes.send([Outgoing(body) for body in bodies if not is_item(body)])
        self.refused += self.look.done([one.message for one in good])

    def _is_new(self, body: str) -> bool:
        """Whether none like it was sent: one that fails at once is back before the end, and would go round for ever."""
        before = len(self._bodies)
        self._bodies.add(hash(body))
        return len(self._bodies) > before

    def tell(self, ids: tuple[str, ...]) -> int:
        """Says what was done; the exit code."""
        did = "would send" if self.dry_run else "sent"
        echo(f"{did} {counted(self.sent, 'dead letter')} back to be tried again")
        if self.left:
            echo(f"replicator: {counted(self.left, 'message')} could not be read and stayed: see --poison", err=True)
        if self.again:
            words = "are back already, or say the same as one that was sent: they stayed"
            echo(f"replicator: {counted(self.again, 'dead letter')} {words}", err=True)
        unknown = [name for name in ids if name not in self.met]
        for name in unknown:
            echo(f"replicator: --id {name}: no such dead letter now; another command may be looking at it", err=True)
        for words in self.refused:
            echo(f"replicator: sent, but not deleted, so it will be there again: {words}", err=True)
        if self.look.more:
            echo(f"replicator: looked at {MOST:,}, and there are more: run it again", err=True)
        return 1 if unknown or self.refused or self.again or (ids and self.left) else 0


def _letters(look: Look) -> Iterator[Letter]:
    for batch in look.batches():
        yield from map(read_letter, batch)


def _dead_letters(queues: Queues) -> Queue:
    if queues.dead_letters is None:
        raise ConfigurationError(
            f"{queues.changes.name} has no queue of dead letters: set DEAD_LETTERS_URL, or give it a redrive policy"
        )
    return queues.dead_letters
