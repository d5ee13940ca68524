"""Settings: where each value comes from, and what is said about a bad one."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from replicator.errors import ConfigurationError
from replicator.model import Deletes, MiB
from replicator.settings import Settings
from replicator.sides import read_config, split_location

BUCKETS = {"SOURCE_BUCKET": "from", "TARGET_BUCKET": "to"}
SECRETS = {
    "SOURCE_ACCESS_KEY_ID": "source-id",
    "SOURCE_SECRET_ACCESS_KEY": "source-hush",
    "SOURCE_SESSION_TOKEN": "source-token-hush",
    "TARGET_ACCESS_KEY_ID": "target-id",
    "TARGET_SECRET_ACCESS_KEY": "target-hush",
    "TARGET_SESSION_TOKEN": "target-token-hush",
}
MINIO = {"endpoints": {"minio": {"url": "http://minio:9000", "region": "here", "addressing": "path"}}}


def settings(environment=None, **more):
    return Settings.from_env({**BUCKETS, **(environment or {})}, **more)


def refusal(environment=None, **more):
    """The lines of the error."""
    with pytest.raises(ConfigurationError) as caught:
        settings(environment, **more)
    return str(caught.value).splitlines()


# Where values come from


def test_two_buckets_are_enough():
    given = settings()
    assert (given.source.bucket, given.source.prefix, given.source.role) == ("from", "", "source")
    assert [(side.bucket, side.prefix, side.role) for side in given.targets] == [("to", "", "target")]
    assert (given.source.endpoint, given.source.region, given.source.access_key_id) == (None, None, None)
    assert (given.deletes, given.concurrency, given.memory) == (Deletes.KEEP, 64, 256 * MiB)


def test_every_variable_of_a_side_arrives_at_that_side_only():
    given = settings(
        {
            **SECRETS,
            "TARGET_ENDPOINT": "https://there.example",
            "TARGET_REGION": "eu",
            "TARGET_ADDRESSING": "virtual",
            "TARGET_SECRET_ID": "in/the/manager",
        }
    )
    target, source = given.targets[0], given.source
    assert (target.endpoint, target.region, target.addressing) == ("https://there.example", "eu", "virtual")
    assert (target.access_key_id, target.secret_access_key) == ("target-id", "target-hush")
    assert (target.session_token, target.secret_id, target.profile) == ("target-token-hush", "in/the/manager", None)
    assert (source.endpoint, source.region, source.addressing, source.profile) == (None, None, "auto", None)
    assert (source.access_key_id, source.secret_access_key, source.session_token) == (
        "source-id",
        "source-hush",
        "source-token-hush",
    )


def test_endpoint_is_an_alias_of_target_endpoint():
    given = settings({"ENDPOINT": "https://alias.example"})
    assert given.targets[0].endpoint == "https://alias.example"
    assert given.source.endpoint is None


@pytest.mark.parametrize(
    ("environment", "source", "target"),
    [
        ({"AWS_ENDPOINT_URL": "http://all:1"}, "http://all:1", "http://all:1"),
        ({"AWS_ENDPOINT_URL": "http://all:1", "AWS_ENDPOINT_URL_S3": "http://s3:1"}, "http://s3:1", "http://s3:1"),
        ({"AWS_ENDPOINT_URL_S3": "http://s3:1", "ENDPOINT": "http://alias:1"}, "http://s3:1", "http://alias:1"),
        ({"ENDPOINT": "http://alias:1", "TARGET_ENDPOINT": "http://own:1"}, None, "http://own:1"),
        ({"AWS_ENDPOINT_URL": "http://all:1", "SOURCE_ENDPOINT": "http://own:1"}, "http://own:1", "http://all:1"),
    ],
)
def test_the_more_particular_variable_wins_for_the_endpoint(environment, source, target):
    given = settings(environment)
    assert (given.source.endpoint, given.targets[0].endpoint) == (source, target)


@pytest.mark.parametrize(
    ("environment", "region"),
    [
        ({}, None),
        ({"AWS_DEFAULT_REGION": "default"}, "default"),
        ({"AWS_DEFAULT_REGION": "default", "AWS_REGION": "aws"}, "aws"),
        ({"AWS_DEFAULT_REGION": "default", "AWS_REGION": "aws", "SOURCE_REGION": "own"}, "own"),
    ],
)
def test_the_more_particular_variable_wins_for_the_region(environment, region):
    assert settings(environment).source.region == region


def test_keys_of_aws_are_used_where_a_side_has_none_of_its_own():
    aws = {"AWS_ACCESS_KEY_ID": "aws-id", "AWS_SECRET_ACCESS_KEY": "aws-hush", "AWS_SESSION_TOKEN": "aws-token"}
    own = {"TARGET_ACCESS_KEY_ID": "id", "TARGET_SECRET_ACCESS_KEY": "hush", "TARGET_SESSION_TOKEN": "token"}
    given = settings({**aws, **own})
    assert (given.source.access_key_id, given.source.secret_access_key, given.source.session_token) == (
        "aws-id",
        "aws-hush",
        "aws-token",
    )
    assert (given.targets[0].access_key_id, given.targets[0].secret_access_key) == ("id", "hush")
    assert given.targets[0].session_token == "token"


def test_a_profile_is_meant_rather_than_the_keys_of_aws():
    given = settings({"SOURCE_PROFILE": "mine", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hush"})
    assert (given.source.profile, given.source.access_key_id, given.source.secret_access_key) == ("mine", None, None)
    assert given.targets[0].access_key_id == "id"


def test_a_profile_and_keys_for_one_side_are_refused_since_one_of_them_would_be_ignored():
    with pytest.raises(ConfigurationError) as caught:
        settings({"SOURCE_PROFILE": "mine", **SECRETS})
    assert str(caught.value) == "SOURCE_PROFILE and SOURCE_ACCESS_KEY_ID: give a profile or keys, not both"


@pytest.mark.parametrize("nothing", ["", " ", "\t"])
@pytest.mark.parametrize(
    "name", ["ENDPOINT", "TARGET_ENDPOINT", "TARGET_REGION", "TARGET_ACCESS_KEY_ID", "TARGET_PROFILE", "AWS_CA_BUNDLE"]
)
def test_an_empty_variable_is_as_good_as_none(name, nothing):
    assert settings({name: nothing}) == settings()


@pytest.mark.parametrize("name", ["DELETES", "CONCURRENCY", "MEMORY_BYTES"])
def test_an_empty_choice_is_the_default(name):
    assert settings({name: ""}) == settings()


def test_blanks_around_a_value_are_not_part_of_it():
    given = settings({"SOURCE_BUCKET": " from/dir ", "TARGET_ENDPOINT": " http://there:9000 "})
    assert (given.source.bucket, given.source.prefix) == ("from", "dir/")
    assert given.targets[0].endpoint == "http://there:9000"


def test_targets_of_the_command_line_replace_target_bucket_and_share_its_variables():
    given = settings({"TARGET_ENDPOINT": "http://there:9000"}, targets=["s3://one/x", "two"])
    assert [side.location for side in given.targets] == ["s3://one/x/", "s3://two/"]
    assert [side.endpoint for side in given.targets] == ["http://there:9000"] * 2


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        settings().concurrency = 1


# Locations


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("bucket", (None, "bucket", "")),
        ("bucket/", (None, "bucket", "")),
        ("bucket/logs", (None, "bucket", "logs/")),
        ("bucket/logs/", (None, "bucket", "logs/")),
        ("bucket/a/b", (None, "bucket", "a/b/")),
        ("bucket//a", (None, "bucket", "/a/")),
        ("bucket/a//", (None, "bucket", "a//")),
        ("bucket/with:colon", (None, "bucket", "with:colon/")),
        ("bucket/with space+%20é", (None, "bucket", "with space+%20é/")),
        ("s3://bucket", (None, "bucket", "")),
        ("s3://bucket/", (None, "bucket", "")),
        ("s3://bucket/logs", (None, "bucket", "logs/")),
        ("s3://bucket/a:b", (None, "bucket", "a:b/")),
        ("s3://", (None, "", "")),
        ("minio:bucket", ("minio", "bucket", "")),
        ("minio:bucket/logs", ("minio", "bucket", "logs/")),
        ("minio:bucket/a:b", ("minio", "bucket", "a:b/")),
        ("", (None, "", "")),
    ],
)
def test_a_location_is_endpoint_bucket_and_prefix(text, parts):
    assert split_location(text) == parts


# replicator.toml


def test_a_named_endpoint_brings_its_table():
    side = settings(targets=["minio:to/dir"], config=MINIO).targets[0]
    assert (side.endpoint, side.region, side.addressing) == ("http://minio:9000", "here", "path")
    assert side.location == "s3://to/dir/"


def test_a_named_endpoint_takes_keys_from_variables_of_its_name():
    environment = {
        "MINIO_ACCESS_KEY_ID": "id",
        "MINIO_SECRET_ACCESS_KEY": "hush",
        "AWS_ACCESS_KEY_ID": "aws-id",
        "AWS_SECRET_ACCESS_KEY": "aws-hush",
    }
    given = settings(environment, targets=["minio:to"], config=MINIO)
    assert (given.targets[0].access_key_id, given.targets[0].secret_access_key) == ("id", "hush")
    assert given.source.access_key_id == "aws-id"


def test_a_dash_in_a_name_is_an_underscore_in_its_variables():
    environment = {"MY_NAS_ACCESS_KEY_ID": "id", "MY_NAS_SECRET_ACCESS_KEY": "hush"}
    config = {"endpoints": {"my-nas": {"url": "http://nas:9000"}}}
    assert settings(environment, targets=["my-nas:to"], config=config).targets[0].access_key_id == "id"


def test_a_variable_of_its_name_wins_over_the_table_and_the_table_over_those_of_aws():
    environment = {"MINIO_REGION": "own", "AWS_REGION": "aws", "AWS_ENDPOINT_URL": "http://aws:1"}
    side = settings(environment, targets=["minio:to"], config=MINIO).targets[0]
    assert (side.region, side.endpoint) == ("own", "http://minio:9000")


def test_a_profile_in_the_table_is_meant_rather_than_the_keys_of_aws():
    config = {"endpoints": {"nas": {"url": "http://nas:9000", "profile": "mine"}}}
    environment = {"AWS_ACCESS_KEY_ID": "aws-id", "AWS_SECRET_ACCESS_KEY": "aws-hush"}
    side = settings(environment, targets=["nas:to"], config=config).targets[0]
    assert (side.profile, side.access_key_id, side.secret_access_key) == ("mine", None, None)


def test_two_names_in_one_run_are_two_endpoints():
    config = {"endpoints": {"one": {"url": "http://one:1"}, "two": {"url": "http://two:2"}}}
    given = settings({"SOURCE_BUCKET": "one:same"}, targets=["two:same"], config=config)
    assert (given.source.endpoint, given.targets[0].endpoint) == ("http://one:1", "http://two:2")


@pytest.mark.parametrize("config", [{}, {"endpoints": {}}, {"endpoints": "text"}, {"endpoints": {"nas": "text"}}])
def test_a_name_that_the_file_does_not_have_is_named(config):
    assert refusal(targets=["nas:to"], config=config) == ["nas: replicator.toml has no [endpoints.nas]"]


@pytest.mark.parametrize("table", [{"secret_access_key": "hush"}, {"region": 7}, {"url": "http://nas:1", "uri": "x"}])
def test_a_table_with_something_else_in_it_is_refused(table):
    (line,) = refusal(targets=["nas:to"], config={"endpoints": {"nas": table}})
    assert "[endpoints.nas]" in line
    assert next(name for name in table if name != "url") in line
    assert "hush" not in line


def test_a_bad_url_in_a_table_is_named_with_its_value():
    (line,) = refusal(targets=["nas:to"], config={"endpoints": {"nas": {"url": "nas:9000"}}})
    assert "'nas:9000'" in line


def test_the_file_in_the_working_directory_is_read_unless_another_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_config(None) == {}
    (tmp_path / "replicator.toml").write_text('[endpoints.here]\nurl = "http://here:1"\n')
    (tmp_path / "other.toml").write_text('[endpoints.other]\nurl = "http://other:1"\n')
    assert read_config(None) == {"endpoints": {"here": {"url": "http://here:1"}}}
    assert read_config(tmp_path / "other.toml") == {"endpoints": {"other": {"url": "http://other:1"}}}


@pytest.mark.parametrize("content", [None, b"[endpoints", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"mine\.toml: "):
        read_config(path)


# What is refused


def test_every_bad_setting_is_named_with_its_value_in_one_error():
    lines = refusal(
        {
            "SOURCE_BUCKET": "-dash",
            "SOURCE_ENDPOINT": "ftp://source",
            "SOURCE_ADDRESSING": "sideways",
            "TARGET_BUCKET": "with space",
            "TARGET_ENDPOINT": "there:9000",
            "TARGET_ADDRESSING": "Path",
            "TARGET_ACCESS_KEY_ID": "alone",
            "DELETES": "yes",
            "CONCURRENCY": "many",
            "MEMORY_BYTES": "1",
        }
    )
    begins = [
        "SOURCE_BUCKET='-dash': ",
        "SOURCE_ENDPOINT='ftp://source': ",
        "SOURCE_ADDRESSING='sideways': ",
        "TARGET_BUCKET='with space': ",
        "TARGET_ENDPOINT='there:9000': ",
        "TARGET_ADDRESSING='Path': ",
        "TARGET_ACCESS_KEY_ID and TARGET_SECRET_ACCESS_KEY: ",
        "DELETES='yes': ",
        "CONCURRENCY='many': ",
        "MEMORY_BYTES='1': ",
    ]
    assert [next(start for start in begins if line.startswith(start)) for line in lines] == begins


@pytest.mark.parametrize("name", ["SOURCE_BUCKET", "TARGET_BUCKET"])
@pytest.mark.parametrize("text", ["", "  "])
def test_a_missing_bucket_is_named(name, text):
    (line,) = refusal({name: text})
    assert line.startswith(f"{name} is not set")


def test_both_buckets_missing_are_two_lines():
    assert len(refusal({"SOURCE_BUCKET": "", "TARGET_BUCKET": ""})) == 2


@pytest.mark.parametrize("bucket", ["a", "-x", "_x", "a b", "é-bucket", "a*b", "x" * 256, "s3://", "s3:///key"])
def test_what_is_no_name_of_a_bucket_is_refused(bucket):
    (line,) = refusal({"SOURCE_BUCKET": bucket})
    assert line.startswith("SOURCE_BUCKET='")


@pytest.mark.parametrize("bucket", ["abc", "with.dots", "Old_Capitals", "x" * 255, "1-2"])
def test_old_and_foreign_names_of_buckets_are_taken(bucket):
    assert settings({"SOURCE_BUCKET": bucket}).source.bucket == bucket


@pytest.mark.parametrize(
    "url", ["host", "host:9000", "ftp://host", "http://", "http:///", "http://h/path", "http://h?q", "http://h h"]
)
def test_what_is_no_endpoint_is_refused(url):
    (line,) = refusal({"TARGET_ENDPOINT": url})
    assert line.startswith(f"TARGET_ENDPOINT={url!r}: ")


@pytest.mark.parametrize("url", ["http://h", "https://h.example/", "http://127.0.0.1:9000", "http://[::1]:9000"])
def test_what_is_an_endpoint_is_taken(url):
    assert settings({"TARGET_ENDPOINT": url}).targets[0].endpoint == url


@pytest.mark.parametrize("name", ["SOURCE_ACCESS_KEY_ID", "SOURCE_SECRET_ACCESS_KEY"])
def test_half_a_pair_of_keys_is_refused(name):
    (line,) = refusal({name: SECRETS[name]})
    assert line == "SOURCE_ACCESS_KEY_ID and SOURCE_SECRET_ACCESS_KEY: give both or neither"


@pytest.mark.parametrize(("text", "deletes"), [("mirror", Deletes.MIRROR), ("keep", Deletes.KEEP)])
def test_deletes_are_mirrored_or_kept(text, deletes):
    assert settings({"DELETES": text}).deletes is deletes


@pytest.mark.parametrize("text", ["MIRROR", "true", "delete", " mirror", "1"])
def test_any_other_word_for_deletes_is_refused(text):
    assert refusal({"DELETES": text}) == [f"DELETES={text!r}: must be mirror or keep"]


@pytest.mark.parametrize("text", ["1", "64", "4096"])
def test_concurrency_is_a_number(text):
    assert settings({"CONCURRENCY": text}).concurrency == int(text)


@pytest.mark.parametrize("text", ["0", "4097", "-1", "1.5", "ten", "1_000", "٣", "0x10", " 8"])
def test_any_other_concurrency_is_refused(text):
    assert refusal({"CONCURRENCY": text}) == [f"CONCURRENCY={text!r}: must be a whole number from 1 to 4096"]


@pytest.mark.parametrize("size", [16 * MiB, 256 * MiB, 2**50 - 1])
def test_memory_is_a_number_of_bytes(size):
    assert settings({"MEMORY_BYTES": str(size)}).memory == size


@pytest.mark.parametrize("text", ["0", str(16 * MiB - 1), str(2**50), "256M"])
def test_any_other_memory_is_refused(text):
    (line,) = refusal({"MEMORY_BYTES": text})
    assert line.startswith(f"MEMORY_BYTES={text!r}: must be a whole number from {16 * MiB} to ")


# Copying into oneself


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("same", "same"),
        ("same/a", "same"),
        ("same", "same/a"),
        ("same/a", "same/a/b"),
        ("same/a/b", "same/a"),
        ("s3://same", "same/"),
    ],
)
def test_a_source_and_a_target_that_overlap_are_refused(source, target):
    (line,) = refusal({"SOURCE_BUCKET": source, "TARGET_BUCKET": target})
    assert "overlap" in line
    assert line.count("s3://same/") == 2


@pytest.mark.parametrize(
    ("source", "target"), [("same/a", "same/b"), ("same/a", "same/ab"), ("same", "other"), ("one", "one-two")]
)
def test_places_side_by_side_do_not_overlap(source, target):
    assert settings({"SOURCE_BUCKET": source, "TARGET_BUCKET": target}).targets


def test_buckets_of_one_name_at_two_endpoints_do_not_overlap():
    assert settings({"TARGET_BUCKET": "from", "TARGET_ENDPOINT": "http://there:9000"}).targets


def test_a_slash_at_the_end_does_not_make_another_endpoint():
    environment = {"TARGET_BUCKET": "from", "SOURCE_ENDPOINT": "http://h:1", "TARGET_ENDPOINT": "http://h:1/"}
    assert "overlap" in refusal(environment)[0]


def test_two_targets_that_overlap_are_refused():
    (line,) = refusal(targets=["to", "to/dir"])
    assert "s3://to/ and s3://to/dir/ overlap" in line


# Secrets


def test_secrets_are_in_no_repr():
    text = repr(settings(SECRETS)) + repr(settings(SECRETS).source) + str(settings(SECRETS).targets)
    assert "source-id" in text
    assert "hush" not in text


def test_secrets_are_in_no_error():
    lines = refusal({**SECRETS, "SOURCE_ENDPOINT": "nowhere", "TARGET_BUCKET": "from", "DELETES": "x"})
    lines += refusal({"SOURCE_SECRET_ACCESS_KEY": "source-hush", "TARGET_SESSION_TOKEN": "token-hush", "DELETES": "x"})
    assert len(lines) >= 4
    assert "hush" not in "\n".join(lines)
