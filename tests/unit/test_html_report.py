"""The HTML report: whatever keys are called and however many there are, it is a small page that does nothing."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.bulk import charts
from replicator.bulk.charts import MOST_INTERVALS, MOST_SAMPLES, Sample, Timeline
from replicator.bulk.html import MOST_FAILURES, MOST_LOSSES, OTHERS, HtmlReport, check_writable
from replicator.errors import ConfigurationError
from replicator.model import Did, MiB, Outcome
from tests.awkward import AWKWARD_KEYS

HERE, THERE = "s3://here/", "s3://there/"
TiB = 1024**4
HOSTILE = (
    *AWKWARD_KEYS,
    "<img src=x onerror=\"document.title='pwned'\">",
    "<script>alert(1)</script>",
    "</td></table></main><iframe src='https://example.com'>",
    "\"' onmouseover='alert(1)' x=\"",
    "{{ 7 * 7 }}{% raw %}",
    "]]><!-- &#60;script&#62;",
    "nul\0 and \udc80 alone and \ud83d half",
    "right-to-left \u202egnp.exe \u2028 line",
)
HEADINGS = (
    "Facts",
    "Throughput over time",
    "Sizes of what was copied",
    "Outcomes",
    "What targets could not keep",
    "Failures",
)
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a browser makes of a page, as far as the tests ask: elements, tables by section, visible text."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.open = []
        self.words = {}
        self.rows = {}
        self.section = "top"
        self.feed(text)
        self.close()
        assert not self.open, "elements that are not closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attributes)["aria-labelledby"].removesuffix("-title")
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words[self.section] = self.words.get(self.section, "") + data
        if {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def written(tmp_path):
    """Writes a report and reads the page back."""

    def write(report, **more):
        path = tmp_path / "report.html"
        report.write(path, **{"title": "s3://a -> s3://b", "facts": [("compared", "3")], "problem": "", **more})
        return Page(path.read_text(encoding="utf-8"))

    return write


def report_of(*outcomes):
    report = HtmlReport()
    for outcome in outcomes:
        report.add(outcome)
    return report


def copied(size=5, target=HERE, **more):
    return Outcome("key", target, Did.COPIED, "not at the target", bytes=size, **more)


def failed(key="key", reason="PutObject: AccessDenied", target=HERE):
    return Outcome(key, target, Did.FAILED, reason)


def shown(text):
    """A text as the page has it: nothing that cannot be seen, and all of the rest."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


# What it says


def test_outcomes_have_a_row_for_what_was_done_and_a_column_for_each_target(written):
    page = written(report_of(copied(), copied(), copied(target=THERE), Outcome("k", THERE, Did.IN_SYNC, "same")))
    assert page.rows["outcomes"] == [
        ["What was done", HERE, THERE],
        ["copied", "2", "1"],
        ["in sync", "0", "1"],
    ]


def test_losses_are_counted_for_each_target(written):
    page = written(report_of(copied(not_kept=("tags", "metadata a")), copied(target=THERE, not_kept=("tags",))))
    assert page.rows["losses"] == [["Not kept", HERE, THERE], ["metadata a", "1", "0"], ["tags", "1", "1"]]


def test_a_failure_stands_with_its_key_target_and_reason(written):
    page = written(report_of(failed("dir/one", "not yours", THERE)))
    assert page.rows["failures"] == [["Key", "Target", "Reason"], ["dir/one", THERE, "not yours"]]


def test_facts_and_title_are_shown_as_they_were_given(written):
    page = written(HtmlReport(), title="from -> to", facts=[("passes", "2"), ("seconds", "1.5")])
    assert page.rows["facts"] == [["passes", "2"], ["seconds", "1.5"]]
    assert page.words["top"].count("from -> to") == 2


@pytest.mark.parametrize(
    ("outcomes", "more", "colour", "said", "unsaid"),
    [
        ([copied()], {}, "good", ["All well."], ["failed", "Not complete"]),
        ([copied(), failed("other")], {}, "bad", ["1 failed."], ["All well", "Not complete"]),
        ([copied()], {"problem": "stopped: no"}, "bad", ["Not complete: stopped: no"], ["All well", "failed"]),
        ([failed()], {"problem": "stopped: no"}, "bad", ["Not complete: stopped: no", "1 failed."], ["All well"]),
        ([], {}, "", ["Nothing to do."], ["All well", "failed", "Not complete"]),
    ],
)
def test_the_headline_is_the_result(written, outcomes, more, colour, said, unsaid):
    page = written(report_of(*outcomes), **more)
    top = page.words["top"].split("</style>")[-1]
    assert [a["class"].split()[1:] for a in page.all("div") if a.get("id") == "result"] == [colour.split()]
    assert [words for words in said if words not in top] == []
    assert [words for words in unsaid if words in top] == []


def test_a_failure_that_a_later_pass_put_right_is_no_failure(written):
    page = written(report_of(failed("one"), failed("two"), Outcome("one", HERE, Did.COPIED, "")))
    assert "1 failed." in page.words["top"]
    assert [row[0] for row in page.rows["failures"][1:]] == ["two"]


def test_a_key_that_fails_in_every_pass_failed_once_for_its_last_reason(written):
    page = written(report_of(failed(reason="first"), failed(reason="last")))
    assert "1 failed." in page.words["top"]
    assert page.rows["failures"][1:] == [["key", HERE, "last"]]


def test_the_caller_may_know_better_how_many_failed_in_the_end(written):
    report = report_of(failed("one"), failed("two"))
    page = written(report, failed=0)
    assert "All well." in page.words["top"]
    assert "failures" not in page.rows
    assert "found well in a later pass" in page.words["failures"]
    assert "1 of these was found well" in written(report, failed=1).words["failures"]


# The charts


def test_the_histogram_has_a_bar_for_each_size_between_the_smallest_and_the_largest(written):
    page = written(report_of(copied(0), copied(1), copied(1023), copied(4096), Outcome("k", HERE, Did.METADATA, "")))
    assert "0 B: 1; 1 B – 1 KiB: 2; 1 KiB – 4 KiB: 0; 4 KiB – 16 KiB: 1." in page.words["sizes"]


@pytest.mark.parametrize(
    ("size", "label"),
    [
        (0, "0 B"),
        (1, "1 B – 1 KiB"),
        (1023, "1 B – 1 KiB"),
        (1024, "1 KiB – 4 KiB"),
        (4095, "1 KiB – 4 KiB"),
        (4096, "4 KiB – 16 KiB"),
        (MiB - 1, "256 KiB – 1 MiB"),
        (MiB, "1 MiB – 4 MiB"),
        (TiB - 1, "256 GiB – 1 TiB"),
        (TiB, "≥ 1 TiB"),
        (5000 * TiB, "≥ 1 TiB"),
    ],
)
def test_a_size_is_counted_in_the_bar_that_names_it(size, label):
    assert charts.bucket_label(charts.bucket_of(size)) == label


def test_every_bar_has_a_name_of_its_own_and_the_fullest_has_all_the_room():
    bars = charts.histogram({bucket: bucket + 1 for bucket in range(charts.BUCKETS)})
    assert len({bar.label for bar in bars}) == charts.BUCKETS
    assert [bar.width for bar in bars] == sorted(bar.width for bar in bars)
    assert bars[-1].width == charts.BAR_ROOM
    assert [bar.width > 0 for bar in charts.histogram({0: 10**9, 2: 1})] == [True, False, True]


def test_rates_are_differences_of_what_is_handed_over_from_the_beginning_on():
    points = [Sample(2, 10, 100, 0), Sample(4, 10, 500, 3)]
    assert charts.intervals(points) == [(0, 2, 5, 50, 0), (2, 4, 0, 200, 3)]


def test_an_interval_too_short_to_be_seen_is_no_peak():
    points = [Sample(10, 10, 100, 0), Sample(10.001, 20, 200, 0)]
    assert [(span.end, round(span.objects)) for span in charts.intervals(points)] == [(10.001, 2)]
    many = [Sample(n, n, n, 0) for n in range(1, 601)]
    assert len(charts.intervals(many)) <= MOST_INTERVALS
    assert charts.intervals(many)[-1].end == 600


def test_throughput_is_drawn_with_labelled_axes(written):
    report = report_of(copied())
    for n in range(1, 7):
        report.sample(n * 10.0, n * 100, n * 50 * MiB, 0)
    page = written(report)
    drawn = page.words["throughput"]
    assert "5.0 MiB/s on average, 5.0 MiB/s at most." in drawn
    assert "10 objects/s on average, 10 objects/s at most." in drawn
    assert re.findall(r"\d+ MiB(?!/)|\d+ s", drawn)[:7] == [*(f"{n} MiB" for n in range(6)), "15 s"]
    assert "slow down" not in drawn
    first, _ = (attributes["points"] for attributes in page.all("polyline"))
    assert first.split()[0] == f"{float(charts.LEFT)},{float(charts.TOP)}", "an even rate, as high as the axis"
    assert first.split()[-1] == f"{float(charts.WIDTH - charts.RIGHT)},{float(charts.TOP)}"


def test_throttling_is_marked_where_it_happened(written):
    report = report_of(copied())
    for n, throttled in enumerate((0, 2, 5, 5, 6), start=1):
        report.sample(n * 10.0, n, n, throttled)
    page = written(report)
    bands = [float(attributes["x"]) for attributes in page.all("rect") if attributes["class"] == "band"]
    width = charts.WIDTH - charts.LEFT - charts.RIGHT
    assert bands == [pytest.approx(charts.LEFT + width * part, abs=0.1) for part in (1 / 5, 4 / 5)] * 2
    assert "a store asked to slow down, 6 times in all" in page.words["throughput"]


@given(st.just(0.0) | st.floats(1e-12, 1e18))
def test_ticks_of_values_reach_the_top_and_are_few(top):
    ticks = charts.value_ticks(top)
    assert ticks[0] == 0
    assert top <= ticks[-1] * (1 + 1e-6)
    assert 2 <= len(ticks) <= 6


@given(st.floats(0.001, 1e9))
def test_ticks_of_time_stay_within_the_run_and_are_few(end):
    ticks = charts.time_ticks(end)
    assert all(at <= end * (1 + 1e-6) for at, _ in ticks)
    assert 2 <= len(ticks) <= 6
    assert len({label for _, label in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("end", "labels"),
    [
        (0.8, ["0", "0.2 s", "0.4 s", "0.6 s", "0.8 s"]),
        (60, ["0", "15 s", "30 s", "45 s", "60 s"]),
        (750, ["0", "5 min", "10 min"]),
        (4 * 3600, ["0", "1 h", "2 h", "3 h", "4 h"]),
        (20 * 86400, ["0", "5 d", "10 d", "15 d", "20 d"]),
    ],
)
def test_ticks_of_time_are_round_in_the_unit_of_their_step(end, labels):
    assert [label for _, label in charts.time_ticks(end)] == labels


@given(st.lists(st.tuples(st.floats(0, 1e7), *[st.integers(0, 2**60)] * 3)))
def test_whatever_is_measured_is_drawn_within_the_chart(figures):
    columns = [sorted(column) for column in zip(*figures, strict=True)]
    for chart in charts.throughput([Sample(*row) for row in zip(*columns, strict=True)]):
        for point in chart.area.split():
            x, y = map(float, point.split(","))
            assert charts.LEFT <= x <= charts.WIDTH - charts.RIGHT
            assert charts.TOP <= y <= charts.FOOT


# When there is little to say


def test_a_page_about_nothing_has_all_sections_and_says_that_there_is_nothing(written):
    page = written(HtmlReport(), facts=[])
    assert [words for words in HEADINGS if words not in "".join(page.words.values())] == []
    assert "too short to be measured" in page.words["throughput"]
    assert "Nothing was copied." in page.words["sizes"]
    assert "No object was found." in page.words["outcomes"]
    assert "Nothing is known to be lost." in page.words["losses"]
    assert "Nothing failed." in page.words["failures"]
    assert not page.all("svg")
    assert not page.rows


@pytest.mark.parametrize("seconds", [0.0, 1e-300, 12.0])
def test_samples_without_anything_written_make_no_chart(written, seconds):
    report = report_of(Outcome("k", HERE, Did.IN_SYNC, "same"))
    report.sample(seconds, 0, 0, 0)
    page = written(report)
    assert "Nothing was written" in page.words["throughput"]
    assert not page.all("svg")


def test_one_sample_is_the_whole_run(written):
    report = report_of(copied())
    report.sample(4.0, 8, 4096, 0)
    page = written(report)
    assert "1.0 KiB/s on average" in page.words["throughput"]
    assert "2 objects/s on average" in page.words["throughput"]


# What keys cannot do


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_wherever_it_stands(written, text):
    outcomes = [Outcome(text, text, Did.FAILED, text), Outcome("key", text, Did.COPIED, text, not_kept=(text,))]
    harmless = [Outcome("a", "b", Did.FAILED, "c"), Outcome("key", "b", Did.COPIED, "d", not_kept=("e",))]
    page = written(report_of(*outcomes), title=text, facts=[(text, text)], problem=text)
    plain = written(report_of(*harmless), title="t", facts=[("f", "g")], problem="p")
    assert page.elements == plain.elements
    reason = shown(text) if len(text) <= 500 else shown(text)[:499] + "…"
    assert page.rows["failures"][1] == [shown(text), shown(text), reason]
    assert page.rows["facts"] == [[shown(text), shown(text)]]


def test_nothing_invisible_reaches_the_page(tmp_path):
    path = tmp_path / "report.html"
    report_of(*(Outcome(text, text, Did.FAILED, text) for text in HOSTILE)).write(
        path, title="\udc80", facts=[("\0", "\u202e")], problem="\x1b[31m"
    )
    assert [c for c in path.read_text(encoding="utf-8") if not c.isprintable() and c != "\n"] == []


def test_the_page_asks_for_nothing_and_runs_nothing(written, tmp_path):
    report = report_of(copied(), failed())
    report.sample(1.0, 1, 5, 0)
    page = written(report)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    loading = {"src", "srcset", "data", "action", "poster", "background", "xlink:href"}
    assert not [a for _, a in page.elements if loading & a.keys() or any(name.startswith("on") for name in a)]
    assert all(attributes["href"].startswith("#") for _, attributes in page.elements if "href" in attributes)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & {
        tag for tag, _ in page.elements
    }
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'; style-src 'unsafe-inline'" in text


def test_the_page_tells_those_who_cannot_see_it(written):
    report = report_of(copied(not_kept=("tags",)), failed())
    report.sample(1.0, 1, 5, 0)
    page = written(report)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert len(page.all("svg")) == 3
    assert all(attributes["role"] == "img" for attributes in page.all("svg"))
    labels = [a["aria-labelledby"].split() for _, a in page.elements if "aria-labelledby" in a]
    assert all(set(names) <= set(ids) for names in labels)
    assert page.all("html") == [{"lang": "en"}]
    assert [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)] == [
        "h1", "h2", "h2", "h3", "h3", "h2", "h2", "h2", "h2",
    ]  # fmt: skip


# How much it holds


def test_the_first_thousand_failures_are_shown_and_the_others_counted(written):
    page = written(report_of(*(failed(f"key {n:04}") for n in range(MOST_FAILURES + 2345))))
    rows = page.rows["failures"][1:]
    assert [rows[0][0], rows[-1][0], len(rows)] == ["key 0000", "key 0999", 1000]
    assert "3,345 failed." in page.words["top"]
    assert "and 2,345 more: --report FILE" in page.words["failures"]


def test_a_thousand_failures_are_all_of_them_however_often_they_are_tried(written):
    page = written(
        report_of(*(failed(f"key {n}") for n in range(MOST_FAILURES)), *(failed(f"key {n}") for n in range(9)))
    )
    assert "1,000 failed." in page.words["top"]
    assert "more" not in page.words["failures"]


def test_distinct_losses_beyond_the_first_hundred_are_others(written):
    names = [f"metadata name{n:04}" for n in range(MOST_LOSSES + 50)]
    outcomes = [copied(target=target, not_kept=(name,)) for target in (HERE, THERE) for name in names]
    page = written(report_of(*outcomes, copied(not_kept=(names[0], names[-1]))))
    rows = page.rows["losses"][1:]
    assert len(rows) == MOST_LOSSES + 1
    assert rows[0] == [names[0], "2", "1"]
    assert rows[-1] == [OTHERS, "51", "50"]


def test_long_reasons_and_losses_are_cut(written):
    page = written(report_of(failed("other", "r" * 10_000), copied(not_kept=("l" * 10_000,))))
    assert page.rows["failures"][1][2] == "r" * 499 + "…"
    assert page.rows["losses"][1][0] == "l" * 199 + "…"


def test_memory_is_bounded_whatever_the_number_of_objects():
    report = HtmlReport()

    def feed(numbers):
        for n in numbers:
            loss = (f"metadata {n} {'x' * 100}",)
            report.add(Outcome(f"failed {n}", HERE, Did.FAILED, f"reason {n} {'x' * 1000}"))
            report.add(Outcome(f"copied {n}", HERE, Did.COPIED, "", bytes=n * n, not_kept=loss))
            report.sample(n / 10, n, n * n, n)

    tracemalloc.start()
    try:
        feed(range(2000))
        before = tracemalloc.get_traced_memory()[0]
        feed(range(2000, 12_000))
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [1, 2, 599, 600, 601, 1200, 1201, 50_000])
def test_samples_are_thinned_evenly_and_the_first_and_the_last_stay(count):
    timeline = Timeline()
    for n in range(count):
        timeline.add(Sample(float(n), n, n, 0))
    times = [point.seconds for point in timeline.points]
    assert (times[0], times[-1]) == (0, count - 1)
    assert min(count, MOST_SAMPLES // 2) <= len(times) <= MOST_SAMPLES
    steps = [b - a for a, b in zip(times, times[1:-1], strict=False)]
    assert len(set(steps)) <= 1, "all but the last are equally far apart"
    assert times == sorted(set(times))


# How it gets to its file


def write(path, report=None):
    (report or HtmlReport()).write(path, title="t", facts=[], problem="")


def test_whoever_reads_the_path_sees_the_old_page_or_the_whole_new_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("the old page")
    with path.open() as reader:
        write(path)
        assert reader.read() == "the old page"
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert os.listdir(tmp_path) == ["report.html"]


@contextmanager
def files_no_larger_than(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_page_that_cannot_be_written_to_its_end_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("the old page")
    with files_no_larger_than(1000), pytest.raises(ConfigurationError, match="--html .*report.html: File too large"):
        write(path)
    assert path.read_text() == "the old page"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_link_stays_a_link_to_the_new_page(tmp_path):
    (tmp_path / "pages").mkdir()
    real, link = tmp_path / "pages" / "today.html", tmp_path / "latest.html"
    real.write_text("the old page")
    link.symlink_to(real)
    check_writable(link)
    write(link)
    assert link.is_symlink()
    assert "</html>" in real.read_text(encoding="utf-8")


def test_a_page_may_be_read_by_whom_the_umask_lets(tmp_path):
    umask = os.umask(0o027)
    try:
        write(tmp_path / "report.html")
    finally:
        os.umask(umask)
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("refuse", [check_writable, write])
@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("missing/report.html", "No such file or directory"),
        (".", "Is a directory"),
        ("file/report.html", "Not a directory"),
        ("pipe", "is no regular file"),
        ("n" * 300, "File name too long"),
        ("/proc/report.html", "No such file or directory|Permission denied"),  # not even for root
    ],
)
def test_a_path_that_cannot_be_written_is_refused_by_name(tmp_path, refuse, where, why):
    (tmp_path / "file").write_text("a file")
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / where
    with pytest.raises(ConfigurationError, match=f"--html {re.escape(str(path))}: ({why})"):
        refuse(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_is_not_ours_to_write_is_refused(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("precious")
    path.chmod(0o444)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        check_writable(path)


def test_trying_whether_a_path_can_be_written_leaves_everything_as_it_was(tmp_path):
    path = tmp_path / "report.html"
    check_writable(path)
    assert os.listdir(tmp_path) == []
    path.write_text("the old page")
    check_writable(path)
    assert os.listdir(tmp_path) == ["report.html"]
    assert path.read_text() == "the old page"


def test_a_run_without_a_page_does_not_pay_for_the_template_engine():
    code = "import sys, replicator.bulk.html; print('jinja2' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "False"
