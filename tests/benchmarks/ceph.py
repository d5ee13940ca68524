"""What a benchmark needs of a Ceph cluster of tests.servers.rgw beyond a gateway: TLS, and its memory back."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.servers import Endpoint, rgw
from tests.servers.base import HOST, accepts, free_port, run_to_end, running


@contextmanager
def serve_over_tls(state: Path, certificate: tuple[Path, Path]) -> Iterator[tuple[Endpoint, Endpoint]]:
    """A cluster with two gateways: (the one over TLS, the plain one).

    certificate: files of the certificate and its key.
    """
    port = free_port()
    frontend = f"beast tcp_nodelay=1 ssl_endpoint={HOST}:{port}"
    frontend += f" ssl_certificate={certificate[0]} ssl_private_key={certificate[1]}"
    command = ["radosgw", "-n", "client.rgw.tls", "-f", f"--rgw-frontends={frontend}"]
    with (
        rgw.serve(state) as plain,
        running(
            "radosgw-tls",
            command,
            state=state,
            env=_configured(state),
            ready=lambda: accepts(port),
            stop_with=signal.SIGKILL,
        ),
    ):
        yield replace(plain, name="rgw-tls", url=f"https://{HOST}:{port}"), plain


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Files of a certificate for the address that all servers here listen on, and of its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName=IP:{HOST}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def collect_garbage(state: Path) -> None:
    """Frees what deleted objects occupy: by itself Ceph does so after two hours, and the store is in memory."""
    command = ["radosgw-admin", "-n", "client.rgw.admin", "gc", "process", "--include-all"]
    run_to_end(command, env=_configured(state), cwd=state)


def _configured(state: Path) -> dict[str, str]:
    return {"CEPH_CONF": str(state / "ceph.conf")}
