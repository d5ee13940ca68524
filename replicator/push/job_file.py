"""The file of JSON that the timed uploader takes as its only argument."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import ConfigurationError

TIME_PATH = "{location}/%Y/%m/%d/%H/%M-{topic}.dat"
"""How its files are called."""

_FORM = '{"base_dir": "/path/of/a/folder", "s3_bucket": "name-of-a-bucket"}'


@dataclass(frozen=True, slots=True)
class JobFile:
    """A folder whose files are to be moved to a bucket."""

    folder: Path
    bucket: str


def read_job_file(path: Path) -> JobFile:
    """Raises ConfigurationError, which shows the form."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: is not JSON ({error}): write {_FORM}") from error
    names = {"base_dir", "s3_bucket"}
    if not isinstance(fields, dict) or set(fields) != names or not all(_is_text(value) for value in fields.values()):
        raise ConfigurationError(f"{path}: must be an object with base_dir and s3_bucket, and no more: write {_FORM}")
    try:
        return JobFile(Path(fields["base_dir"]).expanduser(), fields["s3_bucket"])
    except RuntimeError as error:  # the home of nobody
        raise ConfigurationError(f"{path}: base_dir: {error}") from error


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()
