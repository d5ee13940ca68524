"""The Lambda's code and what chalice says of it: `chalice package`, in a copy of syncer/ that is thrown away."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chalicelib.deployment import CARRIED

from infra import ROOT
from infra.settings import Deployment
from infra.template import Account, Template, fragments, variables_for_chalice
from replicator.errors import ReplicatorError

CHALICE = Path(sysconfig.get_path("scripts")) / "chalice"
FORGOTTEN = shutil.ignore_patterns("__pycache__", "deployed", "deployments", "deployment.json", "policy*.json")
SECONDS = 600
EPOCH = (1980, 1, 1, 0, 0, 0)
NOT_PACKED = "chalicelib/deployment.json"
"""For plain `chalice deploy`; here the stack gives the functions their variables, and the code stays the same."""


class PackagingError(ReplicatorError):
    """chalice did not package the app; the message ends with what it said."""


@dataclass(frozen=True, slots=True)
class Package:
    """sam: the template that chalice wrote. archive: the code. key: its name, which changes only with its content."""

    sam: Template
    archive: Path
    key: str


def make_package(deployment: Deployment, account: Account, folder: Path) -> Package:
    """Packages the app below `folder`. Needs pip's index, for wheels of the Lambda's architecture.

    The same sources and wheels make the same archive, byte for byte. Raises PackagingError.
    """
    syncer = _copy(deployment, folder)
    fragment = folder / "fragments.json"
    fragment.write_text(json.dumps(fragments(deployment)))
    _chalice(syncer, folder, fragment, variables_for_chalice(deployment, account), account.region)
    archive = folder / "code.zip"
    digest = _rewrite(folder / "out" / "deployment.zip", archive)
    sam: Template = json.loads((folder / "out" / "sam.json").read_text())
    return Package(sam, archive, f"{deployment.stack}/{digest}.zip")


def _copy(deployment: Deployment, folder: Path) -> Path:
    """syncer/ as it is committed, with the library beside it, and the architecture in its configuration."""
    syncer = folder / "syncer"
    shutil.copytree(ROOT / "syncer", syncer, symlinks=True, ignore=FORGOTTEN)
    shutil.copytree(ROOT / "replicator", folder / "replicator", ignore=FORGOTTEN)
    config = syncer / ".chalice" / "config.json"
    settings = json.loads(config.read_text()) | {"lambda_architecture": deployment.architecture}
    config.write_text(json.dumps(settings))
    return syncer


def _chalice(syncer: Path, folder: Path, fragment: Path, variables: Mapping[str, str], region: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in CARRIED}
    done = subprocess.run(  # noqa: S603 - our own command
        [CHALICE, "package", "--merge-template", fragment, folder / "out"],
        cwd=syncer,
        env={**inherited, **variables, "AWS_DEFAULT_REGION": region},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0 or "Could not install dependencies" in said:
        raise PackagingError(f"chalice package failed ({done.returncode}): {said[-2000:]}")


def _rewrite(built: Path, archive: Path) -> str:
    """Writes the files again in the order of their names; the digest of names and contents."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(built) as packed, zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        for entry in sorted(packed.infolist(), key=lambda entry: entry.filename):
            if entry.is_dir() or "__pycache__" in entry.filename or entry.filename == NOT_PACKED:
                continue
            content = packed.read(entry)
            digest.update(f"{len(entry.filename)} {entry.filename} {len(content)} ".encode())
            digest.update(content)
            clean = zipfile.ZipInfo(entry.filename, EPOCH)
            clean.external_attr = 0o644 << 16
            written.writestr(clean, content, zipfile.ZIP_DEFLATED)
    return digest.hexdigest()[:32]
