"""How the commands of infra end: one line for a person's mistake, and the exit codes of `replicator`."""

from __future__ import annotations

import click
from botocore.exceptions import BotoCoreError, ClientError

from replicator.errors import ConfigurationError, Refused, ReplicatorError


def exit_code(command: click.Command, arguments: list[str] | None = None) -> int:
    """Runs a command with these arguments, or the process's own.

    0: all well; 1: it failed; 2: wrong settings, and nothing was changed; 3: refused; 130: interrupted.
    """
    try:
        command.main(arguments, standalone_mode=False)
    except click.UsageError as error:
        return _say(error.format_message(), 2)
    except ConfigurationError as error:
        return _say(str(error), 2)
    except Refused as error:
        return _say(str(error), 3)
    except (ReplicatorError, BotoCoreError, ClientError) as error:
        return _say(str(error), 1)
    except click.Abort:
        return _say("interrupted; what CloudFormation has begun, it goes on with: run the same again", 130)
    return 0


def _say(text: str, code: int) -> int:
    for line in text.splitlines():
        click.echo(f"error: {line}" if not line.startswith(" ") else line, err=True)
    return code
