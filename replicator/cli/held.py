"""replicator held, release and discard: the deletes that the brake has parked, and what a person decides of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from replicator.cli.letters import (
    MOST,
    SHOWN,
    check_answerable,
    check_chosen,
    echo,
    key_patterns,
    list_options,
    look_at,
    opened,
    print_letters,
    queue_option,
    what,
)
from replicator.errors import ConfigurationError
from replicator.events import QueueMessage
from replicator.items import KeysItem, encode
from replicator.queues.letters import Kind, Letter, read_letter
from replicator.queues.looking import Look
from replicator.queues.opening import Queues
from replicator.queues.queue import Outgoing, Queue
from replicator.sizes import counted

Command = TypeVar("Command", bound=Callable[..., Any])


@click.command(short_help="List the deletes that were too many in an hour.")
@queue_option
@list_options
def held(queue: str | None, limit: int, as_json: bool) -> int:
    """List the deletes that are held back, because there were too many in an hour.

    For each: since when, how often it was given out (each listing counts as well), its id, route, key, and why. Nothing
    is removed. While this runs, others do not see what it looks at.
    """
    with opened(queue) as queues, look_at(_held(queues), queues, most=limit) as look:
        count = print_letters((read_letter(one) for batch in look.batches() for one in batch), as_json=as_json)
    if not count and not as_json:
        echo("no delete is held")
    if look.more:
        echo(f"replicator: there are more than {limit:,}: say --limit", err=True)
    return 0


def _choosing(command: Command) -> Command:
    options = [
        click.option("--dry-run", is_flag=True, help="Show which, and do nothing."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--route", metavar="ROUTE", help="Only of this route."),
        click.option("--include", "patterns", multiple=True, metavar="PATTERN", help="Keys that match; '*' takes '/'."),
        click.option("--all", "every", is_flag=True, help="All keys."),
    ]
    for option in options:
        command = option(command)
    return queue_option(command)


@click.command()
@_choosing
def release(
    queue: str | None, every: bool, patterns: tuple[str, ...], route: str | None, yes: bool, dry_run: bool
) -> int:
    """Let deletes that are held pass the brake.

    Each goes back to the queue of changes, where the source is asked once more: only what is still not there is
    deleted at the targets. Shows which, and asks.
    """
    return _decide("release", queue, Choice(every, patterns, route), yes=yes, dry_run=dry_run)


@click.command()
@_choosing
def discard(
    queue: str | None, every: bool, patterns: tuple[str, ...], route: str | None, yes: bool, dry_run: bool
) -> int:
    """Forget deletes that are held: the objects stay at the targets.

    A later reconciliation finds them again, and deletes or holds them, unless they are back at the source by then.
    Shows which, and asks.
    """
    return _decide("discard", queue, Choice(every, patterns, route), yes=yes, dry_run=dry_run)


class Choice:
    """Which held deletes are meant. Raises ConfigurationError if it is not said."""

    def __init__(self, every: bool, patterns: tuple[str, ...], route: str | None) -> None:
        check_chosen(all=every, include=patterns)
        self.is_all = every and route is None
        self._keys = key_patterns(patterns)
        self._route = route

    def of(self, letter: Letter) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The keys of a held delete that are meant, and those that are not."""
        if self._route is not None and letter.route != self._route:
            return (), letter.keys
        meant = dict.fromkeys(key for key in letter.keys if self._keys.includes(key))
        return tuple(meant), tuple(key for key in letter.keys if key not in meant)


@dataclass
class Decision:
    """Shows or settles what is meant, batch by batch, and counts.

    work: the queue that what is released goes to; None: it is discarded.
    """

    choice: Choice
    held: Queue
    work: Queue | None
    keys: int = 0
    strange: int = 0
    met: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)

    def show(self, messages: list[QueueMessage], *, lines: int | None) -> None:
        """Prints what would be settled; lines: at the most in all."""
        for letter, meant, _ in self._meant(messages):
            if lines is None or len(self.met) < lines:
                echo(what(letter, meant))
            self.met.add(letter.message.message_id)
            self.keys += max(len(meant), 1)

    def settle(self, messages: list[QueueMessage], look: Look) -> None:
        """Sends what is released, puts back the other keys of its messages, and only then deletes these."""
        meant = list(self._meant(messages))
        if self.work is not None:
            items = [KeysItem(one.route, keys, released=True, source=one.source) for one, keys, _ in meant]
            self.work.send([Outgoing(encode(item)) for item in items])
        rest = [(one, others) for one, _, others in meant if others]
        left = [(KeysItem(one.route, keys, source=one.source), one.message.reason) for one, keys in rest]
        self.held.send([Outgoing(encode(item), reason) for item, reason in left])
        self.refused += look.done([one.message for one, _, _ in meant])
        self.keys += sum(max(len(keys), 1) for _, keys, _ in meant)

    def _meant(self, messages: list[QueueMessage]) -> list[tuple[Letter, tuple[str, ...], tuple[str, ...]]]:
        """What is meant of these messages. What is no delete at all can be discarded with all others, not released."""
        found = []
        for letter in map(read_letter, messages):
            if letter.kind is Kind.KEYS:
                meant, others = self.choice.of(letter)
                if meant:
                    found.append((letter, meant, others))
            elif self.choice.is_all and self.work is None:
                found.append((letter, (), ()))
            elif self.choice.is_all:
                self.strange += 1
        return found


def _decide(verb: str, queue: str | None, choice: Choice, *, yes: bool, dry_run: bool) -> int:
    check_answerable(yes=yes, dry_run=dry_run)
    with opened(queue) as queues:
        held_queue = _held(queues)
        work = queues.items if verb == "release" else None
        plan = Decision(choice, held_queue, work)
        if dry_run or not yes:
            with look_at(held_queue, queues) as look:
                for batch in look.batches():
                    plan.show(batch, lines=None if dry_run else SHOWN)
            if not _agreed(verb, plan, more=look.more, dry_run=dry_run):
                return 0
        decision = Decision(choice, held_queue, work, strange=plan.strange)
        with look_at(held_queue, queues) as look:
            for batch in look.batches():
                decision.settle([one for one in batch if yes or one.message_id in plan.met], look)
    return _tell(verb, decision, more=look.more)


def _agreed(verb: str, plan: Decision, *, more: bool, dry_run: bool) -> bool:
    """Whether it is to be done; what was not shown is not."""
    if len(plan.met) > SHOWN and not dry_run:
        echo(f"... and {counted(len(plan.met) - SHOWN, 'message')} more")
    if more:
        echo(f"(of the first {MOST:,} messages; there are more)")
    if dry_run:
        echo(f"would {verb} {counted(plan.keys, 'delete')}")
        return False
    if not plan.keys:
        echo(f"nothing to {verb}")
        return False
    if not click.confirm(f"{verb.capitalize()} {counted(plan.keys, 'delete')}?"):
        echo("nothing was done")
        return False
    return True


def _tell(verb: str, decision: Decision, *, more: bool) -> int:
    """Says what was done; the exit code."""
    echo(f"{'released' if verb == 'release' else 'discarded'} {counted(decision.keys, 'delete')}")
    if decision.strange:
        echo(f"replicator: {counted(decision.strange, 'message')} of another kind stayed: `held` shows them", err=True)
    for words in decision.refused:
        echo(f"replicator: done, but not deleted from {decision.held.name}, so it is listed again: {words}", err=True)
    if more:
        echo(f"replicator: looked at {MOST:,} messages, and there are more: run it again", err=True)
    return 1 if decision.refused or decision.strange else 0


def _held(queues: Queues) -> Queue:
    if queues.held is None:
        raise ConfigurationError(f"{queues.changes.name} has no hold queue: set HOLD_QUEUE_URL")
    return queues.held
