"""Where keys come from, and that they are told to nobody."""

from __future__ import annotations

import json

import pytest

from replicator.errors import ConfigurationError
from replicator.s3.credentials import ChainKeys, StaticKeys, keys_for
from replicator.s3.signing import Keys
from replicator.sides import Side

SECRET = {"access_key_id": "the-id", "secret_access_key": "the-hush", "session_token": "the-token-hush"}
NAMED = Side(role="target", bucket="to", secret_id="in/the/manager")
BARE = Side(role="source", bucket="from")


def from_secret(text):
    asked = []

    def read(secret_id):
        asked.append(secret_id)
        return text

    keys = keys_for(NAMED, read_secret=read)
    assert asked == ["in/the/manager"]
    return keys.current()


def no_secret(secret_id):
    raise AssertionError("no secret was named")


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    """A machine on which botocore finds nothing; files for those it is to find."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def test_keys_that_were_given_are_used_as_they_are():
    side = Side(role="source", bucket="from", access_key_id="id", secret_access_key="hush", session_token="token")
    keys = keys_for(side, read_secret=no_secret)
    assert isinstance(keys, StaticKeys)
    assert keys.current() == Keys("id", "hush", "token")


def test_a_token_is_not_needed():
    side = Side(role="source", bucket="from", access_key_id="id", secret_access_key="hush")
    assert keys_for(side).current() == Keys("id", "hush", None)


def test_a_secret_holds_keys_as_json():
    assert from_secret(json.dumps(SECRET)) == Keys("the-id", "the-hush", "the-token-hush")


def test_a_secret_needs_no_token():
    text = json.dumps({"access_key_id": "the-id", "secret_access_key": "the-hush"})
    assert from_secret(text) == Keys("the-id", "the-hush", None)


def test_names_in_a_secret_may_be_in_capitals_and_others_may_be_there():
    text = json.dumps({name.upper(): value for name, value in SECRET.items()} | {"endpoint": "http://there"})
    assert from_secret(text) == Keys("the-id", "the-hush", "the-token-hush")


def test_a_secret_is_meant_rather_than_keys():
    side = Side(role="target", bucket="to", secret_id="s", access_key_id="id", secret_access_key="hush")
    assert keys_for(side, read_secret=lambda _: json.dumps(SECRET)).current().access_key_id == "the-id"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the-hush",
        "the-id:the-hush",
        '{"access_key_id": "the-id", "secret_access_key": "the-hush"',
        '"the-hush"',
        "7",
        "null",
        '["the-id", "the-hush"]',
        "{}",
        '{"access_key_id": "the-id"}',
        '{"secret_access_key": "the-hush"}',
        '{"AccessKeyId": "the-id", "SecretAccessKey": "the-hush"}',
    ],
)
def test_a_secret_of_another_shape_is_named_but_not_shown(text):
    with pytest.raises(ConfigurationError) as caught:
        from_secret(text)
    said = str(caught.value)
    assert said.startswith("TARGET_SECRET_ID=in/the/manager: ")
    assert "access_key_id" in said
    assert "hush" not in said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_chain_finds_keys_in_the_environment(no_credentials, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "env-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-hush")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "env-token")
    keys = keys_for(BARE, read_secret=no_secret)
    assert isinstance(keys, ChainKeys)
    assert keys.current() == Keys("env-id", "env-hush", "env-token")


def test_the_chain_finds_a_profile_by_its_name(no_credentials):
    (no_credentials / "credentials").write_text(
        "[default]\naws_access_key_id = default-id\naws_secret_access_key = default-hush\n"
        "[mine]\naws_access_key_id = my-id\naws_secret_access_key = my-hush\n"
    )
    assert keys_for(BARE).current().access_key_id == "default-id"
    assert keys_for(Side(role="source", bucket="from", profile="mine")).current() == Keys("my-id", "my-hush", None)


def test_a_profile_is_meant_rather_than_keys_in_the_environment(no_credentials, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "env-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-hush")
    (no_credentials / "credentials").write_text("[mine]\naws_access_key_id = my-id\naws_secret_access_key = hush\n")
    assert keys_for(Side(role="source", bucket="from", profile="mine")).current().access_key_id == "my-id"


async def test_keys_that_do_not_expire_are_not_fetched_anew(no_credentials, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "env-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-hush")
    keys = ChainKeys(BARE)
    before = keys.current()
    await keys.refresh()
    assert keys.current() is before


async def test_keys_that_are_about_to_expire_are_fetched_anew(no_credentials):
    process = no_credentials / "keys"
    process.write_text(
        "#!/bin/sh\n"
        f'echo x >> "{no_credentials}/calls"\n'
        f'n=$(wc -l < "{no_credentials}/calls" | tr -d " ")\n'
        'when=$(date -u -d "+1 minute" +%Y-%m-%dT%H:%M:%SZ)\n'
        'printf \'{"Version": 1, "AccessKeyId": "id-%s", "SecretAccessKey": "hush", "Expiration": "%s"}\' $n $when\n'
    )
    process.chmod(0o755)
    (no_credentials / "config").write_text(f"[profile mine]\ncredential_process = {process}\n")
    keys = ChainKeys(Side(role="source", bucket="from", profile="mine"))
    before = keys.current().access_key_id
    await keys.refresh()
    assert keys.current().access_key_id != before
    assert keys.current().access_key_id.startswith("id-")


@pytest.mark.parametrize("role", ["source", "target"])
def test_no_keys_at_all_is_an_error_that_names_the_variables(no_credentials, role):
    with pytest.raises(ConfigurationError) as caught:
        keys_for(Side(role=role, bucket="bucket"))
    said = str(caught.value)
    assert said.startswith(f"{role}: ")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PROFILE"):
        assert f"{role.upper()}_{name}" in said


def test_a_profile_that_does_not_exist_is_named(no_credentials):
    with pytest.raises(ConfigurationError, match=r"target: .*nobody"):
        keys_for(Side(role="target", bucket="to", profile="nobody"))


def test_half_a_profile_is_an_error(no_credentials):
    (no_credentials / "credentials").write_text("[mine]\naws_access_key_id = alone\n")
    with pytest.raises(ConfigurationError, match="target: "):
        keys_for(Side(role="target", bucket="to", profile="mine"))


def test_secrets_are_in_no_text_of_keys(no_credentials, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "env-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-hush")
    chain = keys_for(BARE)
    static = keys_for(Side(role="source", bucket="from", access_key_id="id", secret_access_key="hush"))
    texts = [repr(Keys("id", "hush", "token-hush")), repr(chain), repr(static), str(chain.current())]
    assert "id" in texts[0]
    assert not [text for text in texts if "hush" in text]
