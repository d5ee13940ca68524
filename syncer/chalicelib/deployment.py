"""Carries settings from the shell that runs `chalice deploy` to the Lambda.

Chalice's config.json takes no variables, and SOURCE_BUCKET and TARGET_BUCKET are to come from the environment. So when
the chalice command imports the app (it says so in AWS_CHALICE_CLI_MODE), two files are written that belong to this
deployment: deployment.json, packed with the Lambda, and the least-privilege policy of its role. Inside Lambda,
deployment.json is read; variables of the function itself win over it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from replicator.errors import ConfigurationError
from replicator.settings import Settings
from replicator.urls import UrlPolicy, location_of_urls

HERE = Path(__file__).parent
DEPLOYMENT = HERE / "deployment.json"
POLICY = HERE.parent / ".chalice" / "policy.json"

CARRIED = (
    *(f"{side}_{name}" for side in ("SOURCE", "TARGET") for name in ("BUCKET", "ENDPOINT", "REGION", "ADDRESSING")),
    *("ENDPOINT", "TARGET_SECRET_ID", "SOURCE_SECRET_ID", "DELETES", "CONCURRENCY", "MEMORY_BYTES", "QUEUE", "TRACING"),
    *("URLS_PREFIXES", "URLS_MAX_EXPIRY", "URLS_METHODS", "URLS_BUCKET"),
)
SECRETS = ("SOURCE_SECRET_ACCESS_KEY", "TARGET_SECRET_ACCESS_KEY")


def environment() -> dict[str, str]:
    """The settings of this deployment, QUEUE among them. In the chalice command, also writes them down."""
    if os.environ.get("AWS_CHALICE_CLI_MODE"):
        settings = carried(os.environ)
        DEPLOYMENT.write_text(json.dumps(settings, indent=1) + "\n")
        POLICY.write_text(json.dumps(policy(settings), indent=1) + "\n")
        return settings
    packed = json.loads(DEPLOYMENT.read_text()) if DEPLOYMENT.exists() else {}
    settings = {**packed, **os.environ}
    settings.setdefault("QUEUE", queue_name(settings.get("SOURCE_BUCKET", "")))
    return settings


def carried(shell: Mapping[str, str]) -> dict[str, str]:
    """What goes into the package. Raises SystemExit for settings that are missing, or secret."""
    for name in ("SOURCE_BUCKET", "TARGET_BUCKET"):
        if not shell.get(name):
            raise SystemExit(f"{name} is not set: chalice deploy needs SOURCE_BUCKET and TARGET_BUCKET")
    for name in SECRETS:
        if shell.get(name):
            raise SystemExit(
                f"{name} would be packed into the Lambda: put the keys into Secrets Manager and give their "
                f"{name.split('_')[0]}_SECRET_ID"
            )
    settings = {name: shell[name] for name in CARRIED if shell.get(name)}
    settings.setdefault("QUEUE", queue_name(settings["SOURCE_BUCKET"]))
    try:
        target = Settings.from_env(settings).targets[0]
        UrlPolicy.from_env(settings)
        location_of_urls(settings)
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
    if target.endpoint is not None and target.secret_id is None:
        print(
            f"warning: no TARGET_SECRET_ID: the Lambda will show its own role's keys to {target.endpoint}",
            file=sys.stderr,
        )
    return settings


def queue_name(source_bucket: str) -> str:
    """The queue that is listened to unless QUEUE names one."""
    bucket = source_bucket.removeprefix("s3://").partition("/")[0]
    return "replicator-" + bucket.replace(".", "-")[:69]


def policy(settings: Mapping[str, str]) -> dict[str, object]:
    """What the Lambda's role may do: read the source, write the target, settle its queue, log, read its secrets, and
    what the URLs that it signs are to allow.
    """
    source, target = (_bucket(settings[name]) for name in ("SOURCE_BUCKET", "TARGET_BUCKET"))
    read = ["s3:GetObject", "s3:GetObjectTagging", "s3:GetObjectVersion", "s3:GetObjectVersionTagging"]
    write = ["s3:PutObject", "s3:DeleteObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload"]
    write += ["s3:ListMultipartUploadParts", "s3:GetObject", "s3:GetObjectTagging"]
    queue = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
    queue += ["sqs:GetQueueUrl", "sqs:GetQueueAttributes"]
    statements = [
        _allow(["s3:ListBucket"], f"arn:aws:s3:::{source}"),
        _allow(read, f"arn:aws:s3:::{source}/*"),
        _allow(queue, f"arn:aws:sqs:*:*:{settings['QUEUE']}"),
        _allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], "arn:aws:logs:*:*:*"),
    ]
    if settings.get("TRACING") == "on":
        statements.append(_allow(["xray:PutTraceSegments", "xray:PutTelemetryRecords"], "*"))
    if not (settings.get("TARGET_ENDPOINT") or settings.get("ENDPOINT")):
        statements.append(_allow(["s3:ListBucket", "s3:ListBucketMultipartUploads"], f"arn:aws:s3:::{target}"))
        statements.append(_allow(write, f"arn:aws:s3:::{target}/*"))
    statements += _urls(settings)
    secrets = [settings[name] for name in ("SOURCE_SECRET_ID", "TARGET_SECRET_ID") if settings.get(name)]
    statements += [_allow(["secretsmanager:GetSecretValue"], _secret_arn(secret)) for secret in secrets]
    return {"Version": "2012-10-17", "Statement": statements}


def _urls(settings: Mapping[str, str]) -> list[dict[str, object]]:
    """What may be in a URL: it can do no more than the role that signs it. Nothing for a bucket that is not at AWS."""
    location, wanted = location_of_urls(settings), UrlPolicy.from_env(settings)
    if location.endpoint is not None:
        return []
    actions = [f"s3:{method.capitalize()}Object" for method in sorted(wanted.methods)]
    within = [_literal(location.prefix + directory) for directory in wanted.directories]
    return [_allow(actions, f"arn:aws:s3:::{location.bucket}/{prefix}*") for prefix in within]


def _literal(text: str) -> str:
    """Text in which IAM sees no wildcards and no variables."""
    return re.sub(r"[*?$]", lambda found: "${" + found[0] + "}", text)


def _allow(actions: list[str], resource: str) -> dict[str, object]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}


def _bucket(location: str) -> str:
    return location.removeprefix("s3://").partition("/")[0]


def _secret_arn(secret_id: str) -> str:
    return secret_id if secret_id.startswith("arn:") else f"arn:aws:secretsmanager:*:*:secret:{secret_id}-*"
