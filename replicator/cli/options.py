"""Options that several verbs share, and what they come to: settings, filters, a running event loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from replicator.aws.config_source import load_config
from replicator.errors import ConfigurationError
from replicator.filters import KeyFilter, Rule
from replicator.model import Deletes
from replicator.routes import read_route
from replicator.settings import Settings
from replicator.sides import split_location

Command = TypeVar("Command", bound=Callable[..., Any])

RULES = "replicator.filters"


class FilteringCommand(click.Command):
    """A command that notes the order of --include and --exclude among each other: the last match decides."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click hands over the values of each option by themselves; the parser below it also tells their order.
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        patterns = {name: iter(values.get(name) or ()) for name in ("include", "exclude")}
        given = [param.name for param in order if param.name in patterns]
        ctx.meta[RULES] = [Rule(name == "include", next(patterns[name])) for name in given if name is not None]
        return super().parse_args(ctx, args)


def location_options(command: Command) -> Command:
    """SOURCE, TARGET... and how to reach them. The environment variables in README.md do the same."""
    targets = click.argument("targets", metavar="[TARGET]...", nargs=-1)
    source = click.argument("source", metavar="[SOURCE]", required=False)
    route = click.option("--route", metavar="NAME", help="A route of replicator.toml, instead of SOURCE and TARGET.")
    return source(targets(_config(route(_side_options("source", _side_options("target", command))))))


def source_options(command: Command) -> Command:
    """How to reach the bucket that is read from."""
    return _config(_side_options("source", command))


def target_options(command: Command) -> Command:
    """How to reach the only bucket that there is."""
    return _config(_side_options("target", command))


def _side_options(side: str, command: Command) -> Command:
    for name, text in (
        ("endpoint", "URL of the store, AWS unless given"),
        ("region", "region of the bucket"),
        ("profile", "profile of the AWS configuration"),
    ):
        option = click.option(f"--{side}-{name}", metavar=name.upper(), help=f"{side.capitalize()}: {text}.")
        command = option(command)
    return command


def _config(command: Command) -> Command:
    text = "A replicator.toml with endpoints and routes: FILE, ssm:NAME or s3://BUCKET/KEY."
    return click.option("--config", metavar="PLACE", help=text)(command)


def run_options(command: Command) -> Command:
    """What every run over two listings has."""
    options = [
        click.option(
            "--include",
            multiple=True,
            expose_value=False,
            metavar="PATTERN",
            help="Keys to take in; the last match decides.",
        ),
        click.option(
            "--exclude",
            multiple=True,
            expose_value=False,
            metavar="PATTERN",
            help="Keys to leave alone; '*' matches '/' too.",
        ),
        click.option("--concurrency", type=click.IntRange(1, 4096), help="Objects in flight.  [default: 64]"),
        click.option("--max-rps", type=click.IntRange(1), metavar="N", help="Requests a second at each endpoint."),
        click.option("--bandwidth", metavar="RATE", help="Bytes a second at each endpoint, as 20M; at least 1M."),
        click.option("--report", type=click.Path(path_type=Path), help="Write a line of JSON for each object there."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def settings_from(
    source: str | None,
    targets: tuple[str, ...],
    config: str | None,
    options: dict[str, object],
    *,
    processes: int = 1,
) -> Settings:
    """Settings from the environment, or of a route, overridden by what the command line says.

    config: where the replicator.toml is, as load_config has it. processes: unless something else is said. Raises
    ConfigurationError.
    """
    if options.get("route") is not None:
        return _settings_of_route([*([source] if source is not None else []), *targets], config, options, processes)
    overrides = {name.upper(): str(value) for name, value in options.items() if value is not None}
    check_endpoints("source", (source,) if source else (), options)
    check_endpoints("target", targets, options)
    if source is not None:
        overrides["SOURCE_BUCKET"] = source
    defaults = {"PROCESSES": str(processes)}
    read = load_config(config, os.environ)
    return Settings.from_env({**defaults, **os.environ, **overrides}, targets=targets, config=read)


def _settings_of_route(
    places: Sequence[str], config: str | None, options: Mapping[str, object], processes: int
) -> Settings:
    """The route that is named, with what else the options say. Raises ConfigurationError."""
    given = {name: str(value) for name, value in options.items() if value is not None}
    name, deletes = given.pop("route"), given.pop("deletes", None)
    sides = ["--" + option.replace("_", "-") for option in given if option.startswith(("source_", "target_"))]
    if places or sides:
        raise ConfigurationError(
            f"--route {name} and {[*places, *sides][0]}: a route says itself where from and where to"
        )
    overrides = {option.upper(): value for option, value in given.items()}
    environment = {"PROCESSES": str(processes), **os.environ, **overrides}
    read = load_config(config, os.environ)
    return read_route(environment, read, name, deletes=Deletes(deletes) if deletes is not None else None)


def check_endpoints(side: str, locations: Sequence[str], options: Mapping[str, object]) -> None:
    """Raises ConfigurationError for an endpoint that is given twice: by its name, and by options of the side."""
    given = [name for name in options if name.startswith(f"{side}_") and options[name] is not None]
    named = [text for text in locations if split_location(text)[0] is not None]
    if given and named:
        option = "--" + given[0].replace("_", "-")
        raise ConfigurationError(f"{option} is not for {named[0]}: its endpoint is in replicator.toml")


def key_filter(within: KeyFilter | None = None) -> KeyFilter:
    """The --include and --exclude of the command that is running, after those of a route."""
    return (within or KeyFilter()).then(click.get_current_context().meta.get(RULES, []))


def given_options() -> frozenset[str]:
    """The names of the options that the command line of the command that is running gives."""
    context = click.get_current_context()
    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    rules = context.meta.get(RULES, [])
    return frozenset(given | {"include" if rule.include else "exclude" for rule in rules})
