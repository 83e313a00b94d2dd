"""The profile `metrics`: Prometheus reaches every service, has figures of each, and knows its rules."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from client.embedded.home import free_ports
from tests.compose import test_isolation
from tests.compose.stack import PROXIES, REPOSITORY, START_SECONDS, Stack

pytestmark = pytest.mark.compose

JOBS = {"registry": 1, "records": 1, "proxy": len(PROXIES), "prometheus": 1}
"""How many targets each has."""
PROMTOOL = ("run", "--rm", "--no-deps", "--entrypoint", "/bin/promtool", "prometheus")


class Prometheus:
    """Its HTTP API, where the profile publishes it."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def ask(self, path: str, **parameters: str) -> Any:
        async with httpx.AsyncClient(base_url=self.url) as http:
            answer = await http.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def targets(self) -> list[dict[str, Any]]:
        return list((await self.ask("targets", state="active"))["activeTargets"])

    async def scraped(self) -> None:
        """Wait until every target has been scraped at least once."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            targets = await self.targets()
            up = [target["labels"]["job"] for target in targets if target["health"] == "up"]
            if {job: up.count(job) for job in JOBS} == JOBS:
                return
            assert time.monotonic() < deadline, [(one["labels"], one["health"], one["lastError"]) for one in targets]
            await asyncio.sleep(0.5)


@pytest.fixture(scope="module")
async def prometheus(stack: Stack) -> AsyncIterator[Prometheus]:
    [port] = free_ports(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCEHR_PROMETHEUS_PORT", str(port))
        profile = ("--profile", "metrics")
        try:
            await stack.compose(*profile, "up", "--detach", "--wait", "--no-deps", "prometheus")
            prometheus = Prometheus(f"http://127.0.0.1:{port}")
            await prometheus.scraped()
            yield prometheus
        finally:
            await stack.compose(*profile, "rm", "--stop", "--force", "prometheus")


async def test_every_service_is_a_target_and_up(prometheus: Prometheus) -> None:
    targets = await prometheus.targets()
    assert len(targets) == sum(JOBS.values())
    assert {target["health"] for target in targets} == {"up"}
    proxies = {target["labels"]["instance"] for target in targets if target["labels"]["job"] == "proxy"}
    assert proxies == set(PROXIES)


async def test_a_query_gives_figures_of_every_service(prometheus: Prometheus, stack: Stack) -> None:
    # Each answers its own health check, so each has counted requests.
    query = 'sum by (job, instance) (pcehr_http_requests_total{route="/readyz", status="204"}) > 0'
    found = (await prometheus.ask("query", query=query))["result"]
    assert sorted(one["metric"]["job"] for one in found) == sorted(["registry", "records", *["proxy"] * len(PROXIES)])
    running = (await prometheus.ask("query", query="pcehr_build_info"))["result"]
    assert len(running) == len(found)
    assert {one["value"][1] for one in running} == {"1"}


async def test_a_stopped_service_is_seen_to_be_down(prometheus: Prometheus, stack: Stack) -> None:
    async def down() -> list[str]:
        found = (await prometheus.ask("query", query='up{job="proxy"} == 0'))["result"]
        return [one["metric"]["instance"] for one in found]

    assert await down() == []
    await stack.kill("proxy-3")
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (seen := await down()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.5)
    finally:
        await stack.start("proxy-3")
    assert seen == ["proxy-3"]
    await prometheus.scraped()


async def test_the_rules_are_loaded_and_can_be_evaluated(prometheus: Prometheus) -> None:
    written = set(re.findall(r"- alert: (\w+)", (REPOSITORY / "deploy/prometheus/alerts.yml").read_text("utf-8")))
    deadline = time.monotonic() + START_SECONDS
    while True:
        rules = [rule for group in (await prometheus.ask("rules"))["groups"] for rule in group["rules"]]
        if all(rule["health"] != "unknown" for rule in rules):
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
    assert {rule["name"] for rule in rules} == written
    assert len(written) > 10
    assert [rule for rule in rules if rule["health"] != "ok"] == []


async def test_every_figure_that_a_panel_or_rule_asks_for_is_known_to_prometheus(prometheus: Prometheus) -> None:
    known = set(await prometheus.ask("metadata"))
    for file in ("deploy/prometheus/alerts.yml", "deploy/grafana/pcehr.json"):
        asked = set(re.findall(r"\bpcehr_[a-z_]+", (REPOSITORY / file).read_text("utf-8")))
        assert asked
        assert {name for name in asked if name.removesuffix("_bucket") not in known} == set()


async def test_every_query_of_the_dashboard_is_understood(prometheus: Prometheus) -> None:
    dashboard = json.loads((REPOSITORY / "deploy/grafana/pcehr.json").read_text("utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 10
    for query in queries:
        await prometheus.ask("query", query=query.replace("$__rate_interval", "1m"))


async def test_promtool_finds_no_fault_and_the_rules_fire_when_they_should(stack: Stack) -> None:
    checked = await stack.compose(
        *PROMTOOL, "check", "config", "--lint=all", "--lint-fatal", "/etc/prometheus/prometheus.yml"
    )
    assert "is valid prometheus config file syntax" in checked
    assert "rules found" in checked
    assert "SUCCESS" in await stack.compose(*PROMTOOL, "test", "rules", "/etc/prometheus/alerts_test.yml")


async def test_prometheus_runs_with_nothing_it_does_not_need(prometheus: Prometheus, stack: Stack) -> None:
    await test_isolation.test_runs_with_nothing_it_does_not_need(stack, "prometheus")
    for folder in ("/", "/etc/prometheus"):
        await test_isolation.test_cannot_write_where_it_has_nothing_to_write(stack, "prometheus", folder)
    settings = (await stack.inspect("prometheus"))["NetworkSettings"]
    assert list(settings["Networks"]) == [f"{stack.project}_platform"]
    published = [binding["HostIp"] for bindings in settings["Ports"].values() for binding in bindings or ()]
    assert published == ["127.0.0.1"]


async def test_nobody_gets_prometheus_without_asking_for_it(stack: Stack) -> None:
    assert "prometheus" not in (await stack.compose("config", "--services")).split()
    assert "prometheus" in (await stack.compose("--profile", "metrics", "config", "--services")).split()
