"""Settles messages: what is done is deleted, what failed comes again later, what will never do is set aside.

That is done here, message by message, because Lambda does it only when the event source mapping was created with
FunctionResponseTypes, which `chalice deploy` does not do: without it, an invocation that returns deletes its whole
batch, and one that raises deletes nothing.

Messages are set aside here, and not by SQS's own redrive, so that the dead letter says why. That redrive stays for
those whose invocations die.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.errors import QueueError
from replicator.live.batch import Handled
from replicator.queues.queue import Outgoing, Queue, backoff

MOST_RECEIVES = 12
"""How often a message is tried: over an hour and twenty minutes, by the backoff."""


def is_final(one: Handled) -> bool:
    """Whether a message has failed for good, and is set aside if there is a place for it."""
    return one.error is not None and (one.poison or one.message.receive_count >= MOST_RECEIVES)


def settle(queue: Queue, dead_letters: Queue | None, handled: Sequence[Handled]) -> list[str]:
    """Settles each message of a queue. Returns what a queue refused, in words.

    Idempotent; a refusal means no more than that a message comes again sooner or once more. Raises QueueError when
    the queue does not answer.
    """
    done = [one.message for one in handled if one.error is None]
    failed = [one for one in handled if one.error is not None]
    finally_failed = [one for one in failed if is_final(one)]
    refused: list[str] = []
    if dead_letters is not None and finally_failed:
        try:
            dead_letters.send([Outgoing(one.message.body, one.error or "") for one in finally_failed])
        except QueueError as error:
            refused.append(str(error))
        else:
            done += [one.message for one in finally_failed]
    settled = {id(message) for message in done}
    later = [one.message for one in failed if id(one.message) not in settled]
    refused += queue.delete(done) if done else []
    waits = [(message, backoff(message.receive_count)) for message in later]
    return refused + (queue.put_off(waits) if waits else [])
