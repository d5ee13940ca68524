"""The command `replicator` and its exit codes.

| code | meaning                                        |
|------|------------------------------------------------|
| 0    | all well                                       |
| 1    | some objects failed or differ                  |
| 2    | wrong usage or configuration; nothing was done |
| 3    | refused by a brake; the message says how to go on |
| 130  | interrupted                                    |
| 141  | nobody reads what it prints any more           |
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from replicator import __version__
from replicator.cli.loop import EXIT_INTERRUPTED
from replicator.errors import ConfigurationError, Refused, ReplicatorError

EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED = 1, 2, 3

EXIT_UNREAD = 141
"""What a shell says of a program that SIGPIPE ended, as of `git log | head`. Not 1: no object failed; nor 0: not all
was printed, and not all may be done."""


VERBS = {
    "connect": "connect",
    "disconnect": "connect",
    "discard": "held",
    "failures": "failures",
    "held": "held",
    "ls": "ls",
    "migrate": "migrate",
    "presign": "presign",
    "push": "push",
    "redrive": "failures",
    "release": "held",
    "serve": "serve",
    "verify": "verify",
}
"""The module of each verb. Only the one that was asked for is imported: all together cost as much as the start."""


class Verbs(click.Group):
    """The verbs, each imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not ctx.resilient_parsing:
            from difflib import get_close_matches  # only for messages

            near = get_close_matches(args[0].lower(), VERBS, n=1)
            if near:
                ctx.fail(f"there is no verb {args[0]!r}: {near[0]!r} is meant?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"replicator.cli.{VERBS[cmd_name]}"), cmd_name)
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="replicator")
def cli() -> None:
    """Copies and mirrors buckets between any S3-compatible endpoints.

    A location is s3://BUCKET/PREFIX, BUCKET/PREFIX, or NAME:BUCKET/PREFIX for an endpoint of replicator.toml.
    """


def run(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits with its code. Errors meant for people are one line each, on stderr."""
    code = main(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        code = code or EXIT_UNREAD
    sys.exit(code)


def _forget_stdout() -> None:
    """For when its reader has gone (replicator ... | head): Python would complain again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: list[str] | None = None) -> int:
    """The same, but returns the exit code."""
    try:
        code = cli.main(args=arguments, prog_name="replicator", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        verb = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "replicator"
        click.echo(f"replicator: {error.format_message()} (see {verb} --help)", err=True)
        return EXIT_USAGE
    except SystemExit:  # click's, where nobody reads what is printed any more
        return EXIT_UNREAD
    except OSError as error:
        click.echo(f"replicator: {error}", err=True)
        return EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo("replicator: interrupted; run it again to go on where it stopped", err=True)
        return EXIT_INTERRUPTED
    except ReplicatorError as error:
        for line in str(error).splitlines():
            click.echo(f"replicator: {line}", err=True)
        if isinstance(error, ConfigurationError):
            return EXIT_USAGE
        return EXIT_REFUSED if isinstance(error, Refused) else EXIT_FAILED
    return code if isinstance(code, int) else 0
