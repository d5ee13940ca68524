"""The Lambdas: `mirror` is fed with S3's notifications and work items by SQS, `reconcile` by a clock, `batch` by S3
Batch Operations, and `POST /urls` by API Gateway.

Composition only; what happens is in replicator.live. Deploy with `chalice deploy` (README.md beside this file), or all
of it with `make deploy` (docs/AWS.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from chalice.app import Chalice, CloudWatchEvent, ConvertToMiddleware, SQSEvent
from chalicelib.catalogue import recorder
from chalicelib.deployment import environment
from chalicelib.mirroring import LambdaMirror
from chalicelib.telling import Telling

from replicator.batch_operations import answer, parse_invocation
from replicator.events import messages_of
from replicator.model import Outcome

ENVIRONMENT = environment()
app = Chalice(app_name="bucket-replicator")
logger = Logger(service="replicator")
metrics = Metrics(namespace="BucketReplicator", service="mirror")
metrics.set_default_dimensions(source=ENVIRONMENT.get("SOURCE_BUCKET", "").removeprefix("s3://").partition("/")[0])
telling = Telling(logger, metrics)
app.register_middleware(ConvertToMiddleware(logger.inject_lambda_context))


@app.middleware("all")
def publish(event: Any, get_response: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - each function's own
    """Writes the metrics of an invocation, if it has any: powertools' own middleware warns of those that have none."""
    try:
        return get_response(event)
    finally:
        if metrics.provider.metric_set:
            metrics.flush_metrics()


if ENVIRONMENT.get("TRACING") == "on":  # X-Ray's SDK imports all of botocore: 390 ms of a cold start that has 250
    from aws_lambda_powertools import Tracer

    tracer = Tracer(service="replicator")  # not told of answers, in which there may be URLs
    app.register_middleware(ConvertToMiddleware(partial(tracer.capture_lambda_handler, capture_response=False)))


class SomeMessagesFailed(Exception):
    """The invocation fails so that Lambda deletes nothing: what was done is deleted already, the rest comes again."""


@cache
def the_mirror(queue: str) -> LambdaMirror:
    """Made by the first invocation, used by all that follow in this sandbox."""
    return LambdaMirror(ENVIRONMENT, queue, telling, _read_secret)


@cache
def the_recorder(queue: str) -> Callable[[Sequence[Outcome]], None]:
    """Notes outcomes in the catalogue, if the function's variables name one."""
    return recorder(ENVIRONMENT, the_mirror(queue).routes)


def _read_secret(secret_id: str) -> str:
    from aws_lambda_powertools.utilities import parameters  # imports boto3: only where a secret is named

    return str(parameters.get_secret(secret_id, max_age=60))


if ENVIRONMENT.get("URLS_PREFIXES"):  # without a route there is no API Gateway
    from chalicelib.urls import url_routes

    app.register_blueprint(url_routes(ENVIRONMENT, _read_secret, metrics))


@app.on_sqs_message(queue=ENVIRONMENT["QUEUE"], batch_size=10, name="mirror")
def mirror(event: SQSEvent) -> None:
    """Handles a batch of messages. Raises SomeMessagesFailed after settling each message by itself."""
    messages = messages_of(event.to_dict())
    queue = messages[0].queue_arn
    handled = the_mirror(queue).handle(messages, seconds=_seconds(event.context))
    for one in handled:
        telling.handled(one)
    telling.flush()
    failed = [one for one in handled if one.error is not None]
    for refusal in the_mirror(queue).settle(handled) if failed else ():
        logger.warning("a queue did not settle a message", extra={"refusal": refusal})
    the_recorder(queue)([outcome for one in handled for outcome in one.outcomes])
    if failed:
        raise SomeMessagesFailed(f"{len(failed)} of {len(handled)} messages failed; the others are done")


RECONCILE = ENVIRONMENT.get("RECONCILE") or ("rate(1 day)" if ENVIRONMENT.get("QUEUE_URL") else "off")
if RECONCILE != "off":

    @app.schedule(RECONCILE, name="reconcile")
    def reconcile(event: CloudWatchEvent) -> None:
        """Has all keys compared, so that what no event told of is found."""
        count = the_mirror(ENVIRONMENT["QUEUE_URL"]).reconcile()
        logger.info("reconciling", extra={"routes": count})


@app.lambda_function(name="batch")
def batch(event: Mapping[str, Any], context: Any) -> dict[str, object]:  # noqa: ANN401 - Lambda's own
    """Converges the objects that a job of S3 Batch Operations names."""
    invocation = parse_invocation(event)
    ends, outcomes = the_mirror(ENVIRONMENT.get("QUEUE_URL", "")).converge(invocation, seconds=_seconds(context))
    for outcome in outcomes:
        telling.add(outcome)
    telling.flush()
    return answer(invocation, ends)


def _seconds(context: Any) -> float:  # noqa: ANN401 - Lambda's own
    """Until the invocation ends."""
    return float(context.get_remaining_time_in_millis()) / 1000
