"""Cases of settings and credentials that were wrong once."""

import pytest

from replicator.cli.options import settings_from
from replicator.errors import ConfigurationError
from replicator.s3.credentials import keys_for
from replicator.settings import Settings
from replicator.sides import Side

BUCKETS = {"SOURCE_BUCKET": "from", "TARGET_BUCKET": "to"}
AWS = {"AWS_ACCESS_KEY_ID": "aws-id", "AWS_SECRET_ACCESS_KEY": "aws-hush", "AWS_SESSION_TOKEN": "aws-token"}


def refusal(environment, **more):
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({**BUCKETS, **environment}, **more)
    return str(caught.value).splitlines()


def test_keys_of_a_side_do_not_go_with_the_session_token_of_aws():
    """Always so in Lambda, and wherever the shell has an assumed role: the foreign store answers 403."""
    own = {"TARGET_ACCESS_KEY_ID": "id", "TARGET_SECRET_ACCESS_KEY": "hush"}
    target = Settings.from_env({**BUCKETS, **AWS, **own}).targets[0]
    assert (target.access_key_id, target.secret_access_key, target.session_token) == ("id", "hush", None)


def test_keys_of_a_named_endpoint_do_not_go_with_the_session_token_of_aws():
    own = {"NAS_ACCESS_KEY_ID": "id", "NAS_SECRET_ACCESS_KEY": "hush"}
    config = {"endpoints": {"nas": {"url": "http://nas:1"}}}
    target = Settings.from_env({**BUCKETS, **AWS, **own}, targets=["nas:to"], config=config).targets[0]
    assert target.session_token is None


@pytest.mark.parametrize("name", ["TARGET_ACCESS_KEY_ID", "TARGET_SECRET_ACCESS_KEY"])
def test_half_a_pair_is_not_completed_with_the_other_half_of_aws(name):
    (line,) = refusal({**AWS, name: "mine"})
    assert line == "TARGET_ACCESS_KEY_ID and TARGET_SECRET_ACCESS_KEY: give both or neither"


def test_blank_keys_beside_a_profile_are_no_keys():
    environment = {**BUCKETS, **AWS, "SOURCE_PROFILE": "mine", "SOURCE_ACCESS_KEY_ID": " "}
    assert Settings.from_env(environment).source.access_key_id is None


def test_a_password_in_an_endpoint_is_not_shown():
    (line,) = refusal({"TARGET_ENDPOINT": "https://key:the-hush@there.example"})
    assert "hush" not in line


def test_a_number_of_thousands_of_digits_is_a_bad_setting():
    (line,) = refusal({"CONCURRENCY": "9" * 5000})
    assert line.startswith("CONCURRENCY=")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "https://s3.us-east-1.amazonaws.com"),
        ("https://s3.us-east-1.amazonaws.com", "https://s3.amazonaws.com"),
        ("http://h", "http://h:80"),
        ("http://h:9000", "http://H:9000"),
    ],
)
def test_two_names_of_one_endpoint_overlap(one, other):
    environment = {
        "SOURCE_ENDPOINT": one,
        "TARGET_ENDPOINT": other,
        "SOURCE_BUCKET": "bkt",
        "TARGET_BUCKET": "bkt/copy",
    }
    assert "overlap" in refusal(environment)[0]


def test_a_secret_of_numbers_is_refused():
    with pytest.raises(ConfigurationError):
        keys_for(
            Side(role="target", bucket="to", secret_id="s"),
            read_secret=lambda _: '{"access_key_id": 1, "secret_access_key": null}',
        )


def test_an_assumed_role_that_cannot_be_had_is_a_configuration_error(tmp_path, monkeypatch):
    """DeferredRefreshableCredentials fail in _frozen(), outside the try: a traceback of 60 lines."""
    (tmp_path / "config").write_text(
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = base\nregion = us-east-1\n"
        "[profile base]\naws_access_key_id = id\naws_secret_access_key = hush\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ConfigurationError):
        keys_for(Side(role="source", bucket="from", profile="role"))


async def test_keys_that_cannot_be_refreshed_are_a_store_error_and_not_a_crash_of_the_run(tmp_path, monkeypatch):
    from replicator.errors import ReplicatorError
    from replicator.s3.credentials import ChainKeys

    process = tmp_path / "keys"
    process.write_text(
        "#!/bin/sh\n"
        f'[ -e "{tmp_path}/called" ] && exit 1\n'
        f'touch "{tmp_path}/called"\n'
        'when=$(date -u -d "+1 minute" +%Y-%m-%dT%H:%M:%SZ)\n'
        'printf \'{"Version": 1, "AccessKeyId": "id", "SecretAccessKey": "hush", "Expiration": "%s"}\' $when\n'
    )
    process.chmod(0o755)
    (tmp_path / "config").write_text(f"[profile mine]\ncredential_process = {process}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(ReplicatorError):
        await ChainKeys(Side(role="source", bucket="from", profile="mine")).refresh()


def test_options_for_one_side_are_refused_for_an_endpoint_with_a_name():
    with pytest.raises(ConfigurationError, match="--target-region is not for nas:to"):
        settings_from("from", ("nas:to",), None, {"target_region": "x"})
