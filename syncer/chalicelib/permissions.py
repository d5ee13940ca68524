"""What each of the Lambda's functions may do: the least that it needs, by name. Pure.

One policy for each function. Plain `chalice deploy` and `make deploy` use the same; where region and account are not
known yet they are wildcards here, and infra fills them in. "work" is the queue of work items, or the queue itself.

| function      | source | target | queue, work      | sends to             | brake | secrets, keys, config |
|---------------|--------|--------|------------------|----------------------|-------|-----------------------|
| `mirror`      | reads  | writes | receives, settles| work, dead, hold     | counts| all                   |
| `batch`       | reads  | writes |                  | work, dead, hold     | counts| all                   |
| `reconcile`   |        |        |                  | work                 |       | config                |
| `api_handler` |        |        |                  |                      |       | what URLs are to allow|
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from replicator.urls import UrlPolicy, location_of_urls

Statement = dict[str, object]

READ = ("s3:GetObject", "s3:GetObjectTagging", "s3:GetObjectVersion", "s3:GetObjectVersionTagging")
WRITE = (
    *("s3:PutObject", "s3:DeleteObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload"),
    *("s3:ListMultipartUploadParts", "s3:GetObject", "s3:GetObjectTagging"),
)
RECEIVE = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes")
SEND = ("sqs:SendMessage", "sqs:GetQueueUrl")


def policies(settings: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """A policy document for each function that the app may have. settings: as the Lambda gets them.

    Raises ConfigurationError for settings of URLs that cannot be read.
    """
    queues = dict.fromkeys([_queue(settings), _work(settings)])
    receives = [_allow((*RECEIVE, "sqs:GetQueueUrl"), queue) for queue in queues]
    converging = [*_objects(settings), *_sends(settings), *_brake(settings), *_given(settings)]
    return {
        "mirror": _document(settings, *receives, *converging),
        "batch": _document(settings, *converging),
        "reconcile": _document(settings, _allow(SEND, _work(settings)), *_config(settings), *_queue_key(settings)),
        "api_handler": _document(settings, *_urls(settings), *_secrets(settings)),
    }


def _document(settings: Mapping[str, str], *statements: Statement) -> dict[str, object]:
    logs = _allow(("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"), "arn:aws:logs:*:*:*")
    tracing = _allow(("xray:PutTraceSegments", "xray:PutTelemetryRecords"), "*")
    own = [logs, tracing] if settings.get("TRACING") == "on" else [logs]
    return {"Version": "2012-10-17", "Statement": [*statements, *own]}


def _objects(settings: Mapping[str, str]) -> list[Statement]:
    """Read the source, write the targets that are at AWS. A target elsewhere has keys of its own."""
    source = bucket_of(settings["SOURCE_BUCKET"])
    statements = [
        _allow(("s3:ListBucket",), f"arn:aws:s3:::{source}"),
        _allow(READ, f"arn:aws:s3:::{source}/*"),
    ]
    elsewhere = settings.get("TARGET_ENDPOINT") or settings.get("ENDPOINT")
    first = "" if elsewhere else bucket_of(settings.get("TARGET_BUCKET", ""))
    for bucket in filter(None, dict.fromkeys([first, *_listed(settings, "MORE_TARGETS")])):
        statements.append(_allow(("s3:ListBucket", "s3:ListBucketMultipartUploads"), f"arn:aws:s3:::{bucket}"))
        statements.append(_allow(WRITE, f"arn:aws:s3:::{bucket}/*"))
    return statements


def _sends(settings: Mapping[str, str]) -> list[Statement]:
    """Work items, and poison and held deletes to where these go, if that is known; whether any of the latter wait."""
    aside = {"DEAD_LETTERS_URL": ("sqs:SendMessage",), "HOLD_QUEUE_URL": ("sqs:SendMessage", "sqs:GetQueueAttributes")}
    named = [(actions, settings[name]) for name, actions in aside.items() if settings.get(name)]
    return [_allow(SEND, _work(settings)), *(_allow(actions, _arn_of_queue(url)) for actions, url in named)]


def _brake(settings: Mapping[str, str]) -> list[Statement]:
    if not settings.get("BRAKE_TABLE"):
        return []
    table = f"arn:aws:dynamodb:*:*:table/{settings['BRAKE_TABLE']}"
    return [_allow(("dynamodb:Query", "dynamodb:UpdateItem"), table)]


def _given(settings: Mapping[str, str]) -> list[Statement]:
    """What only some deployments have: secrets, keys of KMS, a configuration with several routes."""
    keys = {"SOURCE_KMS_KEY_ARN": ("kms:Decrypt",), "TARGET_KMS_KEY_ARN": ("kms:Decrypt", "kms:GenerateDataKey")}
    named = [_allow(actions, settings[name]) for name, actions in keys.items() if settings.get(name)]
    return [*_secrets(settings), *named, *_queue_key(settings), *_config(settings)]


def _queue_key(settings: Mapping[str, str]) -> list[Statement]:
    """A message is sent with a new data key, and received with an old one."""
    key = settings.get("KMS_KEY_ARN")
    return [_allow(("kms:Decrypt", "kms:GenerateDataKey"), key)] if key else []


def _secrets(settings: Mapping[str, str]) -> list[Statement]:
    names = [settings[name] for name in ("SOURCE_SECRET_ID", "TARGET_SECRET_ID") if settings.get(name)]
    wanted = dict.fromkeys([*names, *_listed(settings, "MORE_SECRETS")])
    return [_allow(("secretsmanager:GetSecretValue",), _arn_of_secret(secret)) for secret in wanted]


def _config(settings: Mapping[str, str]) -> list[Statement]:
    """REPLICATOR_CONFIG: ssm:NAME or s3://bucket/key."""
    where = settings.get("REPLICATOR_CONFIG", "")
    if where.startswith("ssm:"):
        return [_allow(("ssm:GetParameter",), f"arn:aws:ssm:*:*:parameter/{where[len('ssm:') :].lstrip('/')}")]
    if where.startswith("s3://"):
        return [_allow(("s3:GetObject",), f"arn:aws:s3:::{_literal(where[len('s3://') :])}")]
    return []


def _urls(settings: Mapping[str, str]) -> list[Statement]:
    """What may be in a URL: it can do no more than the role that signs it. Nothing for a bucket that is not at AWS."""
    wanted = UrlPolicy.from_env(settings)
    if not wanted.directories:
        return []
    location = location_of_urls(settings)
    if location.endpoint is not None:
        return []
    actions = tuple(f"s3:{method.capitalize()}Object" for method in sorted(wanted.methods))
    within = [_literal(location.prefix + directory) for directory in wanted.directories]
    allowed = [_allow(actions, f"arn:aws:s3:::{location.bucket}/{prefix}*") for prefix in within]
    key = settings.get("TARGET_KMS_KEY_ARN")
    return [*allowed, _allow(("kms:Decrypt", "kms:GenerateDataKey"), key)] if allowed and key else allowed


def _literal(text: str) -> str:
    """Text in which IAM sees no wildcards and no variables."""
    return re.sub(r"[*?$]", lambda found: "${" + found[0] + "}", text)


def _allow(actions: tuple[str, ...], resource: str) -> Statement:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def _queue(settings: Mapping[str, str]) -> str:
    url = settings.get("QUEUE_URL")
    return _arn_of_queue(url) if url else f"arn:aws:sqs:*:*:{settings['QUEUE']}"


def _work(settings: Mapping[str, str]) -> str:
    name = settings.get("WORK_QUEUE")
    return f"arn:aws:sqs:*:*:{name}" if name else _queue(settings)


def _arn_of_queue(url: str) -> str:
    """Of https://sqs.REGION.amazonaws.com/ACCOUNT/NAME; the region is not in every form of the URL."""
    account, _, name = urlsplit(url).path.strip("/").rpartition("/")
    return f"arn:aws:sqs:*:{account or '*'}:{name}"


def _arn_of_secret(secret_id: str) -> str:
    """Secrets Manager adds a hyphen and six characters to a name."""
    return secret_id if secret_id.startswith("arn:") else f"arn:aws:secretsmanager:*:*:secret:{secret_id}-??????"


def bucket_of(location: str) -> str:
    """The bucket of bucket/prefix or s3://bucket/prefix."""
    return location.removeprefix("s3://").partition("/")[0]


def _listed(settings: Mapping[str, str], name: str) -> list[str]:
    return [word.strip() for word in settings.get(name, "").split(",") if word.strip()]
