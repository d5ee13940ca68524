"""Ceph's RADOS Gateway: tags, versions, delete markers, conditional writes and large objects on a real store.

One monitor, one OSD that keeps its data in memory, one gateway; no authentication inside the cluster. What is
stored is lost when it stops.
"""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.base import HOST, Endpoint, ServerError, free_ports, http_answers, run_to_end, running

ACCESS_KEY = "rgw-key"
SECRET_KEY = "rgw-secret"
BINARIES = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")

GLOBAL = {
    "auth_cluster_required": "none",
    "auth_service_required": "none",
    "auth_client_required": "none",
    # The gateway asks for the 'secure' mode by default, which needs authentication: it would wait for ever.
    "ms_mon_client_mode": "crc",
    "ms_bind_ipv6": "false",
    "public_network": "127.0.0.0/8",
    "log_to_file": "false",
    "log_to_stderr": "true",
    "mon_cluster_log_to_file": "false",
    "debug_ms": "0",
    "debug_mon": "0",
    "debug_osd": "0",
    "debug_rgw": "0/0",
    # No socket files: a path in a temporary directory is soon longer than the 107 bytes they may have.
    "admin_socket": "",
    # One OSD, so one copy; a handful of placement groups, created at once.
    "osd_pool_default_size": "1",
    "osd_pool_default_min_size": "1",
    "mon_allow_pool_size_one": "true",
    "osd_crush_chooseleaf_type": "0",
    "osd_pool_default_pg_num": "8",
    "osd_pool_default_pg_autoscale_mode": "off",
    "mon_max_pg_per_osd": "1000",
    # The monitor decides quickly, and does not mind a disk that is nearly full.
    "paxos_propose_interval": "0.05",
    "paxos_min_wait": "0.01",
    "mon_data_avail_warn": "1",
    "mon_data_avail_crit": "1",
}
OSD = {
    "osd_objectstore": "memstore",
    "memstore_device_bytes": str(8 << 30),
    "osd_heartbeat_grace": "600",
    "osd_op_num_shards": "4",
    "osd_op_num_threads_per_shard": "2",
    # Short logs per placement group: they live in memory too.
    "osd_min_pg_log_entries": "10",
    "osd_max_pg_log_entries": "50",
    "osd_pg_log_dups_tracked": "10",
}
GATEWAY = {
    "rgw_thread_pool_size": "128",
    "rgw_enable_usage_log": "false",
    "rgw_enable_ops_log": "false",
    "rgw_run_sync_thread": "false",
    "rgw_dynamic_resharding": "false",
    # Few shards of everything: each is an object that has to be made before the gateway answers.
    "rgw_override_bucket_index_max_shards": "1",
    "rgw_num_control_oids": "1",
    "rgw_gc_max_objs": "2",
    "rgw_lc_max_objs": "2",
    "rgw_reshard_num_logs": "2",
    "rgw_data_log_num_shards": "1",
    "rgw_md_log_max_shards": "1",
    "rgw_multi_obj_del_max_aio": "1",
}


def missing() -> str | None:
    absent = [name for name in BINARIES if shutil.which(name) is None]
    if not absent:
        return None
    return f"{', '.join(absent)} not found: apt-get install radosgw ceph-mon ceph-osd ceph-common"


@contextmanager
def serve(state: Path, *, name: str = "rgw") -> Iterator[Endpoint]:
    """A cluster of its own: two of them share nothing."""
    mon_v2, mon_v1, port = free_ports(3)
    cluster = _Cluster(state, str(uuid.uuid4()), f"[v2:{HOST}:{mon_v2}/0,v1:{HOST}:{mon_v1}/0]")
    with ExitStack() as servers:
        servers.enter_context(_monitor(cluster))
        servers.enter_context(_osd(cluster))
        servers.enter_context(_gateway(cluster, port))
        _create_user(cluster)
        yield Endpoint(name=name, url=f"http://{HOST}:{port}", access_key=ACCESS_KEY, secret_key=SECRET_KEY)


@dataclass(frozen=True, slots=True)
class _Cluster:
    state: Path
    fsid: str
    monitors: str

    @property
    def env(self) -> dict[str, str]:
        return {"CEPH_CONF": str(self.state / "ceph.conf")}

    def run(self, *command: str | Path) -> str:
        return run_to_end(command, env=self.env, cwd=self.state)

    def says(self, word: str, *command: str) -> bool:
        """Whether the cluster answers the question, with `word` in it."""
        try:
            return word in self.run("ceph", "--connect-timeout", "10", *command)
        except ServerError:
            return False

    def write_configuration(self) -> None:
        here = self.state
        (here / "ceph.conf").write_text(
            _section("global", {**GLOBAL, "fsid": self.fsid, "mon_host": self.monitors, "run_dir": str(here)})
            + _section("mon", {"mon_data": str(here / "mon")})
            + _section("osd", {**OSD, "osd_data": str(here / "osd")})
            + _section("client", GATEWAY)
        )


@contextmanager
def _monitor(cluster: _Cluster) -> Iterator[None]:
    cluster.write_configuration()
    map_file, data = cluster.state / "monmap", cluster.state / "mon"
    data.mkdir()
    cluster.run("monmaptool", "--create", "--fsid", cluster.fsid, "--addv", "a", cluster.monitors, map_file)
    cluster.run("ceph-mon", "-i", "a", "--mkfs", "--monmap", map_file)
    with running(
        "ceph-mon",
        ["ceph-mon", "-i", "a", "-f"],
        state=cluster.state,
        env=cluster.env,
        ready=lambda: cluster.says("quorum", "mon", "stat"),
        stop_with=signal.SIGKILL,
    ):
        yield


@contextmanager
def _osd(cluster: _Cluster) -> Iterator[None]:
    identity = str(uuid.uuid4())
    (cluster.state / "osd").mkdir()
    cluster.run("ceph", "osd", "new", identity, "0")
    cluster.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
    with running(
        "ceph-osd",
        ["ceph-osd", "-i", "0", "-f"],
        state=cluster.state,
        env=cluster.env,
        ready=lambda: cluster.says("1 up", "osd", "stat"),
        # With its data in memory it does not end on SIGTERM; there is nothing to save anyway.
        stop_with=signal.SIGKILL,
    ):
        yield


@contextmanager
def _gateway(cluster: _Cluster, port: int) -> Iterator[None]:
    # Without tcp_nodelay each reply written in two pieces, a listing for example, takes 40 ms more.
    frontend = f"beast tcp_nodelay=1 endpoint={HOST}:{port}"
    with running(
        "radosgw",
        ["radosgw", "-n", "client.rgw.0", "-f", f"--rgw-frontends={frontend}"],
        state=cluster.state,
        env=cluster.env,
        ready=lambda: http_answers(port),
        stop_with=signal.SIGKILL,
    ):
        yield


def _create_user(cluster: _Cluster) -> None:
    command = ["radosgw-admin", "-n", "client.rgw.admin", "user", "create", "--uid=tester"]
    command += ["--display-name=tester", f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
    cluster.run(*command)


def _section(name: str, settings: Mapping[str, str]) -> str:
    lines = [f"{key} = {value}" for key, value in settings.items()]
    return "\n".join([f"[{name}]", *lines, ""])
