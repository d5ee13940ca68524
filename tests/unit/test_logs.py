"""Where the log goes, that a name cannot forge a line of it, and that a log in trouble stops nothing."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
import time
from datetime import UTC, datetime, timedelta

import pytest

from replicator.errors import ConfigurationError
from replicator.logs import KEEP, ROTATE_AT, logger, printable, start_logging

HOSTILE = "a\n2026-11-20T12:00:00Z INFO deleted everything\r\x1b[2J\x85\u2028\u202e\udcff.dat"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO uploaded a/b.dat to s3://bucket/a/b.dat")

needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def upload(name="a/b.dat"):
    logger.info("uploaded %s to s3://bucket/%s", name, name)


def console_of(environment, *names, as_json=False):
    """What comes on the console when these are uploaded."""
    console = io.StringIO()
    with start_logging(environment, json=as_json, stream=console):
        for name in names or ["a/b.dat"]:
            upload(name)
    return console.getvalue()


def file_at(path):
    return {"LOG_METHOD": "file", "LOG_PATH": str(path)}


# Where to


@pytest.mark.parametrize("environment", [{}, {"LOG_METHOD": "console"}, {"LOG_METHOD": "", "LOG_LEVEL": " "}])
def test_a_record_is_a_line_on_the_console_with_the_time_in_utc(environment):
    assert LINE.fullmatch(console_of(environment).removesuffix("\n"))


@pytest.mark.parametrize("as_json", [False, True])
def test_the_time_is_utc_wherever_the_program_runs(monkeypatch, as_json):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        hours = [f"{datetime.now(UTC) + timedelta(minutes=minutes):%Y-%m-%dT%H}" for minutes in (0, 30)]
        said = console_of({}, as_json=as_json)
        assert [hour for hour in hours if hour in said]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_console_is_stderr(capsys):
    with start_logging({}, json=False):
        upload()
    assert capsys.readouterr().err.endswith(" INFO uploaded a/b.dat to s3://bucket/a/b.dat\n")


def test_a_file_takes_all_lines_and_the_console_none(tmp_path):
    path = tmp_path / "here.log"
    assert console_of(file_at(path)) == ""
    assert console_of({**file_at(path), "LOG_METHOD": "FILE"}) == ""
    assert [bool(LINE.fullmatch(line)) for line in path.read_text().splitlines()] == [True, True]


@pytest.mark.parametrize("slash", ["", "/"])
def test_in_a_directory_the_file_is_called_replicator_log(tmp_path, slash):
    console_of(file_at(f"{tmp_path}{slash}"))
    assert LINE.fullmatch((tmp_path / "replicator.log").read_text().removesuffix("\n"))


def test_after_the_block_nothing_is_logged_and_the_logger_is_as_before():
    before = logger.level, logger.propagate, list(logger.handlers)
    console = io.StringIO()
    with start_logging({"LOG_LEVEL": "ERROR"}, json=False, stream=console):
        pass
    upload()
    assert console.getvalue() == ""
    assert (logger.level, logger.propagate, logger.handlers) == before


# Levels


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("DEBUG", ["DEBUG", "INFO", "WARNING", "ERROR"]),
        ("info", ["INFO", "WARNING", "ERROR"]),
        (None, ["INFO", "WARNING", "ERROR"]),
        ("Warning", ["WARNING", "ERROR"]),
        ("ERROR", ["ERROR"]),
    ],
)
def test_the_level_says_which_records_are_logged(level, expected):
    console = io.StringIO()
    with start_logging({"LOG_LEVEL": level} if level else {}, json=False, stream=console):
        for log in (logger.debug, logger.info, logger.warning, logger.error):
            log("said")
    assert [line.split()[1] for line in console.getvalue().splitlines()] == expected


# What is refused before anything is done


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL='loud': must be DEBUG, INFO, WARNING or ERROR"),
        ({"LOG_LEVEL": "10"}, "LOG_LEVEL='10': must be DEBUG, INFO, WARNING or ERROR"),
        ({"LOG_METHOD": "syslog"}, "LOG_METHOD='syslog': must be console or file"),
        ({"LOG_METHOD": "file"}, "LOG_PATH is not set: LOG_METHOD=file needs a file or a directory"),
        (file_at("/not/there.log"), "LOG_PATH='/not/there.log': No such file or directory"),
        (file_at("/not-there/"), "LOG_PATH='/not-there/': No such file or directory"),
    ],
)
def test_a_setting_that_is_no_good_is_named(environment, text):
    with pytest.raises(ConfigurationError) as refused, start_logging(environment, json=False):
        pytest.fail("it began")
    assert str(refused.value) == text
    assert not logger.handlers


@needs_permissions
def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ConfigurationError, match="cannot be written"), start_logging(file_at(tmp_path), json=False):
        pytest.fail("it began")


# Names that would be something else


def test_a_hostile_name_cannot_forge_a_line(tmp_path):
    console_of(file_at(tmp_path / "log"), HOSTILE)
    for text in (console_of({}, HOSTILE), (tmp_path / "log").read_text()):
        (line,) = text.splitlines()
        assert line.isprintable()
        assert r"uploaded a\n2026-11-20T12:00:00Z INFO deleted everything\r\x1b[2J\x85\u2028\u202e\udcff.dat" in line


def test_a_hostile_name_is_itself_again_when_read_from_json():
    (line,) = console_of({}, HOSTILE, as_json=True).splitlines()
    assert json.loads(line)["message"] == f"uploaded {HOSTILE} to s3://bucket/{HOSTILE}"


def test_a_traceback_is_on_the_line_of_its_record():
    console = io.StringIO()
    with start_logging({}, json=False, stream=console):
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logger.exception("failed")
    (line,) = console.getvalue().splitlines()
    assert r"ERROR failed\nTraceback" in line


@pytest.mark.parametrize("text", ["", "plain", "größer/ファイル.dat", r"back\slash"])
def test_what_can_be_printed_stays_as_it_is(text):
    assert printable(text) == text


# JSON


def test_a_line_of_json_has_time_level_message_and_what_is_extra():
    console = io.StringIO()
    with start_logging({}, json=True, stream=console):
        logger.warning("could not upload %s", "a", extra={"key": "a", "code": "AccessDenied"})
    record = json.loads(console.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.pop("time"))
    expected = {"level": "WARNING", "message": "could not upload a", "key": "a", "code": "AccessDenied"}
    assert record == expected


def test_a_file_may_be_json_too(tmp_path):
    console_of(file_at(tmp_path / "log"), as_json=True)
    assert json.loads((tmp_path / "log").read_text())["message"] == "uploaded a/b.dat to s3://bucket/a/b.dat"


# Rotation


def test_a_file_rotates_and_the_last_ones_are_kept(tmp_path):
    path = tmp_path / "log"
    with start_logging(file_at(path), json=False):
        for _ in range((KEEP + 3) * 4):
            upload("x" * (ROTATE_AT // 8))
    assert {entry.name for entry in tmp_path.iterdir()} == {"log", *(f"log.{n}" for n in range(1, KEEP + 1))}
    assert all(entry.stat().st_size <= ROTATE_AT for entry in tmp_path.iterdir())


@pytest.mark.parametrize("lose", [lambda path: path.rename(path.with_suffix(".1")), lambda path: path.unlink()])
def test_a_file_that_was_moved_or_removed_begins_anew(tmp_path, lose):
    path, console = tmp_path / "log", io.StringIO()
    with start_logging(file_at(path), json=False, stream=console):
        upload("before")
        lose(path)
        upload("after")
    (line,) = path.read_text().splitlines()
    assert line.endswith("uploaded after to s3://bucket/after")
    assert console.getvalue() == ""


# Trouble while it runs


@needs_dev_full
def test_a_full_disk_is_said_once_and_stops_nothing():
    console = console_of(file_at("/dev/full"), "one", "two", "x" * 100_000)
    assert console == "replicator: the log /dev/full cannot be written (No space left on device); going on\n"


def test_a_directory_that_vanished_is_said_once_and_the_log_goes_on_when_it_is_back(tmp_path):
    directory, console = tmp_path / "logs", io.StringIO()
    directory.mkdir()
    with start_logging(file_at(directory), json=False, stream=console):
        (directory / "replicator.log").unlink()
        directory.rmdir()
        upload("one")
        upload("two")
        directory.mkdir()
        upload("three")
    (line,) = (directory / "replicator.log").read_text().splitlines()
    assert "uploaded three" in line
    assert console.getvalue().count("\n") == 1
    assert "No such file or directory" in console.getvalue()


class Gone(io.StringIO):
    """A console whose terminal was closed."""

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def closed():
    console = io.StringIO()
    console.close()
    return console


@pytest.mark.parametrize("console", [Gone(), closed()])
@pytest.mark.parametrize("environment", [{}, pytest.param(file_at("/dev/full"), marks=needs_dev_full)])
def test_a_console_that_is_gone_stops_nothing(capsys, console, environment):
    with start_logging(environment, json=False, stream=console):
        upload()
    assert capsys.readouterr().err == ""


def test_a_wrong_call_of_the_logger_is_not_hidden(capsys):
    with start_logging({}, json=False):
        logger.info("%s and %s", "one")
    assert "not enough arguments" in capsys.readouterr().err
