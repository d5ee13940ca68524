"""Options that several verbs share, and what they come to: settings, filters, a running event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from replicator.bulk.filters import KeyFilter, Rule
from replicator.errors import ConfigurationError
from replicator.settings import Settings
from replicator.sides import read_config, split_location

Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])

RULES = "replicator.filters"

EXIT_INTERRUPTED = 130

STOP_WITHIN = 4.7
"""Seconds after a signal at which a run ends in any case."""


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
    return source(targets(_config(_side_options("source", _side_options("target", command)))))


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
    return click.option("--config", type=click.Path(path_type=Path), help="A replicator.toml with endpoints.")(command)


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
        click.option("--bandwidth", metavar="RATE", help="Bytes a second at each endpoint, as 20M."),
        click.option("--report", type=click.Path(path_type=Path), help="A line of JSON for each object."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def settings_from(
    source: str | None,
    targets: tuple[str, ...],
    config: Path | None,
    options: dict[str, object],
    *,
    processes: int = 1,
) -> Settings:
    """Settings from the environment, overridden by what the command line says. Raises ConfigurationError.

    processes: unless something else is said.
    """
    overrides = {name.upper(): str(value) for name, value in options.items() if value is not None}
    check_endpoints("source", (source,) if source else (), options)
    check_endpoints("target", targets, options)
    if source is not None:
        overrides["SOURCE_BUCKET"] = source
    defaults = {"PROCESSES": str(processes)}
    return Settings.from_env({**defaults, **os.environ, **overrides}, targets=targets, config=read_config(config))


def check_endpoints(side: str, locations: Sequence[str], options: Mapping[str, object]) -> None:
    """Raises ConfigurationError for an endpoint that is given twice: by its name, and by options of the side."""
    given = [name for name in options if name.startswith(f"{side}_") and options[name] is not None]
    named = [text for text in locations if split_location(text)[0] is not None]
    if given and named:
        option = "--" + given[0].replace("_", "-")
        raise ConfigurationError(f"{option} is not for {named[0]}: its endpoint is in replicator.toml")


def key_filter() -> KeyFilter:
    """The --include and --exclude of the command that is running."""
    return KeyFilter(click.get_current_context().meta.get(RULES, []))


def run_async(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Runs a coroutine in a fresh event loop (uvloop where there is one).

    SIGINT and SIGTERM cancel it, and KeyboardInterrupt is raised when it has ended. The event loop delivers them: a
    handler of Python's own may run between any two instructions, inside a queue that is just waking somebody up.

    A run makes millions of short-lived objects and hardly a cycle: the collector looks less often (6 % of the CPU).
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

    async def cancellable() -> Result:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - narrows the type
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop, loop, task)
        return await main()

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _stop(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Cancels a run; a request that hangs does not hold up its end."""
    task.cancel()
    loop.call_later(STOP_WITHIN, _give_up)


def _give_up() -> None:
    click.echo("replicator: interrupted; requests were left hanging. Run it again to go on where it stopped", err=True)
    sys.stdout.flush()
    os._exit(EXIT_INTERRUPTED)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Makes uvloop's event loops where there is one, else None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
