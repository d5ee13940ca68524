"""What every test may rely on: nobody's account, the same examples on every run, real servers on demand.

A server is started by the first test that asks for it and lives as long as the session. Under pytest-xdist
each worker starts its own: ports and directories are always fresh, so they do not meet.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from tests.servers import Endpoint, moto, postgres, rclone, rgw, swift

Served = TypeVar("Served")

REQUIRE_SERVERS = "REPLICATOR_REQUIRE_SERVERS"

SECONDS = 600
"""After which a test hangs that is not one of a unit: the longest takes one on a quiet machine, with its servers."""

# A test that is slow, or whose examples are, is no failure: that may be the machine.
PATIENT = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True)
hypothesis.settings.register_profile("ci", PATIENT, derandomize=True)
hypothesis.settings.register_profile("explore", PATIENT, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives tests with servers and processes more time: who asks first for a server also waits until it has started."""
    for item in items:
        if item.path.parent.name != "unit" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that is a coroutine function in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


@pytest.fixture(scope="session", autouse=True)
def no_real_account() -> Iterator[None]:
    """No test sees the keys, profiles or proxies of whoever runs it, nor asks an instance for its role."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
            environment.delenv(name)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        environment.setenv("AWS_CONFIG_FILE", os.devnull)
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield


@pytest.fixture(scope="session")
def moto_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    yield from _start(moto.missing, moto.serve, tmp_path_factory.mktemp("moto"))


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    yield from _start(rclone.missing, rclone.serve, tmp_path_factory.mktemp("rclone"))


@pytest.fixture(scope="session")
def second_rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    yield from _start(rclone.missing, rclone.serve, tmp_path_factory.mktemp("rclone"))


@pytest.fixture(scope="session")
def rgw_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    yield from _start(rgw.missing, rgw.serve, tmp_path_factory.mktemp("rgw"))


@pytest.fixture(scope="session")
def second_rgw_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    yield from _start(rgw.missing, rgw.serve, tmp_path_factory.mktemp("rgw"))


@pytest.fixture(scope="session")
def swift_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    yield from _start(swift.missing, swift.serve, tmp_path_factory.mktemp("swift"))


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Cluster]:
    yield from _start(postgres.missing, postgres.serve, tmp_path_factory.mktemp("postgres"))


@pytest.fixture
def postgres_url(postgres_cluster: postgres.Cluster) -> str:
    """A database with nothing in it."""
    return postgres_cluster.url(postgres_cluster.new_database())


def _start(
    missing: Callable[[], str | None],
    serve: Callable[[Path], AbstractContextManager[Served]],
    state: Path,
) -> Iterator[Served]:
    if reason := missing():
        if os.environ.get(REQUIRE_SERVERS) == "1":
            pytest.fail(f"{REQUIRE_SERVERS} is set, but {reason}", pytrace=False)
        pytest.skip(reason)
    with serve(state) as served:
        yield served
