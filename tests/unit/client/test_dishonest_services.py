"""What a dishonest registry or records service tries on people's clients; each attack is told from what was asked."""

from __future__ import annotations

from typing import Any

import pytest

from client.author import Author
from client.errors import ScopeKeyRolledBack, WrongAnswer
from client.patient import Patient
from client.recipient import Recipient
from client.records import NewRecord
from client.reports import GrantReport
from shared.wire import Action, Purpose
from tests.unit.client.world import DAY, NOW, Problem, World


def note(text: str, scope: str = "allergies") -> NewRecord:
    return NewRecord(body=text.encode(), media_type="text/plain", scope=scope, title=text)


async def share(owner: Patient, reader: Recipient, scope: str, *actions: Action) -> GrantReport:
    return await owner.share(
        reader.session.did,
        scopes=[scope],
        actions=actions or [Action.READ],
        purpose=Purpose.TREAT,
        expires=NOW + 30 * DAY,
    )


def showing_instead(world: World, asked: GrantReport, shown: GrantReport) -> Any:
    """The records service answers with another, genuine grant than the one asked for."""

    def tamper(route: str, answer: Any) -> Any:
        return world._grant(world.grants[shown.id]) if route == f"GET /v1/grants/{asked.id}" else answer

    return tamper


async def test_a_record_is_not_written_to_the_patient_of_another_grant() -> None:
    world = World()
    owner, accomplice, doctor = await world.patient(), await world.patient(), await world.recipient()
    asked = await share(owner, doctor, "allergies", Action.APPEND)
    shown = await share(accomplice, doctor, "allergies", Action.APPEND)
    world.tamper = showing_instead(world, asked, shown)
    with pytest.raises(WrongAnswer):
        await Author(doctor.session).append(asked.id, [note("a secret of the owner")])
    assert world.records == {}


async def test_receipts_of_another_grant_do_not_seal_this_one() -> None:
    world = World()
    owner, first, second = await world.patient(), await world.recipient(), await world.recipient("Demo Insurer")
    await owner.add_records([note("a"), note("b", "medications")])
    earlier = await share(owner, second, "medications")
    assert (await owner.revoke(earlier.id, wait_seconds=0)).state == "sealed"
    grant = await share(owner, first, "allergies")
    for proxy in world.proxies:
        proxy.away = True
    world.tamper = showing_instead(world, grant, earlier)
    report = await owner.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.receipts) == ("pending", 0)


async def test_a_records_service_that_refuses_a_revocation_does_not_keep_the_shares_alive() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader, "allergies")
    answer = world._records

    def refusing(request: Any, parts: list[str], *rest: Any) -> Any:
        if request.method == "POST" and parts[1:] == ["revocations"]:
            raise Problem("not_found", 404)
        return answer(request, parts, *rest)

    world._records = refusing  # type: ignore[method-assign]
    report = await owner.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.receipts) == ("sealed", 3)
    assert not any(grant.id in proxy.kfrags for proxy in world.proxies)


async def test_a_registry_that_drops_a_new_epoch_does_not_go_unnoticed() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader, "allergies")
    answer = world._registry

    def dropping(method: str, parts: list[str], query: Any, body: Any, *rest: Any) -> Any:
        return {"items": body["scope_keys"]} if method == "PUT" else answer(method, parts, query, body, *rest)

    world._registry = dropping  # type: ignore[method-assign]
    report = await owner.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.new_epochs) == ("sealed", {})
    with pytest.raises(ScopeKeyRolledBack):
        await owner.add_records([note("must not be written under the old key")])
