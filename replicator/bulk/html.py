"""The report for people: one HTML page about a run, complete in itself, of bounded size whatever the run's."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from replicator.bulk import charts
from replicator.errors import ConfigurationError
from replicator.logs import printable
from replicator.model import Did, Outcome

MOST_FAILURES = 1000
MOST_REASON = 500
MOST_LOSSES = 100
MOST_LOSS = 200
OTHERS = "others"


class _Failures:
    """What failed when it was last tried, as far as outcomes tell: the first ones in full, a count of the others."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.beyond = 0

    def add(self, outcome: Outcome) -> None:
        """Notes a failure, once however often it is tried, or that an earlier one has been put right."""
        at = (outcome.key, outcome.target)
        if outcome.did is not Did.FAILED:
            if self.kept:
                self.kept.pop(at, None)
        elif at in self.kept or len(self.kept) < MOST_FAILURES:
            self.kept[at] = _clipped(outcome.reason, MOST_REASON)
        else:
            self.beyond += 1


class _Losses:
    """What targets could not keep. Names of metadata are anybody's, so that only the first kinds have their own row."""

    def __init__(self) -> None:
        self.by_kind: dict[str, Counter[str]] = {}
        self.others: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Counts each loss at its target."""
        for loss in outcome.not_kept:
            kind = _clipped(loss, MOST_LOSS)
            if kind not in self.by_kind and len(self.by_kind) >= MOST_LOSSES:
                self.others[outcome.target] += 1
            else:
                self.by_kind.setdefault(kind, Counter())[outcome.target] += 1

    def rows(self, targets: Sequence[str]) -> list[tuple[str, list[int]]]:
        """Each kind with a number for each target; those without a row of their own come last."""
        rows = [(kind, [counts[target] for target in targets]) for kind, counts in sorted(self.by_kind.items())]
        if self.others:
            rows.append((OTHERS, [self.others[target] for target in targets]))
        return rows


class HtmlReport:
    """Takes outcomes and figures as they come, and makes a page of them at the end."""

    def __init__(self) -> None:
        self._did: dict[str, Counter[Did]] = {}
        self._sizes: Counter[int] = Counter()
        self._failures = _Failures()
        self._losses = _Losses()
        self._timeline = charts.Timeline()

    def add(self, outcome: Outcome) -> None:
        """Notes one outcome."""
        self._did.setdefault(outcome.target, Counter())[outcome.did] += 1
        if outcome.did is Did.COPIED:
            self._sizes[charts.bucket_of(outcome.bytes)] += 1
        self._failures.add(outcome)
        self._losses.add(outcome)

    def flush(self) -> None:
        """Does nothing: the page is written at the end."""

    def sample(self, seconds: float, objects: int, bytes_: int, throttled: int) -> None:
        """Notes figures of the whole run so far, `seconds` after it began. Samples come in order of time."""
        self._timeline.add(charts.Sample(seconds, objects, bytes_, throttled))

    def write(
        self,
        path: Path,
        *,
        title: str,
        facts: Sequence[tuple[str, str]],
        problem: str,
        failed: int | None = None,
    ) -> None:
        """Writes the page; whoever reads the path sees the old file or the whole new one.

        problem: why the run is not complete, or "". failed: keys that failed when they were last tried; without it,
        what the outcomes tell, where those beyond the first MOST_FAILURES count once for each try.
        Raises ConfigurationError when the file cannot be written.
        """
        if failed is None:
            failed = len(self._failures.kept) + self._failures.beyond
        headline = {"title": title, "facts": facts, "problem": problem, "failed": failed}
        _replace(path, _render({**headline, **self._findings(failed)}))

    def _findings(self, failed: int) -> dict[str, object]:
        """All that the template shows beside what it is told."""
        targets = list(self._did)
        points = self._timeline.points
        failures = [(key, target, why) for (key, target), why in self._failures.kept.items()] if failed else []
        seen: Counter[Did] = sum(self._did.values(), Counter())
        return {
            "targets": targets,
            "outcomes": [(did.value, [self._did[target][did] for target in targets]) for did in Did if seen[did]],
            "charts": charts.throughput(points),
            "sampled": bool(points),
            "throttled": points[-1].throttled if points else 0,
            "bars": charts.histogram(self._sizes),
            "copied": seen[Did.COPIED],
            "losses": self._losses.rows(targets),
            "failures": failures,
            "more": max(0, failed - len(failures)),
            "retried": seen[Did.FAILED] > 0,
            "settled": max(0, len(failures) - failed),
            "view": charts,
        }


def check_writable(path: Path) -> None:
    """Raises ConfigurationError when a report could not be written to this path; leaves everything as it was."""
    final = Path(os.path.realpath(path))
    fresh = _beside(final)
    try:
        _check_replaceable(final)
        fresh.touch(exist_ok=False)  # only trying tells: a disk can be full, and root may write where nobody can
        fresh.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _replace(path: Path, page: str) -> None:
    """Puts the page where `path` leads to, also through links, at once."""
    final = Path(os.path.realpath(path))
    fresh = _beside(final)
    try:
        _check_replaceable(final)
        try:
            with fresh.open("x", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(page)
            os.replace(fresh, final)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _beside(final: Path) -> Path:
    """A new name in the same directory: only within a file system a file is replaced at once."""
    return final.with_name(f".replicator-{secrets.token_hex(8)}.tmp")


def _check_replaceable(final: Path) -> None:
    """Raises OSError for what is there and must not be replaced: for root, even /dev/null could be."""
    try:
        mode = final.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is no regular file")
    if not os.access(final, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"--html {path}: {error.strerror or error}")


def _render(values: Mapping[str, object]) -> str:
    from jinja2 import Environment, StrictUndefined  # here, since a run without --html should not pay for it

    template = files("replicator.bulk").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, finalize=_visible, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = "{:,}".format
    return environment.from_string(template).render(values)


def _visible(value: object) -> object:
    """What a key could do to a page or to the eye is spelled out: control characters, direction marks, surrogates.

    The template passes each value through this, before it is escaped.
    """
    return printable(value) if isinstance(value, str) else value


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
