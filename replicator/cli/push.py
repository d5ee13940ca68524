"""replicator push: a local folder as the source of an upload."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from replicator.aws.config_source import load_config
from replicator.bulk.brakes import MaxDelete, parse_max_delete
from replicator.bulk.plan import Plan
from replicator.cli.launch import cpus, trash_of
from replicator.cli.options import FilteringCommand, check_endpoints, key_filter, run_options, target_options
from replicator.directory.attributes import parse_attributes
from replicator.durations import parse_duration
from replicator.errors import ConfigurationError
from replicator.model import Attributes, Deletes
from replicator.push.job_file import TIME_PATH, read_job_file
from replicator.push.settle import Settle, TimePath
from replicator.settings import PushSettings

SETTLE, RESCAN = "30s", "10m"

FILE = click.Path(path_type=Path)
"""The type of options that name one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for, beside where to. rescan: seconds. catalog, metrics_at: as they were written."""

    plan: Plan
    mirror: bool
    watch: bool
    settle: Settle
    overwrite: bool
    rescan: float
    attributes: Attributes
    catalog: str | None
    metrics_at: str | None
    report: Path | None
    log_json: bool


@click.command(cls=FilteringCommand)
@click.argument("folder", metavar="DIR|CONFIG.json", type=FILE)
@click.argument("target", required=False)
@click.option("--mirror", is_flag=True, help="Make the bucket equal to the folder; deletes there what is not here.")
@click.option("--move", is_flag=True, help="Upload files, and remove each one here when it is proved to be there.")
@click.option("--watch", is_flag=True, help="Go on: push what changes within seconds.")
@click.option("--settle", metavar="TIME", help=f"With --move: leave files alone for so long.  [default: {SETTLE}]")
@click.option("--time-path", metavar="PATTERN", help=f"With --move: how paths tell a file's time, as {TIME_PATH!r}.")
@click.option("--overwrite", is_flag=True, help="With --move: also in the place of a file that was moved there before.")
@click.option("--rescan", metavar="TIME", help=f"With --watch: look at everything so often.  [default: {RESCAN}]")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="For all objects: Cache-Control ...")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="User metadata for all objects.")
@click.option(
    "--max-delete",
    metavar="N|P%",
    help="Delete no more, else nothing.  [default: 100, or 10% if that is more]",
)
@click.option("--trash", metavar="PREFIX", help="Move there, below the target, instead of deleting.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--catalog", metavar="URL", help="postgresql://..., or a file ending in .db: see `replicator ls --help`.")
@click.option("--metrics", "metrics_at", metavar="[HOST]:PORT", help="With --watch: /metrics and /healthz, as :9108.")
@click.option("--log-json", is_flag=True, help="Log lines of JSON. LOG_METHOD and so on: docs/SERVICES.md.")
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Worker processes.  [default: the CPUs; with --move 1]",
)
@target_options
@run_options
def push(folder: Path, target: str | None, **options: Any) -> int:  # noqa: ANN401 - click's
    """Push a folder to a bucket: mirror it, or move its files there.

    TARGET may also come from TARGET_BUCKET or AWS_BUCKET_NAME. Links, pipes and devices are left alone and named.
    CONFIG.json is {"base_dir": ..., "s3_bucket": ...}: moves what is below base_dir, by the times in its paths.

    \b
    replicator push ./site s3://my-site --mirror --header 'Cache-Control: max-age=300'
    replicator push /var/spool/data s3://archive/data --move --settle 1m
    replicator push ./photos s3://photos --mirror --watch
    """
    if folder.is_file() or (folder.suffix == ".json" and not folder.exists()):
        folder, target = _from_job_file(folder, target, options)
    asked = _asked(options)
    if target is not None:
        check_endpoints("target", (target,), options)
    overrides = {name.upper(): str(options[name]) for name in _SETTINGS if options[name] is not None}
    # Many small files want all CPUs; the few that a timer moves each minute do not.
    defaults = {"PROCESSES": str(cpus() if asked.mirror else 1)}
    settings = PushSettings.from_env(
        {**defaults, **os.environ, **overrides, "DELETES": asked.plan.deletes.value},
        folder=folder,
        target=target,
        config=load_config(options["config"], os.environ),
    )
    from replicator.cli.pushing import run_push  # brings databases along: not for the other verbs

    return run_push(settings, asked)


_SETTINGS = (
    *("concurrency", "processes", "max_rps", "bandwidth"),
    *("target_endpoint", "target_region", "target_profile"),
)


def _asked(options: Mapping[str, Any]) -> Asked:
    """What the options come to. Raises ConfigurationError for those that contradict each other."""
    mirror, move, watch = (options[name] for name in ("mirror", "move", "watch"))
    if mirror and move:
        raise ConfigurationError("--mirror and --move: give one of them")
    if not (mirror or move):
        raise ConfigurationError("give --mirror, to make the bucket equal, or --move, to move the files there")
    _check_alone(options, "--move", not mirror, ("settle", "time_path"))
    _check_alone(options, "--mirror", mirror, ("max_delete", "trash"))
    _check_alone(options, "--watch", watch, ("rescan", "metrics_at"))
    if mirror and options["overwrite"]:
        raise ConfigurationError("--overwrite says something about --move, which is not given")
    if watch and options["dry_run"]:
        raise ConfigurationError("--watch and --dry-run: give one of them")
    plan = Plan(
        deletes=Deletes.MIRROR if mirror else Deletes.KEEP,
        dry_run=options["dry_run"],
        one_look=not mirror,
        keys=key_filter(),
        max_delete=parse_max_delete(options["max_delete"]) if options["max_delete"] is not None else MaxDelete(),
        trash=trash_of(options["trash"]),
    )
    path = TimePath(options["time_path"]) if options["time_path"] is not None else None
    return Asked(
        plan,
        mirror=mirror,
        watch=watch,
        settle=Settle(parse_duration(options["settle"] or SETTLE, "--settle"), path),
        overwrite=options["overwrite"],
        rescan=max(1.0, parse_duration(options["rescan"] or RESCAN, "--rescan")),
        attributes=parse_attributes(options["headers"], options["metadata"]),
        catalog=options["catalog"],
        metrics_at=options["metrics_at"],
        report=options["report"],
        log_json=options["log_json"],
    )


def _check_alone(options: Mapping[str, Any], needed: str, given: bool, names: Sequence[str]) -> None:
    for name in names:
        if options[name] is not None and not given:
            option = "--" + name.removesuffix("_at").replace("_", "-")
            raise ConfigurationError(f"{option} says something about {needed}, which is not given")


def _from_job_file(path: Path, target: str | None, options: dict[str, Any]) -> tuple[Path, str]:
    """Folder and bucket of a CONFIG.json, which is the same as --move with its --time-path."""
    if path.suffix != ".json" and path.exists():
        raise ConfigurationError(f"{path}: is a file: give its folder, and --exclude '*' --include for it alone")
    if target is not None or options["mirror"]:
        raise ConfigurationError(f"{path}: tells the bucket, and that files are moved: give no TARGET, and no --mirror")
    job = read_job_file(path)
    options["move"] = True
    options["time_path"] = options["time_path"] or TIME_PATH
    return job.folder, job.bucket
