"""Where peers meet: a source, a target, and each peer's command line for that."""

from __future__ import annotations

import shlex
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.buckets import SOURCE
from tests.benchmarks.measure import Peer, Prepared
from tests.benchmarks.tools import aws_cli, s5cmd
from tests.servers import Endpoint

SCRIPTS = Path(sysconfig.get_path("scripts"))
RCLONE_PROVIDERS = {"rclone": "Rclone", "listing": "AWS"}  # as it calls the dialects; Ceph for all others


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One source bucket, and a target bucket for every run.

    target: called before each run, returns the bucket to copy to. work: how much each run does, in the unit of the
    table. certificate: file of the one to trust.
    """

    here: Endpoint
    there: Endpoint
    target: Callable[[], str]
    work: float
    source: str = SOURCE
    certificate: Path | None = None

    def ours(self, options: str = "") -> Peer:
        keys = {
            f"{side}_{name}": value
            for side, endpoint in (("SOURCE", self.here), ("TARGET", self.there))
            for name, value in (
                ("ENDPOINT", endpoint.url),
                ("ACCESS_KEY_ID", endpoint.access_key),
                ("SECRET_ACCESS_KEY", endpoint.secret_key),
            )
        }
        if self.certificate:
            keys["AWS_CA_BUNDLE"] = str(self.certificate)

        def prepare(_: int) -> Prepared:
            command = [str(SCRIPTS / "replicator"), "migrate", self.source, self.target(), *shlex.split(options)]
            return command, keys

        return Peer(f"replicator migrate {options}".strip(), prepare, self.work)

    def rclone(self, *options: str, note: str = "") -> Peer:
        """Within one endpoint it is given one remote, so that it copies server-side."""
        there = "here" if self.here is self.there else "there"
        trust = ["--ca-cert", str(self.certificate)] if self.certificate else []

        def prepare(_: int) -> Prepared:
            command = [str(SCRIPTS / "rclone"), "--config", "/dev/null", "copy", f"here:{self.source}"]
            return [*command, f"{there}:{self.target()}", *options, *trust], self.remotes()

        return Peer(" ".join(["rclone copy", *options]), prepare, self.work, note)

    def boto3(self) -> Peer:
        def prepare(_: int) -> Prepared:
            where = [self.here.url, self.source, self.there.url, self.target()]
            return [sys.executable, "-m", "tests.benchmarks.boto3_copy", *where], self.aws()

        return Peer("boto3, 32 threads", prepare, self.work)

    def aws_through_disk(self, scratch: Path) -> Peer:
        """The AWS CLI takes one endpoint, so between two it goes through the disk."""

        def prepare(number: int) -> Prepared:
            sync, folder = f"{aws_cli()} s3 sync --only-show-errors --endpoint-url", scratch / f"sync-{number}"
            down = f"{sync} {self.here.url} s3://{self.source} {folder}"
            up = f"{sync} {self.there.url} {folder} s3://{self.target()}"
            return ["sh", "-c", f"{down} && {up} && rm -r {folder}"], self.aws()

        return Peer("aws s3 sync through a disk", prepare, self.work)

    def aws_sync(self, note: str = "") -> Peer:
        """Within one endpoint."""

        def prepare(_: int) -> Prepared:
            command = [str(aws_cli()), "s3", "sync", "--only-show-errors", "--endpoint-url", self.here.url]
            return [*command, f"s3://{self.source}", f"s3://{self.target()}"], self.aws()

        return Peer("aws s3 sync", prepare, self.work, note)

    def s5cmd(self, verb: str, note: str = "") -> Peer:
        """Within one endpoint."""

        def prepare(_: int) -> Prepared:
            command = [str(s5cmd()), "--log", "error", "--endpoint-url", self.here.url, verb]
            return [*command, f"s3://{self.source}/*", f"s3://{self.target()}/"], self.aws()

        return Peer(f"s5cmd {verb}", prepare, self.work, note)

    def remotes(self) -> Mapping[str, str]:
        """Both servers as rclone's remotes, in its environment."""
        return {
            f"RCLONE_CONFIG_{remote}_{name}": value
            for remote, endpoint in (("HERE", self.here), ("THERE", self.there))
            for name, value in (
                ("TYPE", "s3"),
                ("PROVIDER", RCLONE_PROVIDERS.get(endpoint.name, "Ceph")),
                ("ENDPOINT", endpoint.url),
                ("REGION", endpoint.region),
                ("FORCE_PATH_STYLE", "true"),
                ("ACCESS_KEY_ID", endpoint.access_key),
                ("SECRET_ACCESS_KEY", endpoint.secret_key),
            )
        }

    def aws(self) -> Mapping[str, str]:
        """The environment of tools that take one set of keys."""
        return {
            "AWS_ACCESS_KEY_ID": self.here.access_key,
            "AWS_SECRET_ACCESS_KEY": self.here.secret_key,
            "AWS_DEFAULT_REGION": self.here.region,
            "AWS_REGION": self.here.region,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }
