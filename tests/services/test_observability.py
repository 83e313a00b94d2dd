"""What an operator sees of a real platform: every line of every log, traces across services, and figures that count.

One platform of processes for this file, with the logs as in a container: JSON, from `info` on.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from client.disclosure import request_reencryption
from client.embedded.platform import EmbeddedPlatform
from client.errors import ServiceRefused
from client.records import NewRecord
from shared.encoding import from_b64url
from shared.schemas.records import GrantState
from shared.web.logs import FIELDS
from shared.wire import RECORDS_AUDIENCE, Action, Purpose
from tests.conftest import temporary_folder
from tests.e2e.actors import Actor, ActorMaker, grant_in_state, granted, in_a_month, note
from tests.warm import WarmPlatform

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
PROXIES = ("proxy-1", "proxy-2", "proxy-3")
PATIENCE = 60.0
"""Seconds after which something that should happen by itself counts as not happening."""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder / "home"


@pytest.fixture(scope="module")
async def platform(home: Path) -> AsyncIterator[EmbeddedPlatform]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PCEHR_LOG_FORMAT", "json")
        environment.setenv("PCEHR_LOG_LEVEL", "info")
        async with WarmPlatform(home, base_port=None) as running:
            yield running


@pytest.fixture
async def make(platform: EmbeddedPlatform, tmp_path: Path) -> AsyncIterator[ActorMaker]:
    maker = ActorMaker(platform.registry_url, tmp_path)
    yield maker
    await maker.close()


def lines(platform: EmbeddedPlatform, service: str) -> list[dict[str, Any]]:
    """Everything that a service has logged."""
    return [json.loads(line) for line in platform.log_of(service).read_text("utf-8").splitlines()]


def requests(platform: EmbeddedPlatform, service: str, route: str) -> list[dict[str, Any]]:
    return [line for line in lines(platform, service) if line.get("route") == route]


async def until(found: Callable[[], Iterable[Any]], count: int = 1) -> list[Any]:
    """What was looked for, once there is so much of it: a line is written after the answer has gone."""
    deadline = time.monotonic() + PATIENCE
    while len(there := list(found())) < count:
        assert time.monotonic() < deadline, there
        await asyncio.sleep(0.05)
    return there


async def figures(platform: EmbeddedPlatform, service: str) -> dict[str, float]:
    async with httpx.AsyncClient(trust_env=False) as http:
        response = await http.get(f"{platform.urls[service]}/metrics")
    assert response.status_code == 200
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def disclosed(make: ActorMaker) -> tuple[Actor, Actor]:
    """An owner and a reader who has opened what was granted."""
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts"), note("birch pollen")])
    grant = await granted(owner, reader, scopes=["allergies"])
    await grant_in_state(owner, grant.id, GrantState.COMPLETE)
    assert len((await reader.recipient.fetch(grant.id)).opened) == 2
    return owner, reader


# Lines


async def test_no_line_of_any_log_names_a_party_or_holds_anything_of_theirs(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    owner, reader = await make.patient(), await make.recipient("Needle Practice")
    stranger = await make.patient()
    await owner.patient.add_scope("needle-scope", "Needle scope")
    stored = await owner.patient.add_records(
        [
            NewRecord(body=b"needle-body", media_type="text/x-needle", scope="needle-scope", title="Needle title"),
            NewRecord(body=b"needle-scan" * 200_000, media_type="application/dicom", scope="needle-scope"),
        ]
    )
    request = await reader.recipient.request(
        owner.did,
        scopes=["needle-scope"],
        actions=[Action.READ],
        purpose=Purpose.TREAT,
        reason="Needle reason",
        expires=in_a_month(),
    )
    grant = await owner.patient.approve(request)
    await grant_in_state(owner, grant.id, GrantState.COMPLETE)
    assert len((await reader.recipient.fetch(grant.id)).opened) == 2
    assert [party.did async for party in reader.session.platform.recipients("Needle Practice")]
    platform_of_owner, who = owner.session.platform, await owner.session.credentials()
    assert [event async for event in platform_of_owner.log_events(who, platform.urls["records"], RECORDS_AUDIENCE)]
    with pytest.raises(ServiceRefused):
        await stranger.session.platform.record_versions(await stranger.session.credentials(), stored[0].record_id)
    await owner.session.rotate_keys()
    await owner.patient.revoke(grant.id)
    token = await owner.session.platform.token(await owner.session.credentials(), RECORDS_AUDIENCE)
    statement = (await owner.session.platform.grant(await owner.session.credentials(), grant.id)).grant
    jti = json.loads(from_b64url(statement.split(".")[1]))["jti"]
    async with httpx.AsyncClient(trust_env=False) as http:
        for url in platform.urls.values():
            await http.get(f"{url}/v1/parties/{owner.did}/needle-path", params={"needle": owner.did})
            await http.post(f"{url}/v1/kfrags", json={"grant": statement, "needle-member": owner.did})
    await until(lambda: requests(platform, "proxy-3", "/v1/revocations"))

    dids = [owner.did, reader.did, stranger.did, *platform.proxy_dids.values()]
    identifiers = [grant.id, request, jti, *[record.record_id for record in stored]]
    secrets = [token, *token.split("."), statement, *statement.split(".")]
    needles = [*dids, *[did.removeprefix("did:key:") for did in dids], *identifiers, *secrets, "did:key:", "eyJ"]
    found = []
    for service in platform.urls:
        text = platform.log_of(service).read_text("utf-8")
        assert len(text.splitlines()) > 5, "a log that holds nothing shows nothing"
        found += [(service, needle) for needle in needles if needle in text]
        found += [(service, "needle") for _ in re.findall("needle", text, re.IGNORECASE)]
    assert found == []


async def test_every_line_of_every_log_has_the_form_agreed_on(platform: EmbeddedPlatform, make: ActorMaker) -> None:
    await disclosed(make)
    for service in platform.urls:
        for line in lines(platform, service):
            assert datetime.fromisoformat(line["time"]).utcoffset() is not None
            assert line["time"].endswith("Z")
            assert line["level"] in ("info", "warning", "error")
            assert line["service"] == service.partition("-")[0]
            assert line["logger"]
            assert line["message"]
            if line["logger"] == "pcehr.access":
                assert {"method", "route", "status", "duration_ms", "trace_id", "span_id", "request_id"} <= line.keys()
                assert line["request_id"] == f"{line['trace_id']}-{line['span_id']}"
                assert line["route"].startswith("/") or line["route"] == "unmatched"


# Traces


async def test_a_trace_goes_from_records_to_the_proxies_and_to_the_registry(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    before = len(requests(platform, "records", "/v1/disclosures"))
    _, reader = await disclosed(make)
    own = await trace_of(platform, reader)
    disclosure = (await until(lambda: requests(platform, "records", "/v1/disclosures"), before + 1))[-1]
    assert disclosure["trace_id"] == own

    def reencrypted() -> list[dict[str, Any]]:
        asked = [line for proxy in PROXIES for line in requests(platform, proxy, "/v1/reencryptions")]
        return [line for line in asked if line["trace_id"] == own]

    assert {line["parent_id"] for line in await until(reencrypted, 2)} == {disclosure["span_id"]}
    # To file the request for the grant, the records service had to ask who the recipient is.
    filed = [line for line in requests(platform, "records", "/v1/disclosure-requests") if line["trace_id"] == own]
    spans = {line["span_id"] for line in filed if line["method"] == "POST"}
    assert spans & {line.get("parent_id") for line in requests(platform, "registry", "/v1/parties/{did}")}


async def trace_of(platform: EmbeddedPlatform, actor: Actor) -> str:
    """The trace of everything that this party's client has asked, as the records service has logged it."""
    route = "/v1/grants/{grant}"
    before = len(requests(platform, "records", route))
    with pytest.raises(ServiceRefused):
        await actor.session.platform.grant(await actor.session.credentials(), 43 * "A")
    line: dict[str, Any] = (await until(lambda: requests(platform, "records", route), before + 1))[-1]
    trace_id: str = line["trace_id"]
    return trace_id


async def test_a_proxy_hands_the_trace_on_to_the_registry(platform: EmbeddedPlatform, make: ActorMaker) -> None:
    _, reader = await disclosed(make)
    [held] = await reader.recipient.grants()
    listed = await reader.recipient.listing(held)
    # A party that the proxy has not seen yet, so that it must ask who that is.
    newcomer = await make.recipient()
    with pytest.raises(ServiceRefused):
        await newcomer.recipient.ask_proxy_directly(held.proxies[0].did, held, listed)
    [name] = [name for name, did in platform.proxy_dids.items() if did == held.proxies[0].did]

    def refused() -> list[dict[str, Any]]:
        return [line for line in requests(platform, name, "/v1/reencryptions") if line["status"] == 403]

    [refusal] = await until(refused)
    asked = [line for line in requests(platform, "registry", "/v1/parties/{did}") if "parent_id" in line]
    assert (refusal["trace_id"], refusal["span_id"]) in [(line["trace_id"], line["parent_id"]) for line in asked]


async def test_a_delivery_is_a_trace_of_its_own_that_its_number_links_to_the_request(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    owner, _ = await disclosed(make)
    own = await trace_of(platform, owner)
    [queued] = [line for line in lines(platform, "records") if "deliveries" in line and line["trace_id"] == own]
    numbers = queued["deliveries"]
    assert len(numbers) == 3

    def made() -> list[dict[str, Any]]:
        return [line for line in lines(platform, "records") if line.get("delivery") in numbers]

    deliveries = await until(made, 3)
    assert {line["delivery"] for line in deliveries} == set(numbers)
    assert own not in {line["trace_id"] for line in deliveries}
    for line in deliveries:
        assert (line["kind"], line["outcome"]) == ("shares", "done")
        [taken] = await until(partial(_taken_in, platform, line["trace_id"]))
        assert (taken["parent_id"], taken["status"]) == (line["span_id"], 200)


def _taken_in(platform: EmbeddedPlatform, trace_id: str) -> list[dict[str, Any]]:
    taken = [line for proxy in PROXIES for line in requests(platform, proxy, "/v1/kfrags")]
    return [line for line in taken if line["trace_id"] == trace_id]


async def test_the_requests_of_one_client_are_one_trace_that_no_other_shares(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    before = {line["trace_id"] for line in requests(platform, "registry", "/v1/patients")}
    for _ in range(2):
        await make.patient()
    shown = await until(lambda: requests(platform, "registry", "/v1/patients"), len(before) + 2)
    signed_up = [line for line in shown if line["trace_id"] not in before]
    assert len({line["trace_id"] for line in signed_up}) == 2
    for line in signed_up:
        alone = [other for other in lines(platform, "registry") if other.get("trace_id") == line["trace_id"]]
        assert len(alone) > 1
        assert len({other["span_id"] for other in alone}) == len(alone)


async def test_a_problem_names_the_trace_that_the_log_has(platform: EmbeddedPlatform) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for service, url in platform.urls.items():
            response = await http.get(f"{url}/v1/me/audit", headers={"traceparent": TRACEPARENT})
            assert response.json()["trace_id"] == TRACE
            request_id = response.headers["x-request-id"]
            [line] = await until(partial(_lines_of, platform, service, request_id))
            assert (line["trace_id"], line["parent_id"], line["status"]) == (
                TRACE,
                "00f067aa0ba902b7",
                response.status_code,
            )


def _lines_of(platform: EmbeddedPlatform, service: str, request_id: str) -> list[dict[str, Any]]:
    return [line for line in lines(platform, service) if line.get("request_id") == request_id]


async def test_what_fails_at_a_service_tells_the_person_which_trace_to_quote(
    platform: EmbeddedPlatform, make: ActorMaker
) -> None:
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    grant = await granted(owner, reader, scopes=["allergies"])
    await grant_in_state(owner, grant.id, GrantState.COMPLETE)
    for proxy in PROXIES[:2]:
        await platform.kill(proxy)
    try:
        with pytest.raises(ServiceRefused) as refused:
            await _disclose(reader, grant.id)
    finally:
        for proxy in PROXIES[:2]:
            await platform.start(proxy)
    quoted = re.search(r"\(trace ([0-9a-f]{32})\)", refused.value.detail)
    assert quoted is not None
    [line] = await until(partial(_disclosures_in, platform, quoted.group(1)))
    assert (line["status"], line["level"]) == (503, "warning")


def _disclosures_in(platform: EmbeddedPlatform, trace_id: str) -> list[dict[str, Any]]:
    return [line for line in requests(platform, "records", "/v1/disclosures") if line["trace_id"] == trace_id]


async def _disclose(reader: Actor, grant_id: str) -> None:
    held = await reader.recipient.grant(grant_id)
    request = await request_reencryption(reader.session, held, await reader.recipient.listing(held))
    await reader.session.platform.disclose(await reader.session.credentials(), request.token, [])


# Figures


async def test_figures_count_what_was_done(platform: EmbeddedPlatform, make: ActorMaker) -> None:
    services = ("records", *PROXIES)
    before = {service: await figures(platform, service) for service in services}
    owner, _ = await disclosed(make)
    grant = (await owner.patient.grants())[0]
    await owner.patient.revoke(grant.id)
    async with asyncio.timeout(PATIENCE):
        while (await figures(platform, "records"))["pcehr_outbox_waiting revocation"] > 0:  # noqa: ASYNC110  Of what happens in another process no event tells.
            await asyncio.sleep(0.2)
    after = {service: await figures(platform, service) for service in services}

    def more(service: str, name: str) -> float:
        return after[service][name] - before[service].get(name, 0)

    assert more("records", "pcehr_outbox_deliveries_total shares done") == 3
    assert more("records", "pcehr_outbox_deliveries_total revocation done") == 3
    assert more("records", "pcehr_proxies_asked_total ok") >= 2
    assert more("records", "pcehr_party_lookups_total miss") >= 2
    assert more("records", "pcehr_party_lookups_total hit") >= 1
    for proxy in PROXIES:
        assert more(proxy, "pcehr_kfrags_stored_total") == 1
        assert more(proxy, "pcehr_kfrags_erased_total revoked") == 1
        assert after[proxy]["pcehr_workers"] == 1
        assert after[proxy]["pcehr_workers_busy"] == after[proxy]["pcehr_worker_batches_queued"] == 0
    assert sum(more(proxy, "pcehr_capsules_reencrypted_total") for proxy in PROXIES) >= 4
    assert sum(more(proxy, "pcehr_reencryption_batch_seconds_count") for proxy in PROXIES) >= 2
    assert after["records"]["pcehr_database_connections_max"] == 10
    assert after["records"]["pcehr_outbox_readable"] == 1


async def test_every_figure_and_every_field_is_documented_and_every_documented_figure_is_there(
    platform: EmbeddedPlatform,
) -> None:
    document = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    shown: set[str] = set()
    async with httpx.AsyncClient(trust_env=False) as http:
        for url in platform.urls.values():
            text = (await http.get(f"{url}/metrics")).text
            shown |= set(re.findall(r"^# HELP (pcehr_\w+)", text, re.MULTILINE))
    shown = {name for name in shown if not name.endswith("_created")}
    table = document.partition("## Figures")[2].partition("## When")[0]
    documented: set[str] = set()
    for row in re.findall(r"^\| (`pcehr_[^|]*)\|", table, re.MULTILINE):
        names = re.findall(r"`(\w+)`", row)
        prefix = names[0].removesuffix(next(end for end in ("_max", "_waits_total", "") if names[0].endswith(end)))
        documented |= {prefix + name if name.startswith("_") else name for name in names}
    assert documented == shown
    fields = document.partition("## Logs")[2].partition("## Following")[0]
    assert [name for name in FIELDS if f"`{name}`" not in fields] == []
