"""OpenStack Swift with its S3 API: takes any key, knows PartNumber, checks MD5s; no tags, no events.

Its dependencies do not go together with ours, so it lives in an environment of its own, made once from
requirements/swift.txt and kept in the user's cache; `python -m tests.servers.swift` makes it ahead of time.
A proxy, an account, a container and an object server, with one device and one replica, and memcached.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import swift_launch
from tests.servers.base import (
    HOST,
    Endpoint,
    accepts,
    free_ports,
    http_answers,
    run_to_end,
    start,
    wait_until_ready,
)

VERSION = "2.38.3"
LOCK_FILE = Path(__file__).parents[2] / "requirements" / "swift.txt"
ACCESS_KEY = "test:tester"
SECRET_KEY = "testing"
REGION = "us-east-1"
BACKENDS = ("account", "container", "object")

SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = tests
swift_hash_path_suffix = tests
[storage-policy:0]
name = gold
default = yes
# The defaults are smaller than what S3 allows.
[swift-constraints]
max_header_size = 16384
max_meta_value_length = 2048
max_meta_overall_size = 8192
"""
SERVER = {
    "bind_ip": HOST,
    "workers": "1",
    "log_level": "WARNING",
    "log_address": "/dev/null",
    "backlog": "1024",
}
# An object is listed when its container was told of it within these seconds. There is no updater here that would tell
# it later: with the defaults, 3 and 1, a listing on a busy machine lacks the object for ever.
PATIENT = {"node_timeout": "60", "conn_timeout": "10", "container_update_timeout": "60"}
PIPELINE = (
    "catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth "
    "copy slo dlo versioned_writes symlink proxy-server"
)
FILTERS = {
    "s3api": {"location": REGION, "s3_acl": "false", "max_upload_part_num": "10000"},
    "slo": {"max_manifest_segments": "10000"},
    "versioned_writes": {"allow_versioned_writes": "true", "allow_object_versioning": "true"},
}


def missing() -> str | None:
    if shutil.which("memcached") is None:
        return "memcached not found: apt-get install memcached"
    return None


@contextmanager
def serve(state: Path, *, name: str = "swift") -> Iterator[Endpoint]:
    """The temporary directory's file system must keep user attributes (tmpfs does since Linux 6.6)."""
    swift = _Swift(state, environment(), dict(zip(("proxy", "memcached", *BACKENDS), free_ports(5), strict=True)))
    swift.write_configuration()
    with ExitStack() as servers:
        swift.start_all(servers)
        url = f"http://{HOST}:{swift.ports['proxy']}"
        yield Endpoint(name=name, url=url, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)


def environment() -> Path:
    """The directory of Swift's environment, made if it is not there; several processes may ask at once."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = _cache() / f"swift-{VERSION}" / python
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _works(home):
            _build(home)
    return home


def _works(home: Path) -> bool:
    # A link whose interpreter has been removed since does not exist.
    return (home / "bin" / "swift-proxy-server").exists() and (home / "bin" / "python").exists()


def _build(home: Path) -> None:
    """Installs into a new directory and moves that into place when it is complete."""
    shutil.rmtree(home, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="new-") as new:
        target = Path(new) / "environment"
        run_to_end([sys.executable, "-m", "venv", target], cwd=home.parent)
        install: list[str | Path] = [
            target / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        run_to_end([*install, "--require-hashes", "-r", LOCK_FILE], cwd=home.parent)
        target.rename(home)


def _cache() -> Path:
    """By the XDG rules; with neither variable, inside the environment that runs this."""
    user = os.environ.get("HOME")
    default = Path(user) / ".cache" if user else Path(sys.prefix)
    return Path(os.environ.get("XDG_CACHE_HOME") or default).absolute() / "bucket-replicator-tests"


@dataclass(frozen=True, slots=True)
class _Swift:
    state: Path
    home: Path
    ports: Mapping[str, int]

    def write_configuration(self) -> None:
        (self.state / "devices" / "d1").mkdir(parents=True)
        (self.state / "swift.conf").write_text(SWIFT_CONF)
        (self.state / "proxy-server.conf").write_text(_proxy_conf(self.state, self.ports))
        for kind in BACKENDS:
            (self.state / f"{kind}-server.conf").write_text(_backend_conf(self.state, kind, self.ports[kind]))
            self._make_ring(kind)

    def _make_ring(self, kind: str) -> None:
        """The ring says where things are: here always on the one device."""
        device = f"r1z1-{HOST}:{self.ports[kind]}/d1"
        for words in (["create", "4", "1", "1"], ["add", device, "1"], ["rebalance"]):
            command = [*self._script("swift-ring-builder"), f"{kind}.builder", *words]
            run_to_end(command, cwd=self.state)

    def start_all(self, servers: ExitStack) -> None:
        """Starts them side by side, and returns when all of them answer."""
        port = self.ports["memcached"]
        memcached = ["memcached", "-l", HOST, "-p", str(port), "-U", "0", "-u", _user(), "-m", "64"]
        commands: dict[str, list[str | Path]] = {"memcached": [*memcached]}
        for kind in (*BACKENDS, "proxy"):
            commands[kind] = [*self._script(f"swift-{kind}-server"), self.state / f"{kind}-server.conf"]
        started = []
        for name, command in commands.items():
            started.append(start(name, command, state=self.state))
            servers.callback(started[-1].stop)
        for server in started:
            wait_until_ready(server, lambda port=self.ports[server.name]: accepts(port))  # type: ignore[misc]
        wait_until_ready(started[-1], lambda: http_answers(self.ports["proxy"], "/healthcheck", expect=200))

    def _script(self, name: str) -> list[str | Path]:
        # By path, not by the script's first line: the environment was moved after it was made.
        # -P, or the directory of the launcher would have the first say in what `swift` is.
        command: list[str | Path] = [self.home / "bin" / "python", "-P", swift_launch.__file__, self.state]
        return [*command, self.home / "bin" / name]


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _backend_conf(state: Path, kind: str, port: int) -> str:
    common = {**SERVER, "bind_port": str(port), "user": _user(), "swift_dir": str(state)}
    disk = {"devices": str(state / "devices"), "mount_check": "false", "disable_fallocate": "true"}
    return (
        _section("DEFAULT", {**common, **disk, **PATIENT})
        + _section("pipeline:main", {"pipeline": f"{kind}-server"})
        + _section(f"app:{kind}-server", {"use": f"egg:swift#{kind}", "replication_server": "true"})
    )


def _proxy_conf(state: Path, ports: Mapping[str, int]) -> str:
    url = f"http://{HOST}:{ports['proxy']}/v1/AUTH_test"
    settings = {
        **FILTERS,
        "cache": {"use": "egg:swift#memcache", "memcache_servers": f"{HOST}:{ports['memcached']}"},
        "tempauth": {"user_test_tester": f"{SECRET_KEY} .admin .reseller_admin {url}"},
    }
    filters = [
        _section(f"filter:{name}", {"use": f"egg:swift#{name}", **settings.get(name, {})})
        for name in PIPELINE.split()[:-1]
    ]
    app = {"use": "egg:swift#proxy", "allow_account_management": "true", "account_autocreate": "true"}
    common = {**SERVER, "bind_port": str(ports["proxy"]), "user": _user(), "swift_dir": str(state)}
    return (
        _section("DEFAULT", common)
        + _section("pipeline:main", {"pipeline": PIPELINE})
        + _section("app:proxy-server", {**app, "node_timeout": "60", "conn_timeout": "10"})
        + "".join(filters)
    )


def _section(name: str, settings: Mapping[str, str]) -> str:
    lines = [f"{key} = {value}" for key, value in settings.items()]
    return "\n".join([f"[{name}]", *lines, ""])


if __name__ == "__main__":
    print(f"swift {VERSION}: {environment()}")
