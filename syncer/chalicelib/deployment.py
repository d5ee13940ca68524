"""Carries settings from the shell that runs `chalice deploy` to the Lambda.

Chalice's config.json takes no variables, and SOURCE_BUCKET and TARGET_BUCKET are to come from the environment. So when
the chalice command imports the app (it says so in AWS_CHALICE_CLI_MODE), files are written that belong to this
deployment: deployment.json, packed with the Lambda, and a least-privilege policy for each function's role. Inside
Lambda, deployment.json is read; variables of the function itself win over it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from replicator.errors import ConfigurationError
from replicator.settings import Settings
from replicator.urls import UrlPolicy, location_of_urls

HERE = Path(__file__).parent
DEPLOYMENT = HERE / "deployment.json"
POLICIES = HERE.parent / ".chalice"

CARRIED = (
    *(f"{side}_{name}" for side in ("SOURCE", "TARGET") for name in ("BUCKET", "ENDPOINT", "REGION", "ADDRESSING")),
    *("ENDPOINT", "TARGET_SECRET_ID", "SOURCE_SECRET_ID", "DELETES", "CONCURRENCY", "MEMORY_BYTES", "QUEUE", "TRACING"),
    *("URLS_PREFIXES", "URLS_MAX_EXPIRY", "URLS_METHODS", "URLS_BUCKET"),
    *("QUEUE_URL", "DEAD_LETTERS_URL", "HOLD_QUEUE_URL", "BRAKE_TABLE", "RECONCILE"),
    "WORK_QUEUE",  # of `make deploy` alone, which has the function take from it too: chalice maps one queue
    *("MAX_DELETES_PER_HOUR", "DELETE_SHARE", "REPLICATOR_CONFIG", "MORE_TARGETS", "MORE_SECRETS"),
    *("KMS_KEY_ARN", "SOURCE_KMS_KEY_ARN", "TARGET_KMS_KEY_ARN"),
)
SECRETS = ("SOURCE_SECRET_ACCESS_KEY", "TARGET_SECRET_ACCESS_KEY")


def environment() -> dict[str, str]:
    """The settings of this deployment, QUEUE among them. In the chalice command, also writes them down."""
    if os.environ.get("AWS_CHALICE_CLI_MODE"):
        settings = carried(os.environ)
        DEPLOYMENT.write_text(json.dumps(settings, indent=1) + "\n")
        from chalicelib.permissions import policies  # not needed inside Lambda

        for function, policy in policies(settings).items():
            (POLICIES / f"policy-{function}.json").write_text(json.dumps(policy, indent=1) + "\n")
        return settings
    packed = json.loads(DEPLOYMENT.read_text()) if DEPLOYMENT.exists() else {}
    settings = {**packed, **os.environ}
    settings.setdefault("QUEUE", queue_name(settings.get("SOURCE_BUCKET", "")))
    return settings


def carried(shell: Mapping[str, str]) -> dict[str, str]:
    """What goes into the package. Raises SystemExit for settings that are missing, or secret."""
    has_routes = bool(shell.get("REPLICATOR_CONFIG"))  # which say where to
    for name in ("SOURCE_BUCKET",) if has_routes else ("SOURCE_BUCKET", "TARGET_BUCKET"):
        if not shell.get(name):
            raise SystemExit(f"{name} is not set: a deployment needs SOURCE_BUCKET and TARGET_BUCKET")
    for name in SECRETS:
        if shell.get(name):
            raise SystemExit(
                f"{name} would be packed into the Lambda: put the keys into Secrets Manager and give their "
                f"{name.split('_')[0]}_SECRET_ID"
            )
    settings = {name: shell[name] for name in CARRIED if shell.get(name)}
    settings.setdefault("QUEUE", queue_name(settings["SOURCE_BUCKET"]))
    try:
        target = None if has_routes else Settings.from_env(settings).targets[0]
        UrlPolicy.from_env(settings)
        if settings.get("URLS_PREFIXES") or not has_routes:
            location_of_urls(settings)
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
    if target is not None and target.endpoint is not None and target.secret_id is None:
        print(
            f"warning: no TARGET_SECRET_ID: the Lambda will show its own role's keys to {target.endpoint}",
            file=sys.stderr,
        )
    return settings


def queue_name(source_bucket: str) -> str:
    """The queue that is listened to unless QUEUE names one."""
    bucket = source_bucket.removeprefix("s3://").partition("/")[0]
    return "replicator-" + bucket.replace(".", "-")[:69]
