"""The geometry of the report's charts: samples, rates, ticks, lines and bars. Pure; the template only draws them.

Lengths are those of the view box, WIDTH wide. A phone shows it at about its own size, so that labels stay readable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from replicator.sizes import bytes_in_words, unit_of

MOST_SAMPLES = 600
MOST_INTERVALS = 100
"""More than three units to an interval: anything finer is noise, and a very short one would look like a peak."""

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 12, 28
FOOT = HEIGHT - BOTTOM

BAR_LEFT, BAR_ROOM, BAR_STEP = 112, 156, 22

DAY = 86400.0
TIME_UNITS = ((DAY, "d"), (3600, "h"), (60, "min"), (0, "s"))
TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, DAY)

BUCKETS = 18
"""0 B, 1 B to 1 KiB, fifteen powers of 4 from there to 1 TiB, and all above."""


class Sample(NamedTuple):
    """Figures of the whole run so far, `seconds` after it began."""

    seconds: float
    objects: int
    bytes: int
    throttled: int


class Interval(NamedTuple):
    """What happened from `start` to `end`, in seconds of the run: rates per second, and throttled answers."""

    start: float
    end: float
    objects: float
    bytes: float
    throttled: int


class Tick(NamedTuple):
    """A mark of an axis, at a length from the left or the top."""

    at: float
    label: str


class Band(NamedTuple):
    """A time in which a store throttled."""

    x: float
    width: float


class Bar(NamedTuple):
    """One row of the histogram."""

    label: str
    objects: int
    y: int
    width: float


@dataclass(frozen=True, slots=True)
class LineChart:
    """A rate over time. summary: what it shows, in a sentence. line, area: points as SVG has them."""

    name: str
    title: str
    summary: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    line: str
    area: str
    bands: tuple[Band, ...]


class Timeline:
    """Samples of a run of any length: when there are too many, every second one is dropped.

    The one that came last is always kept.
    """

    def __init__(self) -> None:
        self._kept: list[Sample] = []
        self._last: Sample | None = None
        self._seen = 0
        self._stride = 1

    def add(self, sample: Sample) -> None:
        """Takes the next sample, in order of time."""
        self._last = sample
        if self._seen % self._stride == 0:
            self._kept.append(sample)
        self._seen += 1
        if len(self._kept) == MOST_SAMPLES:
            del self._kept[1::2]
            self._stride *= 2

    @property
    def points(self) -> list[Sample]:
        """What is kept: at most MOST_SAMPLES, in order."""
        if self._last is None or self._last is self._kept[-1]:
            return list(self._kept)
        return [*self._kept, self._last]


def intervals(points: Sequence[Sample]) -> list[Interval]:
    """Rates between samples, from the beginning of the run, in at most MOST_INTERVALS. Empty if it took no time."""
    if not points or points[-1].seconds < 0.001:
        return []
    shortest = points[-1].seconds / MOST_INTERVALS
    bounds = [Sample(0.0, 0, 0, 0)]
    for point in points:
        if point.seconds - bounds[-1].seconds >= shortest:
            bounds.append(point)
    if len(bounds) > 1:
        bounds.pop()  # what is left at the end, too short to stand alone, belongs to the last interval
    bounds.append(points[-1])
    return [_between(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]


def _between(a: Sample, b: Sample) -> Interval:
    seconds = b.seconds - a.seconds
    objects, bytes_ = max(0, b.objects - a.objects) / seconds, max(0, b.bytes - a.bytes) / seconds
    return Interval(a.seconds, b.seconds, objects, bytes_, max(0, b.throttled - a.throttled))


def throughput(points: Sequence[Sample]) -> list[LineChart]:
    """The charts of bytes and of objects per second; none when there is nothing to see."""
    spans = intervals(points)
    if not any(span.objects or span.bytes for span in spans):
        return []
    of_bytes, of_objects = [span.bytes for span in spans], [span.objects for span in spans]
    unit = unit_of(max(of_bytes))
    return [
        _chart("bytes", "Bytes per second", spans, of_bytes, unit, bytes_in_words),
        _chart("objects", "Objects per second", spans, of_objects, ("", 1), rate_in_words),
    ]


def _chart(
    name: str,
    title: str,
    spans: Sequence[Interval],
    rates: Sequence[float],
    unit: tuple[str, int],
    words: Callable[[float], str],
) -> LineChart:
    end = spans[-1].end
    average = sum(rate * (span.end - span.start) for rate, span in zip(rates, spans, strict=True)) / end
    values = value_ticks(max(rates) / unit[1])
    top = values[-1] * unit[1]
    line = _steps(spans, rates, end, top)
    return LineChart(
        name,
        title,
        f"{words(average)}/s on average, {words(max(rates))}/s at most.",
        tuple(Tick(_x(at, end), label) for at, label in time_ticks(end)),
        tuple(Tick(_y(value, values[-1]), f"{value:,.10g} {unit[0]}".strip()) for value in values),
        line,
        f"{LEFT},{FOOT} {line} {WIDTH - RIGHT},{FOOT}",
        tuple(_bands(spans, end)),
    )


def _x(seconds: float, end: float) -> float:
    return round(LEFT + seconds / end * (WIDTH - LEFT - RIGHT), 1)


def _y(value: float, top: float) -> float:
    return round(FOOT - value / top * (FOOT - TOP), 1)


def _steps(spans: Sequence[Interval], rates: Sequence[float], end: float, top: float) -> str:
    """A level line for each interval: nothing is known about how the rate changed within it."""
    corners = []
    for span, rate in zip(spans, rates, strict=True):
        y = _y(rate, top)
        corners += [f"{_x(span.start, end)},{y}", f"{_x(span.end, end)},{y}"]
    return " ".join(corners)


def _bands(spans: Iterable[Interval], end: float) -> list[Band]:
    """Where throttled answers came; neighbours are one band."""
    bands: list[tuple[float, float]] = []
    for span in spans:
        if span.throttled and bands and bands[-1][1] == span.start:
            bands[-1] = (bands[-1][0], span.end)
        elif span.throttled:
            bands.append((span.start, span.end))
    return [Band(_x(a, end), round(max(2.0, _x(b, end) - _x(a, end)), 1)) for a, b in bands]


def value_ticks(top: float) -> list[float]:
    """Round numbers from 0 to at least `top`, six at most and two at least."""
    step = _round_step(top / 5) if top > 0 else 1.0
    return [n * step for n in range(max(1, math.ceil(top / step - 1e-9)) + 1)]


def time_ticks(end: float) -> list[tuple[float, str]]:
    """Seconds from 0 to at most `end`, each with its label, six at most."""
    rough = end / 5
    if rough <= 0.5:
        step = _round_step(rough)
    else:
        step = next((step for step in TIME_STEPS if step >= rough), None) or _round_step(rough / DAY) * DAY
    size, unit = next((size, unit) for size, unit in TIME_UNITS if step >= size)
    times = [n * step for n in range(math.floor(end / step + 1e-9) + 1)]
    return [(at, f"{at / (size or 1):.10g} {unit}" if at else "0") for at in times]


def _round_step(rough: float) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * (1 - 1e-9))


def rate_in_words(objects: float) -> str:
    """1234.5 -> "1,234 objects"; below ten, where it matters, with two digits."""
    return f"{objects:,.0f} objects" if objects >= 10 else f"{objects:.2g} objects"


def bucket_of(size: int) -> int:
    """The bar, from 0 to BUCKETS - 1, that an object of this size is counted in."""
    if size < 1024:
        return min(max(size, 0), 1)
    return min((size.bit_length() - 1) // 2 - 3, BUCKETS - 1)


def bucket_label(bucket: int) -> str:
    """The sizes of a bar in words; the upper one is not in it."""
    if bucket == 0:
        return "0 B"
    if bucket == 1:
        return "1 B – 1 KiB"
    lower, upper = (f"{size // unit_of(size)[1]} {unit_of(size)[0]}" for size in (4 ** (bucket + 3), 4 ** (bucket + 4)))
    return f"≥ {lower}" if bucket == BUCKETS - 1 else f"{lower} – {upper}"


def histogram(counts: Mapping[int, int]) -> list[Bar]:
    """Bars from the smallest bucket that is not empty to the largest; the fullest has all the room."""
    filled = [bucket for bucket, count in counts.items() if count]
    if not filled:
        return []
    most = max(counts.values())
    bars = []
    for row, bucket in enumerate(range(min(filled), max(filled) + 1)):
        count = counts.get(bucket, 0)
        width = max(1.0, round(count / most * BAR_ROOM, 1)) if count else 0.0
        bars.append(Bar(bucket_label(bucket), count, row * BAR_STEP, width))
    return bars
