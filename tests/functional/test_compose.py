"""infra/compose: Docker Compose takes it, it is open to nobody and has no password of ours, and its dashboard works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
import yaml
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from replicator.catalogue.engines import open_engine
from replicator.catalogue.entries import State
from replicator.catalogue.place import catalogue_url, url_of
from replicator.catalogue.schema import bring_up_to_date
from replicator.cli.main import cli
from replicator.metrics import Metrics
from replicator.model import Did
from tests.servers import postgres
from tests.servers.base import HOST

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "compose"
SOURCE = (FOLDER / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(SOURCE)
SERVICES = COMPOSE["services"]
USED = set(re.findall(r"(?<!\$)\$\{(\w+)", SOURCE))
OURS = ["agent", "urls"]
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "replicator.json").read_text())
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALERTS = yaml.safe_load((FOLDER / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
EXPRESSIONS = [target["expr"] for target in TARGETS if "expr" in target] + [alert["expr"] for alert in ALERTS]
QUERIES = [target["rawSql"] for target in TARGETS if "rawSql" in target]


def compose():
    """The command of Docker Compose, 2 or 1; neither needs an engine for `config`."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    reason = "there is neither docker compose nor docker-compose"
    if os.environ.get("REPLICATOR_REQUIRE_SERVERS") == "1":
        pytest.fail(f"REPLICATOR_REQUIRE_SERVERS is set, but {reason}", pytrace=False)
    return pytest.skip(reason)


def config(tmp_path, env_file):
    """What `config` says of a copy of the folder with this .env, whatever the variables of whoever runs it."""
    shutil.copytree(FOLDER, tmp_path / "infra" / "compose")
    (tmp_path / "infra" / "compose" / ".env").write_text(env_file)
    return subprocess.run(
        [*compose(), "config"],
        cwd=tmp_path / "infra" / "compose",
        env={name: value for name, value in os.environ.items() if name not in USED and not name.startswith("COMPOSE_")},
        capture_output=True,
        text=True,
        timeout=60,
    )


def example():
    return (FOLDER / ".env.example").read_text()


# Docker Compose


def test_compose_takes_it_when_the_example_is_filled_in(tmp_path):
    done = config(tmp_path, re.sub(r"^(\w+)=$", r"\1=filled-in", example(), flags=re.MULTILINE))
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"agent", "postgres", "urls", "prometheus", "grafana"}
    assert services["agent"]["environment"]["DB_PASSWORD"] == "filled-in"


def test_the_live_mirror_that_is_commented_out_is_a_service_like_the_others():
    source = re.sub(r"^  # (?=mirror(?:-state)?:|  )", "  ", SOURCE, flags=re.MULTILINE)
    with_mirror = yaml.safe_load(source)
    mirror = with_mirror["services"]["mirror"]
    verb, *arguments = mirror["command"]
    command = cli.get_command(click.Context(cli), verb)
    values, rest, _ = command.make_parser(click.Context(command)).parse_args(args=arguments)
    assert (rest, values["queue"]) == ([], "/var/lib/replicator/queue.db")
    assert mirror["read_only"]
    assert mirror["cap_drop"] == ["ALL"]
    assert [volume.split(":")[0] for volume in mirror["volumes"]] == ["mirror-state"]
    assert "mirror-state" in with_mirror["volumes"]
    drain = next(option.default for option in command.params if option.name == "drain")
    assert int(mirror["stop_grace_period"].removesuffix("s")) > drain + 9


def test_compose_refuses_the_example_as_it_is_and_names_what_is_missing(tmp_path):
    done = config(tmp_path, example())
    assert done.returncode != 0
    wanted = dict(re.findall(r"\$\{(\w+):\?([^}]+)\}", SOURCE))
    assert any(reason in done.stderr for reason in wanted.values())


# What stands in the file


def test_every_variable_is_in_the_example_and_the_other_way_round():
    assert set(re.findall(r"^(?:# )?([A-Z_]+)=", example(), flags=re.MULTILINE)) == USED


@pytest.mark.parametrize("name", SERVICES)
def test_every_secret_must_be_given(name):
    secret = re.compile("PASSWORD|TOKEN|SECRET|KEY")
    given = {key: value for key, value in SERVICES[name].get("environment", {}).items() if secret.search(key)}
    assert [key for key, value in given.items() if not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value)] == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["restart"] == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_runs_as_root(name):
    user = SERVICES[name].get("user")
    if user is None:
        assert name in OURS
        assert re.search(r"^USER 10001$", (ROOT / "migrate" / "Dockerfile").read_text(), flags=re.MULTILINE)
    else:
        assert not user.startswith(("0", "root"))


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in OURS])
def test_an_image_of_others_is_pinned(name):
    assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+[\w.-]*", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_here_and_read_only_or_a_volume_of_its_own(name):
    mounts = [mount for mount in SERVICES[name].get("volumes", []) if isinstance(mount, str)]
    for mount in mounts:
        source = mount.split(":")[0]
        if source.startswith("."):
            assert mount.endswith(":ro")
            assert (FOLDER / source).is_dir()
        else:
            assert source in COMPOSE["volumes"]


def test_the_folder_is_never_written():
    (folder,) = [mount for mount in SERVICES["agent"]["volumes"] if isinstance(mount, dict)]
    assert (folder["target"], folder["read_only"]) == (SERVICES["agent"]["command"][1], True)


def test_the_catalogue_is_reached_by_those_who_need_it_and_from_nowhere_else():
    assert COMPOSE["networks"]["catalogue"] == {"internal": True}
    assert {name for name in SERVICES if "catalogue" in SERVICES[name]["networks"]} == {"agent", "postgres", "grafana"}
    assert SERVICES["postgres"]["networks"] == ["catalogue"]
    assert "ports" not in SERVICES["postgres"]


# Our two services


@pytest.mark.parametrize("name", OURS)
def test_the_command_takes_the_options_that_a_service_gives(name):
    verb, *arguments = SERVICES[name]["command"]
    command = cli.get_command(click.Context(cli), verb)
    values, rest, _ = command.make_parser(click.Context(command)).parse_args(args=arguments)
    assert rest == []
    assert ":9108" in values.values()


@pytest.mark.parametrize("name", OURS)
def test_the_image_is_built_here_and_has_the_command(name):
    build = SERVICES[name]["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    dockerfile = (ROOT / build["dockerfile"]).read_text()
    assert "ENV PATH=/opt/replicator/bin:" in dockerfile
    (script,) = SERVICES[name]["entrypoint"]
    assert script in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def test_the_state_is_where_the_volume_is():
    assert "agent-state:/var/lib/replicator" in SERVICES["agent"]["volumes"]
    dockerfile = (ROOT / "migrate" / "Dockerfile").read_text()
    assert "XDG_STATE_HOME=/var/lib\n" in dockerfile
    assert "install --directory --mode 1777 /var/lib/replicator" in dockerfile


# Prometheus and Grafana


def test_prometheus_asks_our_services_and_reads_the_rules():
    settings = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yaml").read_text())
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in settings["scrape_configs"]}
    assert jobs == {name: [f"{name}:9108"] for name in OURS}
    assert settings["rule_files"] == ["alerts.yaml"]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_is_one_that_the_program_has(expression):
    metrics = Metrics()
    metrics.catalogue(up=True)
    known = set(re.findall(r"^# TYPE (\S+)", metrics.render()[0].decode(), flags=re.MULTILINE))
    used = set(re.findall(r"\b(?:replicator|process)_\w+", expression))
    assert used <= known
    assert used or expression.startswith("up{")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_label_has_a_value_that_occurs(expression):
    labels = set(re.findall(r'(\w+)="([^"]*)"', expression))
    assert labels <= {("action", did.value) for did in Did} | {("job", name) for name in OURS}


def test_there_is_an_alert_for_each_trouble():
    alerts = {alert["alert"]: alert.get("for") for alert in ALERTS}
    assert alerts["ObjectsFail"] == "15m"
    assert {"AgentDown", "UrlsDown", "NoPass", "CatalogueAway"} <= set(alerts)


def test_every_panel_has_a_source_that_is_provisioned():
    provisioning = FOLDER / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "datasources.yaml").read_text())["datasources"]
    known = {(source["uid"], source["type"]) for source in sources}
    parts = [*DASHBOARD["panels"], *TARGETS]
    assert {(part["datasource"]["uid"], part["datasource"]["type"]) for part in parts} == known


def test_grafana_is_given_every_variable_of_its_sources():
    sources = (FOLDER / "grafana" / "provisioning" / "datasources" / "datasources.yaml").read_text()
    assert set(re.findall(r"\$(\w+)", sources)) <= set(SERVICES["grafana"]["environment"])


def test_panels_do_not_overlap():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def catalogue_with_a_row_of_each_state(url):
    engine = open_engine(url, create=True)
    bring_up_to_date(engine, create=True)
    with engine.begin() as connection:
        connection.execute(text("insert into catalogue_routes (id, name) values (1, 'folder -> s3://bucket/')"))
        connection.execute(
            text(
                "insert into catalogue_entries (route_id, key, name, state, size, uploaded_at, recorded_at, error)"
                " values (1, :state, :state, :state, 1, '2026-11-20 12:00:00', '2026-11-20 12:00:00', '')"
            ),
            [{"state": state.value} for state in State],
        )
    engine.dispose()


@contextmanager
def connected(url):
    engine = open_engine(url, create=False)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.mark.parametrize("query", QUERIES)
def test_the_catalogue_answers_every_query(tmp_path, query):
    url = url_of(tmp_path / "catalog.db")
    catalogue_with_a_row_of_each_state(url)
    with connected(url) as connection:
        assert connection.execute(text(query)).all()


def test_grafana_may_read_the_catalogue_in_postgresql_and_nothing_else(postgres_cluster):
    password = "it's $a \"p@ss\\word"
    database = postgres_cluster.new_database()
    environment = {
        "PATH": f"{postgres.binaries()}:{os.environ['PATH']}",
        "PGHOST": HOST,
        "PGPORT": str(postgres_cluster.port),
        "PGPASSWORD": postgres.PASSWORD,
        "POSTGRES_USER": postgres.USER,
        "POSTGRES_DB": database,
        "READER_PASSWORD": password,
    }
    subprocess.run([FOLDER / "postgres" / "reader.sh"], env=environment, check=True, timeout=60)
    catalogue_with_a_row_of_each_state(catalogue_url(postgres_cluster.url(database), {}))
    reader = catalogue_url(postgres_cluster.url(database, user="reader", password=password), {})
    with connected(reader) as connection:
        for query in QUERIES:
            assert connection.execute(text(query)).all()
    for statement in ("delete from catalogue_entries", "create table more (id int)"):
        with connected(reader) as connection:
            connection.execute(text("set transaction read write"))
            with pytest.raises(DBAPIError, match="permission denied"):
                connection.execute(text(statement))
