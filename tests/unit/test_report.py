"""The report: every line is JSON for itself, whatever the key."""

from __future__ import annotations

import io
import json

import pytest

from replicator.bulk.report import JsonlReport, NoReport, open_report
from replicator.errors import AccessDenied, ConfigurationError
from replicator.model import Did, Evidence, Outcome
from tests.awkward import AWKWARD_KEYS


def lines_of(*outcomes):
    stream = io.StringIO()
    report = JsonlReport(stream)
    for outcome in outcomes:
        report.add(outcome)
    return stream.getvalue()


def test_a_line_has_all_of_an_outcome():
    outcome = Outcome(
        "dir/key",
        "s3://to/",
        Did.COPIED,
        "not at the target",
        Evidence.ETAG,
        bytes=5,
        seconds=0.12345678,
        not_kept=("tags", "metadata a"),
    )
    assert json.loads(lines_of(outcome)) == {
        "key": "dir/key",
        "target": "s3://to/",
        "action": "copied",
        "reason": "not at the target",
        "evidence": "etag",
        "bytes": 5,
        "seconds": 0.123457,
        "not_kept": ["tags", "metadata a"],
        "error": None,
    }


def test_a_failure_names_its_kind_and_its_reason():
    error = AccessDenied("GetObject", "from/key", "not yours", code="AccessDenied")
    line = json.loads(lines_of(Outcome("key", "s3://to/", Did.FAILED, str(error), failure=error)))
    assert (line["action"], line["error"]) == ("failed", "AccessDenied")
    assert "not yours" in line["reason"]


@pytest.mark.parametrize("did", list(Did))
def test_every_outcome_has_a_word(did):
    assert json.loads(lines_of(Outcome("key", "s3://to/", did, "")))["action"] == did.value


def test_every_key_is_one_line_and_comes_back_as_it_was():
    keys = [*AWKWARD_KEYS, "\u2028\u2029\x85", "lone \udc80 surrogate", '"},{"']
    text = lines_of(*(Outcome(key, "s3://to/", Did.COPIED, key) for key in keys))
    assert text.isascii()
    assert text.endswith("\n")
    assert [json.loads(line)["key"] for line in text.splitlines()] == keys


def test_a_report_is_a_file_that_is_complete_when_it_is_closed(tmp_path):
    path = tmp_path / "report.jsonl"
    path.write_text("of another run\n" * 100)
    with open_report(path) as report:
        for n in range(3):
            report.add(Outcome(f"key {n}", "s3://to/", Did.COPIED, ""))
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["key 0", "key 1", "key 2"]


def write_and_stop(path):
    with open_report(path) as report:
        report.add(Outcome("key", "s3://to/", Did.COPIED, ""))
        raise KeyboardInterrupt


def test_a_report_keeps_what_was_done_before_the_run_was_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(tmp_path / "report.jsonl")
    assert json.loads((tmp_path / "report.jsonl").read_text())["key"] == "key"


def test_no_report_is_wanted():
    with open_report(None) as report:
        report.add(Outcome("key", "s3://to/", Did.COPIED, ""))
        assert isinstance(report, NoReport)


@pytest.mark.parametrize("where", ["missing/report.jsonl", "."])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_done(tmp_path, where):
    began = []
    with pytest.raises(ConfigurationError, match="--report .*: ") as caught, open_report(tmp_path / where):
        began.append(where)
    assert str(tmp_path / where) in str(caught.value)
    assert not began
