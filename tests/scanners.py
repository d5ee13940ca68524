"""checkov: looks for what is known to be unsafe in templates. In an environment of its own, as it pins half the world.

Made once from requirements/checkov.txt and kept in the user's cache; `python -m tests.scanners` makes it ahead of time.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOCK_FILE = Path(__file__).parents[1] / "requirements" / "checkov.txt"
SECONDS = 900


class ScannerError(RuntimeError):
    """It could not be installed, or did not run."""


def checkov() -> Path:
    """Its command; several processes may ask at once. Raises ScannerError if it cannot be installed."""
    version = re.search(r"^checkov==(\S+)", LOCK_FILE.read_text(), re.M)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bucket-replicator"
    home = cache / f"checkov-{version[1] if version else 'none'}" / python
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "bin" / "checkov").exists():
            _build(home)
    return home / "bin" / "checkov"


def findings(template: Path) -> set[tuple[str, str]]:
    """(check, resource) of all that checkov finds in a template. It talks to nobody."""
    done = subprocess.run(
        [checkov(), "--framework", "cloudformation", "--file", template, "--output", "json", "--quiet", "--soft-fail"],
        env={"PATH": os.environ["PATH"], "HOME": str(template.parent), "BC_SKIP_MAPPING": "TRUE"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    try:
        said: Any = json.loads(done.stdout)
        checks = said["results"]["failed_checks"]
        if not (said["summary"]["passed"] > 0 and said["summary"]["parsing_errors"] == 0):
            raise ScannerError(f"checkov did not read the template: {said['summary']}")
    except (ValueError, KeyError, TypeError) as error:
        raise ScannerError(f"checkov did not run: {done.stdout[-500:]} {done.stderr[-1500:]}") from error
    return {(one["check_id"], one["resource"].rpartition(".")[2]) for one in checks}


def _build(home: Path) -> None:
    """Installs into a new directory and moves that into place when it is complete."""
    shutil.rmtree(home, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="new-") as new:
        target = Path(new) / "environment"
        _run(sys.executable, "-m", "venv", str(target))
        # As a module of its interpreter: scripts have the path of the directory that they were installed into.
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        _run(str(target / "bin" / "python"), *install, "-r", str(LOCK_FILE))
        _point_to(target / "bin", home / "bin")
        target.rename(home)


def _point_to(there: Path, final: Path) -> None:
    """Has the scripts name the interpreter where it is going to be."""
    script = there / "checkov"
    script.write_text(f'#!/bin/sh\nexec "{final}/python" -m checkov.main "$@"\n')
    script.chmod(0o755)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise ScannerError(f"{' '.join(command[:5])} failed: {(done.stdout + done.stderr)[-2000:]}")


if __name__ == "__main__":
    print(checkov())
