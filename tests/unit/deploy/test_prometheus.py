"""What Prometheus and Grafana are told: about figures that exist, in rules that were tried."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import yaml

from tests.unit.deploy.apps import app_of
from tests.unit.deploy.manifests import REPOSITORY

PROMETHEUS = REPOSITORY / "deploy" / "prometheus"
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "pcehr.json"
SERVICES = ("registry", "records", "proxy")
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text("utf-8"))["services"]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text("utf-8"))["panels"])


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


@pytest.fixture
async def shown(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names under which the services show figures."""
    kinds = {}
    for service in SERVICES:
        app = app_of(service, monkeypatch)
        async with AsyncExitStack() as running:
            if service == "registry":
                # Figures of the database's pool, which all three show, are there once a service runs; this one starts
                # without its database.
                await running.enter_async_context(app.router.lifespan_context(app))
            http = await running.enter_async_context(
                httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")
            )
            kinds |= dict(re.findall(r"^# TYPE (\S+) (\S+)$", (await http.get("/metrics")).text, re.MULTILINE))
    histograms = {name for name, kind in kinds.items() if kind == "histogram"}
    return set(kinds) | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}


def figures_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:pcehr|process)_[a-z_]+", expression))


async def test_every_figure_in_a_rule_or_panel_is_shown_by_a_service(shown: set[str]) -> None:
    asked = {
        name for expression in (*queries(), *(rule["expr"] for rule in alerts())) for name in figures_in(expression)
    }
    assert len(asked) > 15
    assert asked - shown == set()
    assert figures_in("rate(pcehr_never_counted_total[5m])") - shown == {"pcehr_never_counted_total"}


def test_every_rule_says_how_bad_it_is_and_what_it_is_about() -> None:
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 10
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]


def test_every_rule_was_tried_with_figures_that_fire_it_and_with_figures_that_do_not() -> None:
    silent: set[str] = set()
    firing: set[str] = set()
    for test in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text("utf-8"))["tests"]:
        silent |= {one["alertname"] for one in test.get("alert_rule_test", ()) if not one.get("exp_alerts")}
        for one in test.get("promql_expr_test", ()):
            firing |= {
                name for sample in one["exp_samples"] for name in re.findall(r'alertname="(\w+)"', sample["labels"])
            }
    assert silent == firing == {rule["alert"] for rule in alerts()}


def test_every_service_of_the_stack_is_scraped_where_it_listens() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    jobs = {job.pop("job_name"): job for job in config["scrape_configs"]}
    assert set(jobs) == {*SERVICES, "prometheus"}
    for service in ("registry", "records"):
        [found] = jobs[service]["dns_sd_configs"]
        assert found["names"] == [service]
        assert found["port"] == COMPOSE[service]["environment"]["UVICORN_PORT"]
    targets = json.loads(re.sub(r"\$\{\w+:-(\d+)\}", r"\1", COMPOSE["prometheus"]["environment"]["PCEHR_PROXIES"]))
    proxies = [name for name in COMPOSE if re.fullmatch(r"proxy-\d+", name)]
    assert [one["labels"]["instance"] for one in targets] == proxies
    ports = [re.findall(r":-(\d+)", COMPOSE[name]["environment"]["UVICORN_PORT"])[0] for name in proxies]
    assert [one["targets"] for one in targets] == [
        [f"{name}:{port}"] for name, port in zip(proxies, ports, strict=True)
    ]


def test_the_image_is_of_one_version_everywhere() -> None:
    image = COMPOSE["prometheus"]["image"]
    assert re.fullmatch(r"prom/prometheus:v\d+\.\d+\.\d+", image)
    assert f"provide {image} " in (REPOSITORY / ".ci" / "engine").read_text("utf-8")


def test_the_dashboard_asks_the_data_source_that_its_reader_chose() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    [variable] = dashboard["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
    for panel in panels():
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${" + variable["name"] + "}"
            assert "{{" in target["legendFormat"]
