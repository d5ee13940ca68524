"""POST /urls: presigned URLs through API Gateway, for callers whom IAM lets in.

What may be asked for, and what is answered, is decided in replicator.urls and replicator.s3.presigning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from chalice.app import Blueprint, IAMAuthorizer, Response

from replicator.s3.presigning import Presigner
from replicator.urls import UrlPolicy, location_of_urls


def url_routes(environment: Mapping[str, str], read_secret: Callable[[str], str], metrics: Metrics) -> Blueprint:
    """The route. read_secret: gives the text of a secret by its id.

    Raises ConfigurationError for settings that cannot be read.
    """
    policy = UrlPolicy.from_env(environment)
    location = location_of_urls(environment)
    routes = Blueprint(__name__)

    @cache
    def presigner() -> Presigner:  # by the first request: a Lambda that mirrors needs none
        return Presigner(location, read_secret=read_secret)

    @routes.route("/urls", methods=["POST"], authorizer=IAMAuthorizer())
    def urls() -> Response:
        body = routes.current_request.raw_body
        status, document = presigner().answer(body if isinstance(body, bytes) else body.encode(), policy)
        name = "UrlsSigned" if status == 200 else "UrlsRefused"
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=1)
        return Response(document, headers={"Cache-Control": "no-store"}, status_code=status)

    return routes
