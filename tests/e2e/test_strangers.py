"""The prototype's four defects, across the real services, and what strangers and servers can see."""

from __future__ import annotations

import base64

import asyncpg
import httpx
import pytest

from client.embedded.platform import EmbeddedPlatform
from client.errors import ServiceRefused
from client.records import NewRecord
from shared.errors import PcehrError
from shared.wire import Action, Purpose
from tests.e2e.actors import ActorMaker, granted, in_a_month, note


async def test_no_route_of_any_service_gives_kfrags(platform: EmbeddedPlatform) -> None:
    async with httpx.AsyncClient() as http:
        for url in platform.urls.values():
            document = (await http.get(f"{url}/openapi.json")).json()
            for path, operations in document["paths"].items():
                if "get" in operations:
                    assert "kfrag" not in path
                    assert "sealed_share" not in str(operations["get"]["responses"])


async def test_patients_can_be_listed_by_no_route(platform: EmbeddedPlatform, make: ActorMaker) -> None:
    owner, reader = await make.patient(), await make.recipient()
    found = await reader.session.search("")
    assert reader.did in [party.did for party in found]
    assert owner.did not in [party.did for party in found]
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{platform.urls['registry']}/v1/patients")).status_code in (404, 405)


async def test_a_grant_on_one_record_does_not_let_its_holder_edit_another(make: ActorMaker) -> None:
    owner, hospital = await make.patient(), await make.recipient("Demo Hospital")
    granted_one, other = await owner.patient.add_records([note("one", "laboratory"), note("two", "laboratory")])
    request = await hospital.recipient.request(
        owner.did,
        scopes=["laboratory"],
        actions=[Action.AMEND, Action.READ],
        purpose=Purpose.TREAT,
        reason="Correction",
        expires=in_a_month(),
    )
    grant = await owner.patient.approve(request, records=[granted_one.record_id])
    await hospital.author.amend(grant.id, granted_one.record_id, note("one, amended", "laboratory"))
    with pytest.raises(PcehrError) as refused:
        await hospital.author.amend(grant.id, other.record_id, note("two, amended", "laboratory"))
    assert refused.value.code in ("not_granted", "not_found", "unknown_record")
    assert (await owner.patient.read_record(other.record_id)).body == b"two"


async def test_a_stranger_sees_no_record_and_edits_no_patient(make: ActorMaker) -> None:
    owner, stranger = await make.patient(), await make.patient()
    [stored] = await owner.patient.add_records([note("peanuts")])
    with pytest.raises(ServiceRefused) as refused:
        await stranger.session.platform.record_versions(await stranger.session.credentials(), stored.record_id)
    assert refused.value.code == "not_found"
    assert await stranger.patient.records() == []


async def test_a_grant_of_what_one_does_not_own_gives_nothing(make: ActorMaker) -> None:
    owner, thief, accomplice = await make.patient(), await make.patient(), await make.recipient()
    await owner.patient.add_records([note("peanuts")])
    grant = await granted(thief, accomplice, scopes=["allergies"])
    assert (await accomplice.recipient.fetch(grant.id)).opened == []


async def test_dumps_of_all_databases_hold_nothing_readable(platform: EmbeddedPlatform, make: ActorMaker) -> None:
    needle, title = "a-needle-in-the-plaintext", "a-needle-in-the-title"
    owner, reader = await make.patient(), await make.recipient()
    await owner.patient.add_scope("needle-scope")
    await owner.patient.add_records(
        [
            NewRecord(body=needle.encode() * 3, media_type="text/plain", scope="needle-scope", title=title),
            NewRecord(body=needle.encode() * 9000, media_type="text/plain", scope="needle-scope", title=title),
        ]
    )
    await granted(owner, reader, scopes=["needle-scope"])
    assert len((await reader.recipient.fetch()).opened) == 2
    found = []
    needles = [needle, title, "needle-scope", "Planned treatment", "text/plain"]
    for name in platform.urls:
        url = (platform.home / "secrets" / name / "pcehr_database_url").read_text()
        dump = await _dump(url)
        found += [(name, text) for text in needles if any(form in dump for form in _forms(text))]
        assert len(dump) > 1000, "the dump must hold something, or it shows nothing"
    for file in (platform.home / "blobs").rglob("*"):
        if file.is_file():
            found += [("blobs", text) for text in needles if text.encode() in file.read_bytes()]
    for file in (platform.home / "logs").rglob("*"):
        content = file.read_bytes()
        found += [("logs", text) for text in [*needles, owner.did, reader.did] if text.encode() in content]
    assert found == []


async def _dump(url: str) -> bytes:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        parts = []
        for table in tables:
            rows = await connection.fetch(f'SELECT * FROM "{table["tablename"]}"')
            parts += [
                value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row.values()
            ]
        return b"\n".join(parts)
    finally:
        await connection.close()


def _forms(text: str) -> list[bytes]:
    """The text raw, in hex, and in base64 at all three offsets."""
    raw = text.encode()
    shifted = [base64.urlsafe_b64encode(b"\0" * pad + raw)[4 if pad else 0 : -4] for pad in range(3)]
    return [raw, raw.hex().encode(), *[form for form in shifted if len(form) > 8]]
