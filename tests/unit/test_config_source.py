"""Where a replicator.toml comes from, and what is said when it cannot be had. tests/functional asks real services."""

from __future__ import annotations

import io

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoRegionError, ParamValidationError

from replicator.aws.config_source import load_config
from replicator.errors import ConfigurationError
from replicator.sides import LARGEST_CONFIG

TEXT = b'[endpoints.nas]\nurl = "http://nas:9000"\n'
PARSED = {"endpoints": {"nas": {"url": "http://nas:9000"}}}


class Services:
    """Makes clients that answer with this content, or fail. asked: which service, where, and what for."""

    def __init__(self, content=TEXT, error=None):
        self.body, self.error = io.BytesIO(content), error
        self.asked = []

    def __call__(self, service, *, region_name):
        self.asked += [service, region_name]
        return self

    def get_parameter(self, **asked):
        self._ask(asked)
        return {"Parameter": {"Value": self.body.read().decode()}}

    def get_object(self, **asked):
        self._ask(asked)
        return {"Body": self.body}

    def _ask(self, asked):
        self.asked.append(asked)
        if self.error is not None:
            raise self.error


def refusal(place, services=None, **environment):
    with pytest.raises(ConfigurationError) as caught:
        load_config(place, environment, client=services)
    (line,) = str(caught.value).splitlines()
    return line


def denied(code):
    return Services(error=ClientError({"Error": {"Code": code, "Message": "the service's\nown words"}}, "GetIt"))


def test_a_path_is_a_file(tmp_path):
    (tmp_path / "mine.toml").write_bytes(TEXT)
    assert load_config(str(tmp_path / "mine.toml"), {}) == PARSED


def test_the_variable_names_it_and_the_command_line_goes_before(tmp_path):
    (tmp_path / "one.toml").write_bytes(TEXT)
    (tmp_path / "other.toml").write_bytes(b"")
    environment = {"REPLICATOR_CONFIG": str(tmp_path / "one.toml")}
    assert load_config(None, environment) == load_config("", environment) == PARSED
    assert load_config(str(tmp_path / "other.toml"), environment) == {}


def test_without_either_it_is_the_file_in_the_working_directory_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(None, {"REPLICATOR_CONFIG": " "}) == {}
    (tmp_path / "replicator.toml").write_bytes(TEXT)
    assert load_config(None, {}) == PARSED


def test_a_parameter_is_read_decrypted():
    services = Services()
    assert load_config("ssm:/replicator/routes", {"AWS_REGION": "eu-north-1"}, client=services) == PARSED
    assert services.asked == ["ssm", "eu-north-1", {"Name": "/replicator/routes", "WithDecryption": True}]


def test_an_object_is_read():
    services = Services()
    assert load_config("s3://bucket/a/b.toml", {"AWS_DEFAULT_REGION": "eu-north-1"}, client=services) == PARSED
    assert services.asked == ["s3", "eu-north-1", {"Bucket": "bucket", "Key": "a/b.toml"}]
    assert services.body.closed


@pytest.mark.parametrize(
    ("place", "code", "hint"),
    [
        ("ssm:x", "ParameterNotFound", "check the name, and AWS_REGION"),
        ("ssm:x", "AccessDeniedException", "kms:Decrypt"),
        ("s3://bucket/x", "AccessDenied", "s3:GetObject"),
        ("s3://bucket/x", "NoSuchKey", "check the key"),
        ("s3://bucket/x", "NoSuchBucket", "check the bucket's name"),
        ("s3://bucket/x", "InternalError", "try again"),
    ],
)
def test_what_a_service_refuses_is_one_line_with_what_to_do(place, code, hint):
    line = refusal(place, denied(code))
    assert line.startswith(f"{place}: ")
    assert "the service's own words" in line
    assert hint in line


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (NoRegionError(), "Set AWS_REGION"),
        (EndpointConnectionError(endpoint_url="http://nowhere"), "http://nowhere"),
        (ParamValidationError(report="line\nbreaks"), "check the name"),
    ],
)
def test_what_botocore_refuses_is_one_line_too(error, hint):
    assert hint in refusal("ssm:x", Services(error=error))


@pytest.mark.parametrize("place", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key"])
def test_a_place_without_bucket_or_key_is_refused(place):
    assert refusal(place, Services()) == f"{place}: must be s3://BUCKET/KEY"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = 1\nb = \n", "is not TOML: Invalid value (at line 2, column 5)"),
        (b"a = 1\nb = '\xff'", "is not UTF-8 (at line 2): save it as UTF-8"),
        (b"a = " + b"[" * 100_000, "is not TOML that can be read"),
        (b"#" * (LARGEST_CONFIG + 1), "is larger than"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_line(tmp_path, content, said):
    (tmp_path / "bad.toml").write_bytes(content)
    assert refusal(str(tmp_path / "bad.toml")).startswith(f"{tmp_path / 'bad.toml'}: {said}")
    assert refusal("s3://bucket/bad.toml", Services(content)).startswith(f"s3://bucket/bad.toml: {said}")


def test_the_largest_configuration_is_read(tmp_path):
    content = TEXT + b"#" * (LARGEST_CONFIG - len(TEXT))
    assert load_config("s3://bucket/large.toml", {}, client=Services(content)) == PARSED


def test_of_a_larger_one_no_more_is_read_than_is_needed_to_know():
    services = Services(b"#" * (2 * LARGEST_CONFIG))
    position = []
    services.body.close = lambda: position.append(services.body.tell())
    refusal("s3://bucket/large.toml", services)
    assert position == [LARGEST_CONFIG + 1]


def test_a_file_that_is_none_is_named(tmp_path):
    assert refusal(str(tmp_path)).startswith(f"{tmp_path}: Is a directory: ")
    assert refusal(str(tmp_path / "none.toml")).startswith(f"{tmp_path / 'none.toml'}: No such file or directory: ")
