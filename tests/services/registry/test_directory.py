"""Looking parties up: one by its id, recipients and proxies by pages, patients never."""

from typing import Any

import pytest

from services.registry import domain
from shared.encoding import b64url
from shared.identity import verify_chain
from shared.wire import Role
from tests.services.registry.running import RunningRegistry, assert_problem, running, settings_for
from tests.services.signing_parties import TestClock, TestParty


async def names(registry: RunningRegistry, **params: Any) -> list[str]:
    response = await registry.http.get("/v1/recipients", params=params)
    assert response.status_code == 200, response.text
    return [item["name"] for item in response.json()["items"]]


async def all_pages(registry: RunningRegistry, route: str, **params: Any) -> list[list[str]]:
    """The DIDs of all pages."""
    pages = []
    while True:
        body = (await registry.http.get(route, params=params)).json()
        pages.append([item["did"] for item in body["items"]])
        if body["next"] is None:
            return pages
        params["cursor"] = body["next"]


async def test_a_party_is_shown_with_a_chain_that_proves_itself(registry: RunningRegistry, patient: TestParty) -> None:
    card = (await registry.http.get(f"/v1/parties/{patient.did}")).json()
    assert verify_chain(patient.did, card["entries"]).did == patient.did
    assert card["role"] == "patient"


async def test_an_unknown_party_is_unknown_party(registry: RunningRegistry) -> None:
    response = await registry.http.get(f"/v1/parties/{TestParty(Role.PATIENT).did}")
    assert_problem(response, 404, "unknown_party")


@pytest.mark.parametrize("did", ["did:key:z6MkpwPK7TdQVGDAE8aKdC2WqHqApvBERSNe54sY2nc3ovh0", "did:web:" + "a" * 50])
async def test_an_id_that_is_none_is_malformed(registry: RunningRegistry, did: str) -> None:
    assert_problem(await registry.http.get(f"/v1/parties/{did}"), 400, "malformed")


async def test_the_directory_finds_by_name_and_by_organisation_in_any_case(registry: RunningRegistry) -> None:
    await registry.registered(Role.RECIPIENT, name="Cardiology", organisation="Demo Hospital")
    await registry.registered(Role.RECIPIENT, name="Äskulap Praxis", organisation=None)
    await registry.registered(Role.RECIPIENT, name="Insurer", organisation="Muster STRASSE")
    assert await names(registry) == ["Cardiology", "Insurer", "Äskulap Praxis"]
    assert await names(registry, q="CARDIO") == ["Cardiology"]
    assert await names(registry, q="demo hosp") == ["Cardiology"]
    assert await names(registry, q="äSKU") == ["Äskulap Praxis"]
    assert await names(registry, q="straße") == ["Insurer"]
    assert await names(registry, q="nowhere") == []


async def test_a_match_does_not_span_name_and_organisation(registry: RunningRegistry) -> None:
    await registry.registered(Role.RECIPIENT, name="Cardiology", organisation="Demo Hospital")
    assert await names(registry, q="cardiology demo") == []


@pytest.mark.parametrize("wildcard", ["%", "_", "\\", "/", "Demo_", "%%"])
async def test_wildcards_stand_for_themselves(registry: RunningRegistry, wildcard: str) -> None:
    await registry.registered(Role.RECIPIENT, name="Demo Practice")
    assert await names(registry, q=wildcard) == []
    await registry.registered(Role.RECIPIENT, name=f"100 {wildcard} Care")
    assert await names(registry, q=wildcard) == [f"100 {wildcard} Care"]


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"q": "a" * 121}, id="a-query-too-long"),
        pytest.param({"q": ""}, id="an-empty-query"),
        pytest.param({"q": "a\x00b"}, id="a-query-with-nul"),
        pytest.param({"q": "a\nb"}, id="a-query-with-a-line-break"),
        pytest.param({"limit": "0"}, id="a-limit-of-none"),
        pytest.param({"limit": "101"}, id="a-limit-beyond-the-bound"),
        pytest.param({"cursor": "a" * 257}, id="a-cursor-too-long"),
        pytest.param({"cursor": "!"}, id="a-cursor-of-other-letters"),
    ],
)
async def test_parameters_out_of_bounds_are_an_invalid_request(
    registry: RunningRegistry, params: dict[str, str]
) -> None:
    assert_problem(await registry.http.get("/v1/recipients", params=params), 422, "invalid_request")


async def test_a_cursor_that_is_none_is_malformed(registry: RunningRegistry) -> None:
    for route in ("/v1/recipients", "/v1/proxies"):
        assert_problem(await registry.http.get(route, params={"cursor": "abc"}), 400, "malformed")


async def test_a_cursor_of_somebody_unknown_shows_nothing(registry: RunningRegistry, recipient: TestParty) -> None:
    response = await registry.http.get("/v1/recipients", params={"cursor": b64url(bytes(32))})
    assert response.json() == {"items": [], "next": None}


async def test_pages_show_everybody_once_in_the_order_of_names(registry: RunningRegistry) -> None:
    # Equal names are told apart by id, so that none falls between two pages.
    parties = [await registry.registered(Role.RECIPIENT, name=name) for name in ("B", "a", "C", "a", "b", "a", "c")]
    expected = [party.did for party in sorted(parties, key=lambda party: ((party.name or "").casefold(), party.did))]
    for limit in (1, 2, 3, 7, 100):
        pages = await all_pages(registry, "/v1/recipients", limit=limit)
        assert [did for page in pages for did in page] == expected
        assert all(len(page) == limit for page in pages[:-1])


async def test_pages_of_a_search_show_everybody_once(registry: RunningRegistry) -> None:
    parties = [await registry.registered(Role.RECIPIENT, name=f"Ward {number}") for number in range(5)]
    await registry.registered(Role.RECIPIENT, name="Pharmacy", organisation=None)
    pages = await all_pages(registry, "/v1/recipients", q="ward", limit=2)
    assert pages == [[p.did for p in parties[:2]], [p.did for p in parties[2:4]], [parties[4].did]]


async def test_a_page_is_bounded_by_its_key_entries_too(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain, "MAX_PAGE_ENTRIES", 3)
    parties = [await registry.registered(Role.RECIPIENT, name=f"Ward {number}") for number in range(3)]
    for _ in range(4):
        assert (await registry.rotate(parties[0], parties[0].rotate())).status_code == 201
    assert (await registry.rotate(parties[1], parties[1].rotate())).status_code == 201
    assert await all_pages(registry, "/v1/recipients") == [[parties[0].did], [parties[1].did, parties[2].did]]


async def test_a_long_name_whose_folded_form_is_longer_still_registers(registry: RunningRegistry) -> None:
    # One such ligature becomes eighteen characters when it is folded.
    await registry.registered(Role.RECIPIENT, name="\ufdfa" * 120, organisation="\ufdfa" * 120)
    assert await names(registry, q="\ufdfa" * 120) == ["\ufdfa" * 120]


async def test_a_new_name_is_found_and_the_old_one_is_not(registry: RunningRegistry, recipient: TestParty) -> None:
    recipient.name = "Renamed Practice"
    assert (await registry.rotate(recipient, recipient.rotate())).status_code == 201
    assert await names(registry, q="demo practice") == []
    assert await names(registry, q="renamed") == ["Renamed Practice"]


async def test_patients_are_listed_by_no_route(
    registry: RunningRegistry, patient: TestParty, recipient: TestParty, admitted_proxy: TestParty
) -> None:
    await registry.sign_up(admitted_proxy)
    headers = await registry.headers(recipient)
    listed = []
    for path, operations in registry.app.openapi()["paths"].items():
        if "get" in operations and "{" not in path:
            response = await registry.http.get(path, headers=headers)
            assert patient.did not in response.text, path
            listed.append(path)
    assert {"/v1/recipients", "/v1/proxies"} <= set(listed)
    for prefix in (patient.did[:20], "did"):
        assert await names(registry, q=prefix) == []


async def test_there_is_no_list_of_patients(registry: RunningRegistry, patient: TestParty) -> None:
    headers = await registry.headers(patient)
    assert_problem(await registry.http.get("/v1/patients", headers=headers), 405, "method_not_allowed")
    assert_problem(await registry.http.get("/v1/parties", headers=headers), 404, "no_such_route")
    assert "get" not in registry.app.openapi()["paths"]["/v1/patients"]


async def test_proxies_that_are_admitted_now_are_listed(
    database_url: str, clock: TestClock, admitted_proxy: TestParty
) -> None:
    struck_off = TestParty(Role.PROXY)
    both = [admitted_proxy.did, struck_off.did]
    async with running(settings_for(database_url, admitted=both), clock) as registry:
        for proxy in (admitted_proxy, struck_off):
            assert (await registry.sign_up(proxy)).status_code == 201
        pages = await all_pages(registry, "/v1/proxies", limit=1)
        assert sorted(did for page in pages for did in page) == sorted(both)
    async with running(settings_for(database_url, admitted=[admitted_proxy.did]), clock) as registry:
        assert await all_pages(registry, "/v1/proxies") == [[admitted_proxy.did]]
        # Its chain stays readable, since receipts of it must stay verifiable.
        assert (await registry.http.get(f"/v1/parties/{struck_off.did}")).status_code == 200
