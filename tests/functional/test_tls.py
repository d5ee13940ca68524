"""The same over TLS: payloads are unsigned there, and certificates are checked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from tests.runs import run_command
from tests.servers import rclone

MiB = 1024 * 1024
SIZES = {"empty": 0, "small": 4096, "streamed": 20 * MiB}

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl not found: apt-get install openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def environment(certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[dict[str, str]]:
    """Two servers over TLS and a filled source bucket."""
    for side in ("here", "there"):
        (tmp_path / side).mkdir()
    with (
        rclone.serve(tmp_path / "here", certificate=certificate) as here,
        rclone.serve(tmp_path / "there", certificate=certificate) as there,
    ):
        for endpoint in (here, there):
            client = boto3.client(
                "s3",
                endpoint_url=endpoint.url,
                region_name="us-east-1",
                aws_access_key_id=endpoint.access_key,
                aws_secret_access_key=endpoint.secret_key,
                verify=str(certificate[0]),
                config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
            )
            client.create_bucket(Bucket="the-bucket")
            if endpoint is here:
                for key, size in SIZES.items():
                    client.put_object(Bucket="the-bucket", Key=key, Body=os.urandom(size))
        yield {
            "SOURCE_BUCKET": "the-bucket",
            "TARGET_BUCKET": "the-bucket",
            "SOURCE_ENDPOINT": here.url,
            "TARGET_ENDPOINT": there.url,
            "AWS_ACCESS_KEY_ID": here.access_key,
            "AWS_SECRET_ACCESS_KEY": here.secret_key,
        }


def run(verb: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run_command([sys.executable, "-m", "replicator", verb], {**os.environ, **environment})


def test_objects_of_all_sizes_are_copied_over_tls(environment: dict[str, str], certificate: tuple[Path, Path]) -> None:
    trusting = {**environment, "AWS_CA_BUNDLE": str(certificate[0])}
    done = run("migrate", trusting)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("verify", trusting)
    assert (done.returncode, done.stderr) == (0, "")
    assert "same by etag" in done.stdout


def test_a_certificate_that_is_not_trusted_is_refused_in_one_line(environment: dict[str, str]) -> None:
    done = run("migrate", environment)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "AWS_CA_BUNDLE" in line
