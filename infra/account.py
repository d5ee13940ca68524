"""Looks at the account before anything is made in it: what would fail later, or lose events, is refused here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from infra.settings import Deployment
from infra.template import Account
from replicator.errors import ConfigurationError
from replicator.sides import split_location

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient


@dataclass(frozen=True, slots=True)
class Found:
    """account: the source bucket's region in it. target_region: of a target at AWS. warnings: one line each."""

    account: Account
    target_region: str | None
    warnings: tuple[str, ...] = ()


def look(deployment: Deployment, session: boto3.Session) -> Found:
    """Checks credentials, buckets, secrets and limits; changes nothing.

    Raises ConfigurationError with what is wrong and what to do.
    """
    account = _account(deployment.bucket, session)
    region = account.region
    s3 = session.client("s3", region_name=region)
    target = _region_of_bucket(s3, "TARGET_BUCKET", deployment.target) if deployment.target_is_at_aws else None
    _check_keys(deployment, region)
    warnings = _look_at_secrets(deployment, session.client("secretsmanager", region_name=region))
    warnings += _look_at_concurrency(deployment, session.client("lambda", region_name=region))
    return Found(account, target, tuple(warnings))


def look_at_source(location: str, session: boto3.Session) -> tuple[Found, str]:
    """The account and region of a source bucket, and its name. Raises ConfigurationError as `look` does."""
    bucket = split_location(location)[1]
    return Found(_account(bucket, session), None), bucket


def _account(bucket: str, session: boto3.Session) -> Account:
    partition, number = _identity(session)
    s3 = session.client("s3", region_name=session.region_name or "us-east-1")
    region = _region_of_bucket(s3, "SOURCE_BUCKET", bucket)
    if session.region_name and session.region_name != region:
        raise ConfigurationError(
            f"SOURCE_BUCKET={bucket} is in {region}, and AWS_REGION is {session.region_name}: a bucket can only notify "
            f"a queue of its own region; say AWS_REGION={region}"
        )
    return Account(partition, region, number)


def _identity(session: boto3.Session) -> tuple[str, str]:
    try:
        who = session.client("sts", region_name=session.region_name or "us-east-1").get_caller_identity()
    except NoCredentialsError:
        raise ConfigurationError("no AWS credentials: log in, or set AWS_PROFILE or AWS_ACCESS_KEY_ID") from None
    except (BotoCoreError, ClientError) as error:
        raise ConfigurationError(f"AWS does not take the credentials: {error}") from error
    return who["Arn"].split(":")[1], who["Account"]


def _region_of_bucket(s3: S3Client, variable: str, bucket: str) -> str:
    try:
        answer = s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("404", "NoSuchBucket"):
            raise ConfigurationError(f"{variable}={bucket}: there is no such bucket; it is not made here") from None
        if code == "403":
            raise ConfigurationError(
                f"{variable}={bucket}: not allowed to see it (s3:ListBucket); is it yours?"
            ) from None
        raise ConfigurationError(f"{variable}={bucket}: {error}") from error
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or _location(s3, bucket)


def _location(s3: S3Client, bucket: str) -> str:
    """us-east-1 says nothing, and the oldest buckets of eu-west-1 say EU."""
    said = s3.get_bucket_location(Bucket=bucket).get("LocationConstraint")
    return {None: "us-east-1", "EU": "eu-west-1"}.get(said, str(said))


def _check_keys(deployment: Deployment, region: str) -> None:
    """SQS takes keys of its own region only."""
    if deployment.kms_key and deployment.kms_key.split(":")[3] != region:
        raise ConfigurationError(
            f"KMS_KEY_ARN={deployment.kms_key}: the queues are in {region}, and need a key from there"
        )


def _look_at_secrets(deployment: Deployment, client: SecretsManagerClient) -> list[str]:
    more = [name.strip() for name in deployment.variables.get("MORE_SECRETS", "").split(",") if name.strip()]
    named = [deployment.variables.get(f"{side}_SECRET_ID", "") for side in ("SOURCE", "TARGET")]
    warnings = []
    for secret in [name for name in (*named, *more) if name]:
        warnings += _looked("secret", secret, partial(client.describe_secret, SecretId=secret))
    return warnings


def _looked(what: str, name: str, ask: Callable[[], object]) -> list[str]:
    """A warning if it may not be seen; refused if it is not there."""
    try:
        ask()
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            raise ConfigurationError(f"{what} {name}: not in Secrets Manager of this region; make it first") from None
        return [f"{what} {name}: not looked at: {error.response['Error'].get('Code')}"]
    return []


def _look_at_concurrency(deployment: Deployment, client: LambdaClient) -> list[str]:
    """A young account may run ten functions at once, all together."""
    try:
        limits = client.get_account_settings()["AccountLimit"]
    except ClientError:
        return []
    changes, work = deployment.numbers["MaximumConcurrency"], deployment.numbers["WorkConcurrency"]
    left = limits.get("UnreservedConcurrentExecutions")
    if left is not None and left < changes + work:
        return [
            f"MAX_CONCURRENCY={changes} and WORK_CONCURRENCY={work}, but this account has {left} left for all its "
            "functions: some will be throttled"
        ]
    return []
