"""What a replicator.toml with several routes means for a deployment: more buckets to write to, more secrets to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import boto3

from infra.settings import Deployment
from replicator.aws.config_source import load_config
from replicator.errors import ConfigurationError
from replicator.routes import read_routes
from replicator.settings import Settings


def with_routes(deployment: Deployment, given: Mapping[str, str], session: boto3.Session) -> Deployment:
    """The deployment with what its REPLICATOR_CONFIG asks for, read now; itself if it has none.

    given: all variables, for those of named endpoints. A file that is changed later needs another deployment only if it
    names other buckets or secrets. Raises ConfigurationError, also for routes of another source bucket.
    """
    if not deployment.variables.get("REPLICATOR_CONFIG"):
        return deployment
    config = load_config(None, deployment.variables, client=session.client)
    endpoints = config.get("endpoints")
    named = [f"{name.upper().replace('-', '_')}_" for name in endpoints] if isinstance(endpoints, Mapping) else []
    secrets = {name: given[name] for start in named if given.get(name := f"{start}SECRET_ID")}
    variables = {**deployment.variables, **secrets}
    routes = read_routes(variables, config)
    problems = [line for route in routes for line in _faults(route, deployment.bucket)]
    if problems:
        raise ConfigurationError("\n".join(problems))
    sides = [side for route in routes for side in (route.source, *route.targets)]
    more = {
        "MORE_TARGETS": {target.bucket for route in routes for target in route.targets if target.endpoint is None},
        "MORE_SECRETS": {side.secret_id for side in sides if side.secret_id is not None},
    }
    return replace(
        deployment, variables=variables | {name: ",".join(sorted(some)) for name, some in more.items() if some}
    )


def _faults(route: Settings, bucket: str) -> list[str]:
    faults = []
    if route.source.bucket != bucket or route.source.endpoint is not None:
        faults.append(
            f"[routes.{route.name}]: its source is {route.source.location}, and this stack mirrors {bucket}: each "
            "source bucket has a stack and a replicator.toml of its own"
        )
    faults += [
        f"[routes.{route.name}]: {target.variables}_SECRET_ID is not set: the Lambda's own keys would be shown to "
        f"{target.endpoint}"
        for target in route.targets
        if target.endpoint is not None and target.secret_id is None
    ]
    return faults
