"""Signing up: what is answered, what is refused, and what the database holds afterwards."""

import asyncio
from typing import Any

import pytest

from shared import jose, wire
from shared import statements as st
from shared.did import key_id
from shared.encoding import b64url
from shared.identity import verify_chain
from shared.schemas.examples import example
from shared.wire import Role
from tests.services.registry.running import ROUTES, RunningRegistry, assert_problem, running, settings_for
from tests.services.signing_parties import DAY, NOW, TestClock, TestParty


def signed(party: TestParty, claims: dict[str, Any], typ: str = st.KeyEntry.typ) -> str:
    """Sign members that no model would let pass."""
    key = party.identity_key(0)
    return jose.sign(claims, key=key, kid=key_id(party.did, bytes(key.verify_key)), typ=typ)


def claims_of(party: TestParty) -> dict[str, Any]:
    return st.claims_of(verify_chain(party.did, party.entries).current.payload)


@pytest.mark.parametrize("role", [Role.PATIENT, Role.RECIPIENT])
async def test_sign_up_answers_the_party(registry: RunningRegistry, role: Role) -> None:
    party = TestParty(role)
    response = await registry.sign_up(party)
    assert response.status_code == 201
    assert response.json() == {
        "did": party.did,
        "role": role.value,
        "seq": 0,
        "name": party.name,
        "organisation": party.organisation,
        "endpoint": None,
        "entries": party.entries,
    }
    assert await registry.audit(party) == [("sign-up", "accepted", None)]


async def test_an_admitted_proxy_signs_up(registry: RunningRegistry, admitted_proxy: TestParty) -> None:
    response = await registry.sign_up(admitted_proxy)
    assert response.status_code == 201
    assert response.json()["endpoint"] == "https://proxy.example"


async def test_the_examples_of_the_documents_can_be_posted(database_url: str, clock: TestClock) -> None:
    async with running(settings_for(database_url, admitted=[example("proxy_did")]), clock) as registry:
        for role, route in ROUTES.items():
            response = await registry.http.post(route, json={"key_entry": example(f"{role.value}_key_entry")})
            assert response.status_code == 201, response.text
            assert response.json()["did"] == example(f"{role.value}_did")
        rotation = await registry.http.post(
            f"/v1/parties/{example('recipient_did')}/keys", json={"key_entry": example("recipient_rotation")}
        )
        assert rotation.status_code == 201, rotation.text


async def test_the_same_sign_up_again_has_the_same_answer_and_one_effect(registry: RunningRegistry) -> None:
    party = TestParty(Role.RECIPIENT)
    first = await registry.sign_up(party)
    second = await registry.sign_up(party)
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    assert len(await registry.rows("SELECT 1 FROM key_entries")) == 1
    assert await registry.audit(party) == [("sign-up", "accepted", None)]


async def test_the_same_sign_up_again_has_the_same_answer_after_a_rotation(
    registry: RunningRegistry, recipient: TestParty
) -> None:
    before = (await registry.sign_up(recipient)).json()
    recipient.name = "Renamed Practice"
    assert (await registry.rotate(recipient, recipient.rotate())).status_code == 201
    again = await registry.sign_up(recipient)
    assert (again.status_code, again.json()) == (201, before)


async def test_the_same_sign_up_again_has_the_same_answer_after_the_proxy_is_struck_off(
    database_url: str, clock: TestClock, admitted_proxy: TestParty
) -> None:
    async with running(settings_for(database_url, admitted=[admitted_proxy.did]), clock) as registry:
        first = await registry.sign_up(admitted_proxy)
    async with running(settings_for(database_url), clock) as registry:
        assert (await registry.sign_up(admitted_proxy)).json() == first.json()


async def test_the_same_sign_up_many_times_at_once_has_one_effect(registry: RunningRegistry) -> None:
    party = TestParty(Role.PATIENT)
    responses = await asyncio.gather(*(registry.sign_up(party) for _ in range(8)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.text for response in responses}) == 1
    assert len(await registry.audit(party)) == 1


async def test_two_chains_for_one_id_at_once_leave_one(registry: RunningRegistry) -> None:
    twins = [TestParty(Role.PATIENT, seed=10_001), TestParty(Role.PATIENT, seed=10_001)]
    responses = await asyncio.gather(*(registry.sign_up(twin) for twin in twins))
    assert sorted(response.status_code for response in responses) == [201, 409]
    loser = next(response for response in responses if response.status_code == 409)
    assert_problem(loser, 409, "already_registered")
    assert len(await registry.rows("SELECT 1 FROM parties")) == 1
    assert len(await registry.rows("SELECT 1 FROM statements")) == 1


async def test_another_first_entry_is_already_registered(registry: RunningRegistry, patient: TestParty) -> None:
    again = TestParty(Role.PATIENT)
    again.seed, again.did, again.entries = patient.seed, patient.did, []
    again.rotate(NOW - DAY)
    assert_problem(await registry.sign_up(again), 409, "already_registered")
    assert (await registry.audit(patient))[-1] == ("sign-up", "already_registered", None)


@pytest.mark.parametrize("role", [Role.PATIENT, Role.RECIPIENT])
async def test_an_entry_of_another_role_is_wrong_role(registry: RunningRegistry, role: Role) -> None:
    party = TestParty(role)
    for other, route in ROUTES.items():
        if other is not role:
            response = await registry.http.post(route, json={"key_entry": party.entries[0]})
            assert_problem(response, 422, "wrong_role")
    assert await registry.rows("SELECT 1 FROM parties") == []


async def test_a_proxy_that_nobody_admitted_is_proxy_not_admitted(registry: RunningRegistry) -> None:
    proxy = TestParty(Role.PROXY)
    assert_problem(await registry.sign_up(proxy), 403, "proxy_not_admitted")
    assert await registry.rows("SELECT 1 FROM parties") == []
    assert await registry.audit(proxy) == [("sign-up", "proxy_not_admitted", None)]


async def test_a_jti_with_other_bytes_is_jti_reused(registry: RunningRegistry, patient: TestParty) -> None:
    changed = signed(patient, claims_of(patient) | {"iat": NOW - 5})
    response = await registry.http.post("/v1/patients", json={"key_entry": changed})
    assert_problem(response, 409, "jti_reused")


async def test_an_entry_from_the_future_is_refused(registry: RunningRegistry) -> None:
    almost = TestParty(Role.PATIENT, issued=NOW + wire.SKEW_SECONDS)
    assert (await registry.sign_up(almost)).status_code == 201
    too_far = TestParty(Role.PATIENT, issued=NOW + wire.SKEW_SECONDS + 1)
    assert_problem(await registry.sign_up(too_far), 422, "statement_from_the_future")


async def test_a_bad_signature_is_refused(registry: RunningRegistry) -> None:
    party = TestParty(Role.PATIENT)
    head, payload, _ = party.entries[0].split(".")
    response = await registry.http.post("/v1/patients", json={"key_entry": f"{head}.{payload}.{b64url(bytes(64))}"})
    assert_problem(response, 422, "bad_signature")
    assert await registry.audit(party) == []


async def test_an_entry_signed_by_another_key_is_wrong_signer(registry: RunningRegistry) -> None:
    party, other = TestParty(Role.PATIENT), TestParty(Role.PATIENT)
    entry = jose.sign(
        claims_of(party),
        key=other.identity_key(0),
        kid=key_id(party.did, bytes(other.identity_key(0).verify_key)),
        typ=st.KeyEntry.typ,
    )
    response = await registry.http.post("/v1/patients", json={"key_entry": entry})
    assert_problem(response, 403, "wrong_signer")


async def test_an_entry_in_anothers_name_is_wrong_signer(registry: RunningRegistry) -> None:
    party, other = TestParty(Role.PATIENT), TestParty(Role.PATIENT)
    response = await registry.http.post(
        "/v1/patients", json={"key_entry": signed(other, claims_of(other) | {"iss": party.did})}
    )
    assert_problem(response, 403, "wrong_signer")


async def test_an_entry_for_somebody_else_is_wrong_audience(registry: RunningRegistry) -> None:
    party = TestParty(Role.PATIENT)
    entry = signed(party, claims_of(party) | {"aud": wire.RECORDS_AUDIENCE})
    response = await registry.http.post("/v1/patients", json={"key_entry": entry})
    assert_problem(response, 422, "wrong_audience")


async def test_a_later_entry_does_not_begin_a_chain(registry: RunningRegistry) -> None:
    party = TestParty(Role.PATIENT)
    response = await registry.http.post("/v1/patients", json={"key_entry": party.rotate()})
    assert_problem(response, 400, "broken_key_chain")


async def test_a_first_entry_with_another_key_than_the_id_is_a_broken_chain(registry: RunningRegistry) -> None:
    party, other = TestParty(Role.PATIENT), TestParty(Role.PATIENT)
    entry = signed(party, claims_of(party) | {"identity_key": other.identity_key(0).verify_key.b64})
    response = await registry.http.post("/v1/patients", json={"key_entry": entry})
    assert_problem(response, 400, "broken_key_chain")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"name": "Demo Person"}, id="a-patient-with-a-name"),
        pytest.param({"colour": "blue"}, id="an-unknown-member"),
        pytest.param({"prev": None}, id="a-null-member"),
        pytest.param({"seq": True}, id="a-number-of-another-type"),
        pytest.param({"role": "registry"}, id="an-unknown-role"),
        pytest.param({"receiving_key": "A" * 43}, id="a-key-too-short"),
    ],
)
async def test_members_that_do_not_fit_are_malformed(registry: RunningRegistry, changes: dict[str, Any]) -> None:
    party = TestParty(Role.PATIENT)
    response = await registry.http.post("/v1/patients", json={"key_entry": signed(party, claims_of(party) | changes)})
    assert_problem(response, 400, "malformed")


@pytest.mark.parametrize("member", ["name", "organisation"])
@pytest.mark.parametrize(
    "name",
    [
        "Demo\x1b[2J",
        "Demo\x9b31m",
        "Demo\u202eecitcarP",
        "Demo\u200bPractice",
        "Demo\u2028",
        "Demo\ue000",
        " Demo",
        "e\u0301",
    ],
)
async def test_a_name_that_is_not_what_it_seems_is_malformed(registry: RunningRegistry, member: str, name: str) -> None:
    party = TestParty(Role.RECIPIENT)
    entry = signed(party, claims_of(party) | {member: name})
    assert_problem(await registry.http.post("/v1/recipients", json={"key_entry": entry}), 400, "malformed")
    entry = signed(party, claims_of(party) | {member: "[red]\u0916\u094d\u200d[/red]"})
    assert (await registry.http.post("/v1/recipients", json={"key_entry": entry})).status_code == 201


async def test_another_kind_of_statement_is_malformed(registry: RunningRegistry) -> None:
    party = TestParty(Role.PATIENT)
    for entry in (party.scope_key("allergies"), "a" * 200, f"{'a' * 60}.{'b' * 60}.{'c' * 60}"):
        response = await registry.http.post("/v1/patients", json={"key_entry": entry})
        assert_problem(response, 400, "malformed")


async def test_a_key_that_is_no_point_is_malformed_key_material(registry: RunningRegistry) -> None:
    party = TestParty(Role.PATIENT)
    entry = signed(party, claims_of(party) | {"receiving_key": b64url(b"\x02" + b"\xff" * 32)})
    response = await registry.http.post("/v1/patients", json={"key_entry": entry})
    assert_problem(response, 400, "malformed_key_material")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"key_entry": "short"}, id="too-short"),
        pytest.param({"key_entry": "a" * 4_097}, id="too-long"),
        pytest.param({"key_entry": 7}, id="no-text"),
        pytest.param({"key_entry": "a" * 200, "extra": 1}, id="an-unknown-member"),
        pytest.param([], id="a-list"),
    ],
)
async def test_a_body_that_does_not_fit_is_an_invalid_request(registry: RunningRegistry, body: Any) -> None:
    response = await registry.http.post("/v1/patients", json=body)
    problem = assert_problem(response, 422, "invalid_request")
    assert problem["errors"]
    assert "a" * 200 not in response.text


async def test_a_body_beyond_the_bound_is_too_large(registry: RunningRegistry) -> None:
    for route in [*ROUTES.values(), f"/v1/parties/{TestParty(Role.PATIENT).did}/keys"]:
        response = await registry.http.post(route, json={"key_entry": "a" * 9_000})
        assert_problem(response, 413, "too_large")


async def test_a_body_without_declared_length_beyond_the_bound_is_too_large(registry: RunningRegistry) -> None:
    async def chunks() -> Any:
        yield b'{"key_entry":"'
        for _ in range(20):
            yield b"a" * 1_000
        yield b'"}'

    response = await registry.http.post("/v1/patients", content=chunks(), headers={"Content-Type": "application/json"})
    assert_problem(response, 413, "too_large")
