"""Routes of a replicator.toml from a file, the Parameter Store and a bucket: what the command line makes of them."""

from __future__ import annotations

import boto3
import pytest

from tests.functional.test_cli import Route
from tests.servers.lab import new_bucket

REGION = "eu-north-1"
KEYS = ["photos/1.jpg", "photos/2.jpg", "photos/2.tmp", "other.jpg"]


class Routed(Route):
    """Two servers and a configuration of two routes, one of which is of no concern. config: where it is."""

    def __init__(self, here, there, elsewhere):
        super().__init__(here, there)
        del self.environment["SOURCE_BUCKET"], self.environment["TARGET_BUCKET"]
        self.environment |= {
            "THERE_ACCESS_KEY_ID": there.access_key,
            "THERE_SECRET_ACCESS_KEY": there.secret_key,
            "AWS_ACCESS_KEY_ID": elsewhere.access_key,
            "AWS_SECRET_ACCESS_KEY": elsewhere.secret_key,
            "AWS_ENDPOINT_URL": elsewhere.url,
            "AWS_REGION": REGION,
        }
        self.elsewhere = elsewhere
        self.text = f"""
            [endpoints.there]
            url = "{there.url}"

            [routes.photos]
            source = "s3://{self.source_bucket}/photos"
            targets = "there:{self.target_bucket}/copies"
            storage_classes = {{ "*" = "STANDARD_IA" }}
            deletes = "mirror"
            keys = ["exclude *", "include *.jpg"]

            [routes.others]
            source = "there:nothing"
            targets = "there:nowhere"
        """

    def service(self, name):
        return boto3.client(
            name,
            endpoint_url=self.elsewhere.url,
            region_name=REGION,
            aws_access_key_id=self.elsewhere.access_key,
            aws_secret_access_key=self.elsewhere.secret_key,
        )

    def in_a_file(self, tmp_path):
        (tmp_path / "routes.toml").write_text(self.text)
        return tmp_path / "routes.toml"

    def as_a_parameter(self):
        ssm = self.service("ssm")
        ssm.put_parameter(Name="/replicator/routes", Value=self.text, Type="SecureString", Overwrite=True)
        return "ssm:/replicator/routes"

    def as_an_object(self):
        bucket = new_bucket(self.elsewhere)
        self.service("s3").put_object(Bucket=bucket, Key="config/routes.toml", Body=self.text.encode())
        return f"s3://{bucket}/config/routes.toml"


@pytest.fixture
def routed(rclone_endpoint, moto_endpoint):
    route = Routed(rclone_endpoint, moto_endpoint, moto_endpoint)
    route.fill(KEYS)
    return route


@pytest.mark.parametrize("kept", ["file", "parameter", "object"])
def test_a_route_is_migrated_and_verified_wherever_its_configuration_is(routed, tmp_path, kept):
    places = {
        "file": lambda: routed.in_a_file(tmp_path),
        "parameter": routed.as_a_parameter,
        "object": routed.as_an_object,
    }
    config = places[kept]()
    done = routed.run("migrate", "--route", "photos", "--config", config)
    assert done.returncode == 0, done
    assert set(routed.at_target()) == {"copies/1.jpg", "copies/2.jpg"}
    listed = routed.target.list_objects_v2(Bucket=routed.target_bucket)["Contents"]
    assert {entry["StorageClass"] for entry in listed} == {"STANDARD_IA"}
    assert routed.run("verify", "--route", "photos", REPLICATOR_CONFIG=str(config)).returncode == 0


def test_a_route_says_whether_deletes_are_mirrored_and_what_its_filter_leaves_out_stays(routed, tmp_path):
    for key in ("copies/gone.jpg", "copies/not-ours.txt", "beside.jpg"):
        routed.target.put_object(Bucket=routed.target_bucket, Key=key, Body=b"x")
    config = routed.in_a_file(tmp_path)
    assert routed.run("verify", "--route", "photos", "--config", config).returncode == 1
    assert routed.run("migrate", "--route", "photos", "--config", config).returncode == 0
    assert set(routed.at_target()) == {"copies/1.jpg", "copies/2.jpg", "copies/not-ours.txt", "beside.jpg"}


def test_rules_of_the_command_line_come_after_those_of_the_route(routed, tmp_path):
    config = routed.in_a_file(tmp_path)
    assert routed.run("migrate", "--route", "photos", "--config", config, "--exclude", "2.*").returncode == 0
    assert set(routed.at_target()) == {"copies/1.jpg"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "ssm:/not/there"], "ssm:/not/there: "),
        (["--config", "s3://no-such-bucket-of-ours/routes.toml"], "check the bucket's name"),
        (["--config", "not-there.toml"], "not-there.toml: No such file"),
        (["s3://other"], "--route photos and s3://other"),
    ],
)
def test_what_cannot_be_had_or_contradicts_is_one_line(routed, arguments, said):
    assert said in routed.refused("migrate", "--route", "photos", *arguments)
