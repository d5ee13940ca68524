"""The bucket that CloudFormation reads the Lambda's code from: one in each account and region, made if missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from infra.template import Account
from replicator.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def default_name(account: Account) -> str:
    """Of the bucket that is made and removed here; one that ARTIFACT_BUCKET names is neither."""
    return f"replicator-artifacts-{account.number}-{account.region}"


def exists(s3: S3Client, bucket: str, account: Account) -> bool:
    """Whether it is there and belongs to this account. Raises ConfigurationError if it is somebody else's."""
    try:
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=account.number)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
            return False
        raise ConfigurationError(f"artifact bucket {bucket}: {error}; give another ARTIFACT_BUCKET") from error
    return True


def make(s3: S3Client, bucket: str, account: Account) -> None:
    """Private; encrypted, as all buckets are."""
    if account.region == "us-east-1":
        s3.create_bucket(Bucket=bucket)
    else:
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": account.region})  # type: ignore[typeddict-item]
    s3.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )


def upload(s3: S3Client, bucket: str, key: str, archive: Path) -> bool:
    """Whether it had to be uploaded: what has this name has this content."""
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
            raise
        s3.upload_file(str(archive), bucket, key)
        return True
    return False


def forget_others(s3: S3Client, bucket: str, key: str) -> None:
    """Removes the code of earlier deployments of the stack: CloudFormation rolls back from its own copy in Lambda."""
    _remove(s3, bucket, [one for one in _keys(s3, bucket, key.partition("/")[0] + "/") if one != key])


def forget(s3: S3Client, bucket: str, stack: str, *, with_bucket: bool) -> list[str]:
    """Removes the code of a stack, and the bucket if asked to and nothing else is in it. What was removed, in words."""
    mine = _keys(s3, bucket, f"{stack}/")
    _remove(s3, bucket, mine)
    removed = [f"- code in {bucket}/{stack}/"] if mine else []
    if with_bucket and not s3.list_objects_v2(Bucket=bucket, MaxKeys=1).get("KeyCount"):
        s3.delete_bucket(Bucket=bucket)
        removed.append(f"- bucket {bucket}, which was empty")
    return removed


def _keys(s3: S3Client, bucket: str, prefix: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [one["Key"] for page in pages for one in page.get("Contents", [])]


def _remove(s3: S3Client, bucket: str, keys: list[str]) -> None:
    for key in keys:
        s3.delete_object(Bucket=bucket, Key=key)
