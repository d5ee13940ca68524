"""The units and the line for cron: systemd takes them, the command takes their options, and they may do little."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from replicator.cli.main import cli

FOLDER = Path(__file__).parents[2] / "infra" / "systemd"
COMMAND = "/opt/replicator/bin/replicator"
SERVICES = ["replicator-push@.service", "replicator-watch@.service"]
SERVE = "replicator-serve.service"
UNITS = [*SERVICES, SERVE, "replicator-push@.timer"]
EXAMPLES = {SERVE: "serve.env"}

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


class ManyValues(dict):
    """An option that is given again adds to the one before, as systemd has it."""

    def __setitem__(self, key, value):
        if key in self and isinstance(value, list) and isinstance(self[key], list):
            value = [*self[key], *value]
        super().__setitem__(key, value)


def unit(name):
    """The sections of a unit; options that are given several times on as many lines."""
    parser = configparser.RawConfigParser(strict=False, dict_type=ManyValues, delimiters=("=",))
    parser.optionxform = str
    parser.read_string((FOLDER / name).read_text())
    return {section: dict(parser[section]) for section in parser.sections()}


def environment(name):
    """What the command of a service finds: the unit's own variables, overridden by those of its example."""
    own = [pair for line in unit(name)["Service"]["Environment"].splitlines() for pair in shlex.split(line)]
    example = (FOLDER / EXAMPLES.get(name, "example.env")).read_text().splitlines()
    given = [line for line in example if line and not line.startswith("#")]
    return dict(pair.split("=", 1) for pair in [*own, *(" ".join(shlex.split(line)) for line in given)])


def words(name):
    """The words of ExecStart: $NAME is split at blanks, ${NAME} is one word."""
    variables = environment(name)
    found = []
    for word in unit(name)["Service"]["ExecStart"].split():
        if split := re.fullmatch(r"\$([A-Z_]+)", word):
            found += shlex.split(variables[split[1]])
        else:
            found.append(re.sub(r"\$\{([A-Z_]+)\}", lambda match: variables[match[1]], word))
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_the_command_takes_the_options_that_a_service_gives(name):
    program, verb, *arguments = words(name)
    assert program == COMMAND
    command = cli.get_command(click.Context(cli), verb)
    values, rest, _ = command.make_parser(click.Context(command)).parse_args(args=arguments)
    assert rest == []
    assert values.get("watch", False) is (name == "replicator-watch@.service")


@pytest.mark.parametrize("name", SERVICES)
def test_a_folder_with_a_blank_in_its_name_is_one_word(name):
    assert unit(name)["Service"]["ExecStart"].endswith(" ${PUSH_FOLDER}")


def test_the_timer_starts_the_service_of_its_name_every_minute_and_makes_up_for_what_was_missed():
    timer = unit("replicator-push@.timer")["Timer"]
    assert "Unit" not in timer
    assert timer["OnCalendar"] == "minutely"
    assert timer["Persistent"] == "yes"
    assert 0 < int(timer["RandomizedDelaySec"].removesuffix("s")) < 60


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_write_only_to_its_folder_its_state_and_its_log(name):
    service = unit(name)["Service"]
    assert (service["User"], service["ProtectSystem"], service["NoNewPrivileges"]) == ("replicator", "strict", "yes")
    assert service["CapabilityBoundingSet"] == ""
    assert service["ReadWritePaths"] == "-/srv/replicator/%i"
    assert (service["StateDirectory"], service["LogsDirectory"]) == ("replicator", "replicator")
    variables = environment(name)
    assert variables["XDG_STATE_HOME"] == "%S"
    assert variables["LOG_PATH"] == "%L/replicator/%i.log"


def test_a_mirror_starts_again_after_a_failure_but_not_with_settings_that_are_wrong():
    service = unit("replicator-watch@.service")["Service"]
    assert service["Restart"] == "on-failure"
    assert "2" in service["RestartPreventExitStatus"].split()


def options_of_serve():
    program, verb, *arguments = words(SERVE)
    assert (program, verb) == (COMMAND, "serve")
    command = cli.get_command(click.Context(cli), verb)
    return command.make_parser(click.Context(command)).parse_args(args=arguments)


def test_the_live_mirror_takes_webhooks_into_a_queue_among_its_state():
    values, rest, _ = options_of_serve()
    assert rest == []
    assert values["queue"] == "%S/replicator/queue.db"
    assert values["events_at"].startswith("127.0.0.1:")
    service = unit(SERVE)["Service"]
    assert (service["StateDirectory"], service["ProtectSystem"], "ReadWritePaths" in service) == (
        "replicator",
        "strict",
        False,
    )


def test_the_live_mirror_has_the_time_to_end_what_it_is_at():
    """It ends by itself nine seconds after --drain: replicator.cli.serve."""
    values, _, _ = options_of_serve()
    assert int(unit(SERVE)["Service"]["TimeoutStopSec"].removesuffix("s")) >= int(values["drain"]) + 10


def test_the_live_mirror_waits_for_a_store_that_is_away():
    service = unit(SERVE)["Service"]
    assert service["Restart"] == "on-failure"
    assert "RestartPreventExitStatus" not in service  # 2 is also said where nobody answers
    assert unit(SERVE)["Unit"]["StartLimitIntervalSec"] == "0"


@needs_systemd
def test_systemd_takes_the_units(tmp_path):
    for name in UNITS:
        text = (FOLDER / name).read_text().replace(COMMAND, shutil.which("true"))
        (tmp_path / name).write_text(text)
        (tmp_path / name.replace("@", "@example")).write_text(text)
    names = [tmp_path / name.replace("@", "@example") for name in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_line_for_cron_runs_the_command_with_the_example(tmp_path):
    (line,) = [line for line in (FOLDER / "crontab").read_text().splitlines() if line.startswith("*")]
    *minute, user, command = line.split(maxsplit=6)
    assert (minute, user) == (["*"] * 5, "replicator")
    assert "%" not in command
    told = tmp_path / "told"
    told.write_text('#!/bin/sh\necho a summary\nprintf "%s|" "$@" "$AWS_BUCKET_NAME" >&2\n')
    told.chmod(0o700)
    command = command.replace("/etc/replicator", str(FOLDER)).replace(COMMAND, str(told))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    expected = ["push", "--move", "--settle", "30s", "/srv/replicator/example", "my-bucket/my-prefix", ""]
    assert (done.stderr.split("|"), done.stdout) == (
        expected,
        "",
    )  # what is said on stdout every minute would be mailed
