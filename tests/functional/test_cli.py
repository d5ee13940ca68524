"""The command line as a person meets it: a process, its exit code, what it prints, and what is in the buckets then."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from replicator.model import MiB
from tests.fakes.watched_s3 import watched
from tests.runs import ROOT, SECONDS, run_command, without_progress
from tests.servers.base import free_port
from tests.servers.lab import boto_client, new_bucket

KEYS = [f"dir {n % 3}/file {n:02}.txt" for n in range(25)]


class Route:
    """A source and a target, and the variables that name them."""

    def __init__(self, here, there):
        self.here, self.there = here, there
        self.source, self.target = boto_client(here), boto_client(there)
        self.source_bucket, self.target_bucket = new_bucket(here), new_bucket(there)
        self.secrets = [here.secret_key, there.secret_key]
        self.environment = {
            "SOURCE_BUCKET": self.source_bucket,
            "SOURCE_ENDPOINT": here.url,
            "SOURCE_ACCESS_KEY_ID": here.access_key,
            "SOURCE_SECRET_ACCESS_KEY": here.secret_key,
            "TARGET_BUCKET": self.target_bucket,
            "TARGET_ENDPOINT": there.url,
            "TARGET_ACCESS_KEY_ID": there.access_key,
            "TARGET_SECRET_ACCESS_KEY": there.secret_key,
        }

    def fill(self, keys=KEYS):
        for key in keys:
            self.source.put_object(Bucket=self.source_bucket, Key=key, Body=f"data of {key}".encode())

    def at_target(self):
        return content(self.target, self.target_bucket)

    def at_source(self):
        return content(self.source, self.source_bucket)

    def run(self, *arguments, module="replicator", cwd=None, **variables):
        """Runs the command to its end; whatever it says, it says no secret."""
        command = [sys.executable, "-m", module, *map(str, arguments)]
        done = run_command(command, self.variables(variables), cwd=cwd)
        self.check_secrets(done.stdout + done.stderr, variables)
        return done

    def variables(self, changes):
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment, **changes}
        return {name: value for name, value in variables.items() if value is not None}

    def check_secrets(self, text, variables):
        secrets = [*self.secrets, *(value for name, value in variables.items() if "SECRET_ACCESS" in name and value)]
        assert not [secret for secret in secrets if secret in text]

    def refused(self, *arguments, code=2, **variables):
        """The one line on stderr of a command that ends with this code before it has done anything."""
        done = self.run(*arguments, **variables)
        assert (done.returncode, done.stdout) == (code, ""), done
        (line,) = done.stderr.splitlines()
        assert self.at_target() == {}
        return line


def content(client, bucket):
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    keys = [entry["Key"] for entry in listed]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(done):
    """The summary: name -> value."""
    rows = [line.strip().rsplit("  ", 1) for line in done.stdout.splitlines() if line.startswith("  ")]
    return {row[0].strip(): row[1].strip() for row in rows if len(row) == 2}


@pytest.fixture
def route(rclone_endpoint, second_rclone_endpoint):
    return Route(rclone_endpoint, second_rclone_endpoint)


@pytest.fixture
def moto_route(moto_endpoint, rclone_endpoint):
    """A source that takes any key, and a target that does not."""
    return Route(moto_endpoint, rclone_endpoint)


# Success


@pytest.mark.parametrize("command", [("replicator", ["migrate"]), ("migrate", [])])
def test_a_migration_copies_and_a_second_one_finds_nothing_to_do(route, command):
    module, verb = command
    route.fill()
    first = route.run(*verb, module=module)
    assert (first.returncode, first.stderr) == (0, "")
    assert route.at_target() == route.at_source()
    assert numbers(first)["copied"] == "25"
    second = route.run(*verb, module=module)
    assert (second.returncode, second.stderr) == (0, "")
    assert "copied" not in numbers(second)
    assert (numbers(second)["compared"], numbers(second)["bytes"]) == ("25", "0 B")


def test_locations_and_endpoints_may_be_given_on_the_command_line(route):
    route.fill()
    done = route.run(
        "migrate",
        f"s3://{route.source_bucket}/dir 0",
        f"{route.target_bucket}/below/here",
        *("--source-endpoint", route.here.url, "--target-endpoint", route.there.url),
        SOURCE_BUCKET="ignored-1",
        TARGET_BUCKET="ignored-2",
        SOURCE_ENDPOINT="http://ignored.invalid",
        TARGET_ENDPOINT=None,
    )
    assert done.returncode == 0, done.stderr
    assert set(route.at_target()) == {f"below/here/{key.removeprefix('dir 0/')}" for key in KEYS if "dir 0/" in key}


def test_an_endpoint_may_be_named_in_a_file(route, tmp_path):
    route.fill(KEYS[:3])
    (tmp_path / "replicator.toml").write_text(f'[endpoints.my-nas]\nurl = "{route.there.url}"\n')
    keys = {"MY_NAS_ACCESS_KEY_ID": route.there.access_key, "MY_NAS_SECRET_ACCESS_KEY": route.there.secret_key}
    unset = {name: None for name in route.environment if name.startswith("TARGET_")}
    source = f"s3://{route.source_bucket}"
    done = route.run("migrate", source, f"my-nas:{route.target_bucket}", cwd=tmp_path, **unset, **keys)
    assert done.returncode == 0, done.stderr
    assert route.at_target() == route.at_source()


def test_several_targets_get_the_same(route):
    route.fill(KEYS[:5])
    other = new_bucket(route.there)
    done = route.run("migrate", f"s3://{route.source_bucket}", f"s3://{route.target_bucket}", f"s3://{other}")
    assert done.returncode == 0, done.stderr
    assert route.at_target() == content(route.target, other) == route.at_source()


def test_targets_of_one_name_at_two_endpoints_are_told_apart(route, tmp_path):
    """What failed at the one was forgotten when it went well at the other, and the run said that all was well."""
    route.fill(KEYS[:5])
    report, denied = tmp_path / "report.jsonl", (403, b"<Error><Code>AccessDenied</Code></Error>", {})
    with watched() as near, watched(lambda asked: denied if asked.method == "PUT" else None) as far:
        config = "".join(f'[endpoints.{name}]\nurl = "{at.url}"\n' for name, at in (("near", near), ("far-off", far)))
        (tmp_path / "replicator.toml").write_text(config)
        keys = {
            f"{name}_{key}": "hush" for name in ("NEAR", "FAR_OFF") for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
        }
        unset = {name: None for name in route.environment if name.startswith("TARGET_")}
        places = [f"s3://{route.source_bucket}", "near:same", "far-off:same"]
        done = route.run("migrate", *places, "--report", report, cwd=tmp_path, **unset, **keys)
    assert done.returncode == 1
    assert len(near.objects) == 5
    assert not far.objects
    actions = {(line["target"], line["action"]) for line in lines_of(report)}
    assert actions == {("near:same/", "copied"), ("far-off:same/", "failed")}


def test_a_dry_run_says_what_it_would_do_and_does_nothing(route):
    route.fill(KEYS[:3])
    route.target.put_object(Bucket=route.target_bucket, Key="extra", Body=b"x")
    done = route.run("migrate", "--dry-run", "--delete")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("(dry run)")]
    assert len(said) == 4
    for key in KEYS[:3]:
        assert [line for line in said if "copied" in line and repr(key)[1:-1] in line]
    assert [line for line in said if "deleted" in line and "extra" in line]
    assert route.at_target() == {"extra": b"x"}


def test_deletes_follow_when_they_are_wanted(route):
    route.fill(KEYS[:3])
    route.target.put_object(Bucket=route.target_bucket, Key="extra", Body=b"x")
    assert route.run("migrate").returncode == 0
    assert "extra" in route.at_target()
    assert route.run("migrate", "--delete").returncode == 0
    assert route.at_target() == route.at_source()


def test_filters_are_taken_in_their_order(route):
    route.fill(["a.txt", "b.tmp", "dir/c.txt"])
    done = route.run("migrate", "--exclude", "*", "--include", "*.txt", "--exclude=dir/*")
    assert done.returncode == 0, done.stderr
    assert set(route.at_target()) == {"a.txt"}


def test_the_report_has_a_line_for_every_object(route, tmp_path):
    route.fill()
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert route.run("migrate", "--report", first).returncode == 0
    lines = lines_of(first)
    assert sorted(line["key"] for line in lines) == sorted(KEYS)
    assert {line["action"] for line in lines} == {"copied"}
    assert {line["target"] for line in lines} == {f"s3://{route.target_bucket}/"}
    assert all(line["bytes"] == len(f"data of {line['key']}") for line in lines)
    assert route.run("migrate", "--report", second).returncode == 0
    assert {line["key"]: line["action"] for line in lines_of(second)} == dict.fromkeys(KEYS, "in sync")
    route.check_secrets(first.read_text() + second.read_text(), {})


def test_progress_and_results_are_apart(route):
    route.fill(KEYS[:2])
    done = route.run("migrate")
    assert done.stdout.startswith(f"s3://{route.source_bucket}/ -> s3://{route.target_bucket}/\n")


# verify


def test_verify_finds_nothing_after_a_migration(route, tmp_path):
    route.fill()
    route.run("migrate")
    before = route.at_target()
    done = route.run("verify", "--report", tmp_path / "report.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(done)["same by etag"] == "25"
    assert sorted(line["key"] for line in lines_of(tmp_path / "report.jsonl")) == sorted(KEYS)
    assert route.at_target() == before


def test_verify_names_each_difference(moto_endpoint, tmp_path):
    route = Route(moto_endpoint, moto_endpoint)
    route.fill()
    assert route.run("migrate").returncode == 0
    put, bucket = route.target.put_object, route.target_bucket
    route.target.delete_object(Bucket=bucket, Key=KEYS[0])
    put(Bucket=bucket, Key="ex tra é", Body=b"x")
    put(Bucket=bucket, Key=KEYS[1], Body=b"other")
    put(Bucket=bucket, Key=KEYS[2], Body=f"data of {KEYS[2]}".encode(), ContentType="text/html")
    put(Bucket=bucket, Key=KEYS[3], Body=f"data of {KEYS[3]}".encode(), Metadata={"owner": "me"})
    put(Bucket=bucket, Key=KEYS[4], Body=f"data of {KEYS[4]}".encode(), Tagging="a=b")
    done = route.run("verify", "--report", tmp_path / "report.jsonl")
    assert done.returncode == 1
    wanted = {
        KEYS[0]: "missing at the target",
        "ex tra é": "only at the target",
        KEYS[1]: "size",
        KEYS[2]: "content-type",
        KEYS[3]: "metadata owner",
        KEYS[4]: "tags",
    }
    said = [line for line in done.stdout.splitlines() if line.startswith("differs: ")]
    assert len(said) == len(wanted)
    for key, reason in wanted.items():
        assert [line for line in said if ascii(key) in line and reason in line], (key, said)
    reported = {
        line["key"]: line["reason"] for line in lines_of(tmp_path / "report.jsonl") if line["action"] == "differs"
    }
    assert reported.keys() == wanted.keys()
    assert all(reason in reported[key] for key, reason in wanted.items())
    assert numbers(done)["differs"] == "4"
    assert numbers(done)["missing at the target"] == numbers(done)["only at the target"] == "1"


# What is refused, in one line


@pytest.mark.parametrize("verb", ["migrate", "verify"])
@pytest.mark.parametrize("side", ["SOURCE", "TARGET"])
@pytest.mark.parametrize("what", ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY"])
def test_wrong_keys_are_told_as_such(route, verb, side, what):
    line = route.refused(verb, **{f"{side}_{what}": "wrong-wrong-wrong"})
    assert f"{side.lower()} s3://" in line
    assert "access denied" in line
    assert f"{side}_ACCESS_KEY_ID" in line


@pytest.mark.parametrize("verb", ["migrate", "verify"])
@pytest.mark.parametrize("side", ["SOURCE", "TARGET"])
def test_a_bucket_that_does_not_exist_is_named(route, verb, side):
    line = route.refused(verb, **{f"{side}_BUCKET": "no-such-bucket-here"})
    assert f"{side.lower()} s3://no-such-bucket-here/: no such bucket" in line
    assert f"{side}_BUCKET" in line


def test_a_bucket_of_a_route_that_does_not_exist_is_named_as_the_route_has_it(route, tmp_path):
    (tmp_path / "my.toml").write_text(
        f'[endpoints.far-away]\nurl = "{route.there.url}"\n'
        f'[routes.a]\nsource = "s3://{route.source_bucket}"\ntargets = "s3://{route.target_bucket}"\n'
        f'[routes.b]\nsource = "s3://{route.source_bucket}"\ntargets = "far-away:no-such-bucket-here"\n'
    )
    keys = {"FAR_AWAY_ACCESS_KEY_ID": route.there.access_key, "FAR_AWAY_SECRET_ACCESS_KEY": route.there.secret_key}
    line = route.refused("migrate", "--route", "b", "--config", tmp_path / "my.toml", **keys)
    assert "no such bucket" in line
    assert "check [routes.b] targets and FAR_AWAY_ENDPOINT or the endpoint's url in replicator.toml" in line
    assert "TARGET_BUCKET" not in line


@pytest.mark.parametrize("verb", ["migrate", "verify"])
def test_that_nothing_is_left_to_do_is_said_with_what_leaves_nothing(route, tmp_path, verb):
    empty = route.run(verb)
    assert "no object: check the bucket and prefix" in empty.stderr
    route.fill(KEYS[:2])
    filtered = route.run(verb, "--exclude", "*")
    assert (empty.returncode, filtered.returncode) == (0, 0)
    assert "no object that the filters take: check --include, --exclude" in filtered.stderr


def test_a_list_without_a_key_is_not_said_to_be_a_bucket_without_an_object(route, tmp_path):
    route.fill(KEYS[:2])
    (tmp_path / "keys").write_text("")
    assert "--keys names no key\n" in route.run("migrate", "--keys", tmp_path / "keys").stderr


def test_a_verb_that_is_misspelt_is_answered_with_the_nearest(route):
    assert "there is no verb 'migrat': 'migrate' is meant?" in route.refused("migrat", "s3://a", "s3://b")
    assert "No such command 'zzz'" in route.refused("zzz")


def test_without_a_verb_the_help_is_shown_as_a_mistake(route):
    done = route.run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: replicator ")
    assert "migrate" in done.stderr


@pytest.mark.parametrize("side", ["SOURCE", "TARGET"])
def test_a_bucket_that_is_not_given_is_named(route, side):
    assert f"{side}_BUCKET is not set" in route.refused("migrate", **{f"{side}_BUCKET": None})


@pytest.mark.parametrize("side", ["SOURCE", "TARGET"])
def test_an_endpoint_that_cannot_be_reached_is_named(route, side):
    url = f"http://127.0.0.1:{free_port()}"
    line = route.refused("migrate", **{f"{side}_ENDPOINT": url})
    assert url in line
    assert f"{side}_ENDPOINT" in line


def test_an_endpoint_whose_name_is_unknown_is_named(route):
    line = route.refused("migrate", TARGET_ENDPOINT="http://no-such-host.invalid")
    assert "http://no-such-host.invalid" in line
    assert "TARGET_ENDPOINT" in line


def test_an_endpoint_that_speaks_no_s3_is_named(route):
    with talking("SSH-2.0-OpenSSH_9.2\r\n") as url:
        line = route.refused("migrate", SOURCE_ENDPOINT=url)
    assert "SOURCE_ENDPOINT" in line


@contextlib.contextmanager
def talking(greeting):
    """Something that is no web server."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    one, _ = server.accept()
                    with one:
                        one.recv(1024)
                        one.sendall(greeting.encode())

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DELETES": "sometimes"}, ["DELETES='sometimes'", "mirror or keep"]),
        ({"TARGET_ENDPOINT": "localhost:9000"}, ["TARGET_ENDPOINT='localhost:9000'", "http(s)://"]),
        ({"SOURCE_ENDPOINT": "ftp://there"}, ["SOURCE_ENDPOINT='ftp://there'"]),
        ({"CONCURRENCY": "lots"}, ["CONCURRENCY='lots'"]),
        ({"MEMORY_BYTES": "12"}, ["MEMORY_BYTES='12'"]),
        (
            {"SOURCE_PROFILE": "nobody", "SOURCE_ACCESS_KEY_ID": None, "SOURCE_SECRET_ACCESS_KEY": None},
            ["source", "nobody"],
        ),
        ({"TARGET_ACCESS_KEY_ID": None}, ["TARGET_ACCESS_KEY_ID", "TARGET_SECRET_ACCESS_KEY", "both or neither"]),
        ({"SOURCE_ACCESS_KEY_ID": None, "SOURCE_SECRET_ACCESS_KEY": None}, ["SOURCE_ACCESS_KEY_ID", "no credentials"]),
    ],
)
def test_a_bad_setting_is_named(route, variables, words):
    line = route.refused("migrate", **variables)
    assert [word for word in words if word not in line] == []


def test_every_bad_setting_has_a_line(route):
    done = route.run("migrate", DELETES="x", TARGET_ENDPOINT="y", CONCURRENCY="z")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3


def test_a_source_and_a_target_that_overlap_are_refused(route):
    place = f"s3://{route.source_bucket}"
    line = route.refused("migrate", place, f"{place}/copy", TARGET_ENDPOINT=route.here.url)
    assert "overlap" in line


@pytest.mark.parametrize("verb", ["migrate", "verify"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_done(route, tmp_path, verb):
    route.fill(KEYS[:2])
    line = route.refused(verb, "--report", tmp_path / "missing" / "report.jsonl")
    assert "--report" in line
    assert str(tmp_path / "missing" / "report.jsonl") in line


@pytest.mark.parametrize("content", [None, "[endpoints"])
def test_a_file_of_endpoints_that_cannot_be_read_is_named(route, tmp_path, content):
    if content is not None:
        (tmp_path / "my.toml").write_text(content)
    assert "my.toml" in route.refused("migrate", "--config", tmp_path / "my.toml")


def test_an_empty_source_does_not_empty_the_target(route):
    route.target.put_object(Bucket=route.target_bucket, Key="precious", Body=b"x")
    done = route.run("migrate", "--delete")
    assert (done.returncode, "deleted" in done.stdout) == (3, False)
    (line,) = done.stderr.splitlines()
    assert "nothing was deleted" in line
    assert route.at_target() == {"precious": b"x"}


# What fails on the way


def test_one_object_that_cannot_be_written_is_named_and_all_others_are_copied(moto_route, tmp_path):
    moto_route.fill([*KEYS, "//x"])
    done = moto_route.run("migrate", "--report", tmp_path / "report.jsonl")
    assert done.returncode == 1
    assert set(moto_route.at_target()) == set(KEYS)
    assert done.stderr.splitlines()
    assert {line.startswith("replicator: failed: '//x' at s3://") for line in done.stderr.splitlines()} == {True}
    assert (numbers(done)["failed"], numbers(done)["copied"]) == ("1", "25")
    failures = [line for line in lines_of(tmp_path / "report.jsonl") if line["action"] == "failed"]
    assert {line["key"] for line in failures} == {"//x"}
    assert all(line["error"] and line["reason"] for line in failures)


# Interruption


@contextlib.contextmanager
def held_up(real):
    """An endpoint that forwards to a real one, but never answers a GET of an object; says when the first came."""
    came = threading.Event()
    host, port = real.url.removeprefix("http://").split(":")

    def forward(one):
        with one, contextlib.suppress(OSError), socket.create_connection((host, int(port))) as other:
            threading.Thread(target=answer, args=(other, one), daemon=True).start()
            while data := one.recv(65536):
                if data.startswith(b"GET ") and b"list-type" not in data.split(b"\r\n", 1)[0]:
                    came.set()
                    one.recv(1)  # until the client goes
                    return
                other.sendall(data)

    def answer(other, one):
        with contextlib.suppress(OSError):
            while data := other.recv(65536):
                one.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=forward, args=[server.accept()[0]], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", came
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["replicator", "migrate"])
def test_a_run_that_is_interrupted_ends_at_once_and_says_how_to_go_on(route, how, module):
    route.source.put_object(Bucket=route.source_bucket, Key="big", Body=bytes(MiB))
    with held_up(route.here) as (url, came):
        process = subprocess.Popen(
            [sys.executable, "-m", module, *(["migrate"] if module == "replicator" else [])],
            env=route.variables({"SOURCE_ENDPOINT": url}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert came.wait(SECONDS)
            process.send_signal(how)
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
            process.wait()
    assert (process.returncode, out) == (130, ""), err
    (line,) = [line for line in without_progress(err).splitlines() if line]  # click ends the line that a ^C stands on
    assert line.startswith("replicator: interrupted; ")
    assert line.endswith("un it again to go on where it stopped")
    route.check_secrets(out + err, {})


@pytest.mark.parametrize("arguments", [["--help"], ["migrate", "--help"], ["verify", "-h"], ["--version"]])
def test_help_and_version_are_no_errors(route, arguments):
    done = route.run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["migrate", "--frobnicate"], "--frobnicate"),
        (["frobnicate"], "frobnicate"),
        (["migrate", "--concurrency", "0"], "0"),
    ],
)
def test_wrong_usage_is_one_line_with_the_wrong_word(route, arguments, word):
    assert word in route.refused(*arguments)


# What used to end in a traceback


def test_a_secret_that_does_not_exist_is_named(route, moto_endpoint):
    line = route.refused(
        "migrate",
        TARGET_SECRET_ID="no-such-secret",
        AWS_ENDPOINT_URL_SECRETS_MANAGER=moto_endpoint.url,
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="anyone",
        AWS_SECRET_ACCESS_KEY="hush-hush",
    )
    assert "TARGET_SECRET_ID" in line


def test_a_secret_without_a_region_is_named(route):
    assert "TARGET_SECRET_ID" in route.refused("migrate", TARGET_SECRET_ID="no-such-secret")


def test_a_report_on_a_full_disk_ends_the_run_with_an_error(route):
    route.fill(KEYS[:3])
    done = route.run("migrate", "--report", "/dev/full")
    assert done.returncode != 0
    assert done.stderr


@pytest.mark.parametrize(("file", "content"), [("no.pem", None), ("bad.pem", "not a certificate")])
def test_certificates_that_cannot_be_read_are_named(route, tmp_path, file, content):
    if content is not None:
        (tmp_path / file).write_text(content)
    line = route.refused("migrate", AWS_CA_BUNDLE=str(tmp_path / file), TARGET_ENDPOINT="https://127.0.0.1:1")
    assert "AWS_CA_BUNDLE" in line


def test_a_configuration_of_aws_that_cannot_be_read_is_one_line(route, tmp_path):
    (tmp_path / "config").write_text("[profile x\n")
    unset = {"SOURCE_ACCESS_KEY_ID": None, "SOURCE_SECRET_ACCESS_KEY": None}
    assert "source" in route.refused("migrate", AWS_CONFIG_FILE=str(tmp_path / "config"), **unset)


@pytest.mark.parametrize("port", ["99999", "port"])
def test_a_port_that_is_none_is_named(route, port):
    assert "TARGET_ENDPOINT" in route.refused("migrate", TARGET_ENDPOINT=f"http://127.0.0.1:{port}")


def test_tls_to_a_server_without_it_is_named(route):
    assert "TARGET_ENDPOINT" in route.refused("migrate", TARGET_ENDPOINT=route.there.url.replace("http:", "https:"))


def test_an_empty_location_is_named(route):
    assert "TARGET_BUCKET" in route.refused("migrate", f"s3://{route.source_bucket}", "")


@pytest.mark.parametrize("arguments", ["migrate --dry-run", "verify"])
def test_a_reader_that_goes_away_is_no_traceback(route, arguments):
    route.fill()
    command = f"{sys.executable} -m replicator {arguments} | true"
    done = subprocess.run(
        ["bash", "-c", command], env=route.variables({}), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
