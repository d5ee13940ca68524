"""The Lambda: receives S3's notifications from SQS and mirrors the keys they name.

Composition only; what happens is in replicator.live. Deploy with `chalice deploy` (README.md beside this file).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from chalice.app import Chalice, ConvertToMiddleware, SQSEvent
from chalicelib.catalogue import recorder
from chalicelib.deployment import environment

from replicator.events import messages_of
from replicator.live.batch import Handled
from replicator.live.mirror import Mirror
from replicator.live.queue import SqsQueue
from replicator.model import Did, Outcome
from replicator.settings import Settings

ENVIRONMENT = environment()
app = Chalice(app_name="bucket-replicator")
logger = Logger(service="replicator")
metrics = Metrics(namespace="BucketReplicator", service="mirror")
app.register_middleware(ConvertToMiddleware(logger.inject_lambda_context))
app.register_middleware(ConvertToMiddleware(metrics.log_metrics))
if ENVIRONMENT.get("TRACING") == "on":  # X-Ray's SDK imports all of botocore: 390 ms of a cold start that has 250
    from aws_lambda_powertools import Tracer

    tracer = Tracer(service="replicator")  # not told of answers, in which there may be URLs
    app.register_middleware(ConvertToMiddleware(partial(tracer.capture_lambda_handler, capture_response=False)))

NAMES = {
    Did.COPIED: "Copied",
    Did.METADATA: "Updated",
    Did.TAGS: "Updated",
    Did.DELETED: "Deleted",
    Did.IN_SYNC: "InSync",
    Did.KEPT: "Kept",
    Did.FAILED: "Failed",
}


class SomeMessagesFailed(Exception):
    """The invocation fails so that Lambda deletes nothing: what was done is deleted already, the rest comes again."""


@cache
def the_mirror() -> Mirror:
    """Made by the first invocation, used by all that follow in this sandbox."""
    return Mirror(Settings.from_env(ENVIRONMENT), read_secret=_read_secret)


@cache
def the_recorder() -> Callable[[Sequence[Outcome]], None]:
    """Notes outcomes in the catalogue, if the function's variables name one."""
    return recorder(ENVIRONMENT, Settings.from_env(ENVIRONMENT))


def _read_secret(secret_id: str) -> str:
    from aws_lambda_powertools.utilities import parameters  # imports boto3: only where a secret is named

    return str(parameters.get_secret(secret_id, max_age=60))


if ENVIRONMENT.get("URLS_PREFIXES"):  # without a route there is no API Gateway
    from chalicelib.urls import url_routes

    app.register_blueprint(url_routes(ENVIRONMENT, _read_secret, metrics))


@app.on_sqs_message(queue=ENVIRONMENT["QUEUE"], batch_size=10, name="mirror")
def mirror(event: SQSEvent) -> None:
    """Converges a batch of notifications. Raises SomeMessagesFailed after settling each message by itself."""
    messages = messages_of(event.to_dict())
    context: Any = event.context
    seconds = context.get_remaining_time_in_millis() / 1000
    handled = the_mirror().handle(messages, seconds=seconds)
    for one in handled:
        _tell(one)
    failed = [one for one in handled if one.error is not None]
    for refusal in SqsQueue(messages[0].queue_arn).settle(handled) if failed else ():
        logger.warning("SQS did not settle a message", extra={"refusal": refusal})
    the_recorder()([outcome for one in handled for outcome in one.outcomes])
    if failed:
        raise SomeMessagesFailed(f"{len(failed)} of {len(handled)} messages failed; the others are done")


def _tell(one: Handled) -> None:
    """One line for each outcome, and the metrics."""
    about = {"message_id": one.message.message_id, "receive_count": one.message.receive_count}
    for outcome in one.outcomes:
        fields = {"key": outcome.key, "target": outcome.target, "reason": outcome.reason, "bytes": outcome.bytes}
        fields |= {"evidence": outcome.evidence.value, "not_kept": list(outcome.not_kept)}
        logger.info(outcome.did.value, extra={**about, **fields, "seconds": round(outcome.seconds, 3)})
        metrics.add_metric(name=NAMES[outcome.did], unit=MetricUnit.Count, value=1)
        metrics.add_metric(name="Bytes", unit=MetricUnit.Bytes, value=outcome.bytes)
    if one.error is not None:
        logger.error("message failed", extra={**about, "error": one.error})
        metrics.add_metric(name="FailedMessages", unit=MetricUnit.Count, value=1)
    elif one.ignored is not None:
        logger.info("ignored", extra={**about, "reason": one.ignored})
        metrics.add_metric(name="Ignored", unit=MetricUnit.Count, value=1)
    elif one.changed is not None:
        lag = max((datetime.now(UTC) - one.changed).total_seconds(), 0.0)
        metrics.add_metric(name="ReplicationLag", unit=MetricUnit.Seconds, value=lag)
