"""The container image can be built: its install steps run here, in clean environments, without Docker."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "migrate" / "Dockerfile").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1) for line in DOCKERFILE.replace("\\\n", " ").splitlines() if line and not line.startswith("#")
]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def test_the_image_is_slim_pinned_and_not_root() -> None:
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+( AS build)?", base) for base in arguments("FROM"))
    assert arguments("USER") == ["10001"]


def test_signals_reach_the_run_because_the_entry_point_has_no_shell() -> None:
    assert arguments("ENTRYPOINT") == ['["python", "-m", "migrate"]']


def test_everything_that_is_copied_is_in_the_repository_and_sent_to_the_builder() -> None:
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    for copied in arguments("COPY"):
        for source in copied.split()[:-1]:
            if not source.startswith(("--", "/")):
                assert (ROOT / source).exists()
                assert source.partition("/")[0] in sent


@pytest.mark.slow
def test_the_install_steps_make_an_environment_that_can_migrate(tmp_path: Path) -> None:
    build, opt = tmp_path / "build", tmp_path / "opt"
    for copied in arguments("COPY"):
        sources = [ROOT / source for source in copied.split()[:-1] if not source.startswith(("--", "/"))]
        destination = build / copied.split()[-1]
        if copied.startswith(("--", "migrate")):
            continue
        for source in sources:
            into = destination / source.name if copied.endswith("./") else destination
            into.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, into)
    for step in arguments("RUN"):
        if "useradd" not in step:
            script = step.replace("/opt/replicator", str(opt)).replace("python -m venv", "python3 -m venv")
            subprocess.run(["sh", "-ec", script], cwd=build, check=True, capture_output=True)
    shutil.copytree(ROOT / "migrate", tmp_path / "app" / "migrate")
    done = subprocess.run(
        [opt / "bin" / "python", "-m", "migrate", "--help"], cwd=tmp_path / "app", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Copy a bucket" in done.stdout
