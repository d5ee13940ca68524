"""The local engine: passes over all listings until a pass finds nothing to do.

A pass begins as one range, all keys. Workers list ranges and converge what differs (jobs.py); while one has nothing
to do, a range is cut in two (schedule.py). When all ranges are done, and all listings have come to their end, what only
the targets list is deleted: each key is converged, which asks the source for it.

What is not done yet is in the checkpoint, so that a run that is stopped or killed goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from replicator.bulk.brakes import check_deletes
from replicator.bulk.checkpoint import Checkpoint
from replicator.bulk.crew import Crew, Lost
from replicator.bulk.plan import MOST_PASSES, Plan
from replicator.bulk.report import Report
from replicator.bulk.schedule import Schedule
from replicator.bulk.splitting import honours_start
from replicator.bulk.tally import Tally
from replicator.bulk.tasks import (
    Counts,
    Finished,
    Gone,
    KeysTask,
    Message,
    Outcomes,
    Pass,
    Pulse,
    Range,
    ScanTask,
    Settled,
    Split,
    SplitTask,
)
from replicator.errors import AccessDenied, NoSuchBucket, Refused, ReplicatorError
from replicator.model import Deletes, Did, Outcome
from replicator.store import ObjectStore, SourceStore

COMMIT_EVERY = 1.0
"""Seconds between two commits of the checkpoint."""

KEYS_AHEAD = 2
"""Batches of keys that each worker has at once."""


class Migration:
    """One run from a source to its targets, by a crew of workers.

    source, targets: to ask for what concerns the whole run; the crew has its own. keys: the keys to converge, in
    batches, instead of what is listed. clock: seconds since the epoch. Counts what it does in `tally`.
    """

    def __init__(
        self,
        source: SourceStore,
        targets: Sequence[ObjectStore],
        plan: Plan,
        *,
        crew: Crew,
        checkpoint: Checkpoint,
        report: Report,
        tally: Tally,
        keys: AsyncIterator[Sequence[str]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._targets = targets
        self._plan = plan
        self._crew = crew
        self._checkpoint = checkpoint
        self._report = report
        self._keys = keys
        self._clock = clock
        self._began = 0.0
        self._schedule = Schedule((), ())
        self._alive = set(crew.workers)
        self._posted: dict[int, tuple[int, Sequence[str]]] = {}
        self._again: list[Sequence[str]] = []
        self._trying_again = False
        self._committed = time.monotonic()
        self.tally = tally

    async def run(self) -> Tally:
        """Runs to the end: until a pass writes nothing that helps, or through the keys given.

        Raises Refused before anything is deleted when a brake says so, and the StoreError of a listing that failed:
        nothing is deleted in a pass whose listings did not come to their end.
        """
        await self._source.check()
        try:
            if self._keys is not None:
                self.tally.start_pass()
                self._checkpoint.start_pass()
                await self._converge_keys(self._keys, done=self._count)
                await self._try_again()
            else:
                await self._passes()
            self._finish()
        except Refused:
            self._finish()  # what a person puts right has to be listed again
            raise
        except BaseException:
            self._save()
            raise
        return self.tally

    @property
    def still_changing(self) -> bool:
        """Whether the last pass still found something to write, where nobody said that something else will."""
        return (
            not self._plan.dry_run
            and self._keys is None
            and self.tally.pass_writes > 0
            and self._plan.passes >= MOST_PASSES
        )

    async def _passes(self) -> None:
        await self._take_up()
        while True:
            await self._scan()
            await self._try_again()
            await self._delete()
            if self._plan.dry_run or not self.tally.pass_writes or self.tally.passes >= self._plan.passes:
                return
            self._start_pass()

    async def _take_up(self) -> None:
        """Goes on with the run that the checkpoint tells of, or begins one."""
        saved = self._checkpoint.resume()
        starts = [one.after for one in self._checkpoint.ranges() if one.after][:1]
        everywhere = [(store, start) for store in (self._source, *self._targets) for start in starts]
        if saved is None or not all([await honours_start(store, start) for store, start in everywhere]):
            self._began = self._clock() + self._source.clock_skew
            self._start_pass()
            return
        self._began = saved["began"]
        self.tally.restore(saved["tally"])
        self.tally.pass_writes = max(1, self.tally.pass_writes)  # what was written last may not be counted

    def _start_pass(self) -> None:
        self.tally.start_pass()
        self._checkpoint.start_pass()
        self._save()

    def _during(self) -> Pass:
        number = self.tally.passes
        every = self._plan.deep and (number == 1 or self.tally.failed_before > 0)
        return Pass(number, self._began if number > 1 else None, every, last=number >= self._plan.passes)

    async def _scan(self) -> None:
        """Has all ranges done that are not. Raises the error of one that could not be listed, after the others."""
        self._schedule = Schedule(self._checkpoint.ranges(), self._alive)
        problem: Exception | None = None
        await self._hand_out()
        while not self._schedule.done:
            message = await self._next()
            if isinstance(message, Finished):
                problem = self._range_ended(message) or problem
            elif isinstance(message, Split):
                cut = self._schedule.split(message.id, message.at)
                if cut is not None:
                    self._checkpoint.replace(cut[0], cut[1:])
            await self._hand_out()
        if problem is not None:
            raise problem
        self.tally.listing_done = True

    async def _hand_out(self) -> None:
        while (given := self._schedule.give()) is not None:
            await self._crew.post(given.worker, ScanTask(given.id, given.range, self._during()))
        asked = self._schedule.ask()
        if asked is not None:
            await self._crew.post(asked[0], SplitTask(asked[1]))

    def _range_ended(self, message: Finished) -> Exception | None:
        """Takes a range off the list, unless it could not be listed. Raises what concerns the whole bucket."""
        if message.error is None:
            left = self._schedule.finished(message.id)
            if left is not None:
                self._checkpoint.replace(left, ())
            return None
        if isinstance(message.error, (AccessDenied, NoSuchBucket)):
            raise message.error
        self._schedule.fail(message.id)
        return message.error

    async def _try_again(self) -> None:
        """Has the keys that failed in this pass converged once more, so that only those count that fail again.

        One whose bytes arrived, and its tags did not, would look in sync to the listings of every later pass.
        """
        if not self._plan.dry_run and self.tally.failed:
            self._trying_again = True
            await self._converge_keys(_each(self._checkpoint.failed()))
            self._trying_again = False

    async def _delete(self) -> None:
        """Deletes what only the targets list, if no brake holds it back."""
        if self._plan.deletes is Deletes.KEEP:
            return
        names = [store.name for store in self._targets]
        if self._plan.dry_run:  # first name them, then say that they would be held back
            await self._converge_keys(_each(self._checkpoint.candidates()))
        before = [self.tally.deleted_before[name] for name in names]
        check_deletes(self.tally.counts, names, self._source.name, self._plan.max_delete, before=before)
        if not self._plan.dry_run:
            await self._converge_keys(_each(self._checkpoint.candidates()), done=self._checkpoint.remove_candidates)

    async def _converge_keys(
        self, batches: AsyncIterator[Sequence[str]], *, done: Callable[[Sequence[str]], None] | None = None
    ) -> None:
        """Has batches of keys converged, a few at once at each worker; done: told which."""
        number = 0
        while True:
            while (worker := self._with_room()) is not None:
                batch = self._again.pop() if self._again else await anext(batches, None)
                if batch is None:
                    break
                number -= 1  # ranges have the numbers above 0
                self._posted[number] = worker, batch
                await self._crew.post(worker, KeysTask(number, tuple(batch), self._during()))
            if not self._posted:
                return
            message = await self._next()
            if isinstance(message, Finished) and message.id in self._posted:
                _, batch = self._posted.pop(message.id)
                if done is not None:
                    done(batch)

    def _count(self, keys: Sequence[str]) -> None:
        self.tally.counts.source += len(keys)

    def _with_room(self) -> int | None:
        """The worker with the fewest batches, if it could do with one more."""
        load = dict.fromkeys(sorted(self._alive), 0)
        for worker, _ in self._posted.values():
            load[worker] += 1
        least = min(load, key=load.__getitem__)
        return least if load[least] < KEYS_AHEAD else None

    async def _next(self) -> Finished | Split | None:
        """Takes in the next message; gives it back when it is about a task. After any there may be work to hand out."""
        if time.monotonic() - self._committed > COMMIT_EVERY:
            self._save()
        worker, message = await self._crew.receive()
        if isinstance(message, Lost):
            self._lost(worker, message)
        elif isinstance(message, (Finished, Split)):
            return message
        else:
            self._take_in(message)
        return None

    def _take_in(self, message: Message) -> None:
        match message:
            case Settled(number, through, counts):
                self._settled(number, through, counts)
            case Outcomes(outcomes):
                for outcome in outcomes:
                    self._note(outcome)
            case Gone(keys):
                self._checkpoint.add_candidates(keys)
            case Pulse(pages=pages):
                self.tally.pulse(message)
                for number, count in pages:
                    self._schedule.listed(number, count)

    def _note(self, outcome: Outcome) -> None:
        self.tally.add(outcome)
        if outcome.did is Did.FAILED:
            self.tally.failed += self._checkpoint.add_failed(outcome.key, outcome.target)
            if self._trying_again:
                return  # it is in the report already
        elif self.tally.failed:
            self.tally.failed -= self._checkpoint.remove_failed(outcome.key, outcome.target)
        if self.tally.passes == 1 or outcome.did not in (Did.IN_SYNC, Did.SKIPPED):
            self._report.add(outcome)

    def _settled(self, number: int, through: str, counts: Counts) -> None:
        """Counts what is done, and keeps it from being done again."""
        before = self._schedule.settled(number, through)
        if before is not None:
            self.tally.counts.add(counts)
            self._checkpoint.replace(before, [Range(through, before.upto)])

    def _lost(self, worker: int, message: Lost) -> None:
        """A worker is no more: what it had is done again by the others. Raises ReplicatorError when there are none."""
        self._alive.discard(worker)
        self._schedule.lost(worker)
        self.tally.pass_writes += 1  # it may have written what it could not tell
        for number in [number for number, (who, _) in self._posted.items() if who == worker]:
            self._again.append(self._posted.pop(number)[1])
        if not self._alive:
            raise ReplicatorError(f"no worker is left: {message.reason}; what was done so far is kept: run it again")

    def _finish(self) -> None:
        self._report.flush()
        self._checkpoint.finish()

    def _save(self) -> None:
        self._report.flush()  # what counts as done has to be in the report
        self._checkpoint.save({"began": self._began, "tally": self.tally.to_json()})
        self._committed = time.monotonic()


async def _each(batches: Iterable[Sequence[str]]) -> AsyncIterator[Sequence[str]]:
    for batch in batches:
        yield batch
