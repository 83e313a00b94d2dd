"""One round of each race: everything is signed beforehand, then sent from fifty connections within a moment."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx

from client.embedded.platform import EmbeddedPlatform
from client.granting import Plan, PlannedEntry, make_grant, proxies_for_grants
from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.records import NewRecord, Placement, SealedRecord, seal_record
from client.reports import GrantReport, ListedRecord, StoredRecord
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from shared import statements
from shared.encoding import b64url, sha256
from shared.schemas.records import SealedShare
from shared.statements import (
    Denial,
    Grant,
    KeyEntry,
    ReencryptionRequest,
    Revocation,
    Verified,
    WantedCapsule,
)
from shared.transparency.entries import Event, parse_event
from shared.wire import (
    PROXIES_AUDIENCE,
    RECORDS_AUDIENCE,
    REENCRYPTION_LIFETIME,
    Action,
    DenialReason,
    Purpose,
    Role,
)
from tests.races import specifications
from tests.races.history import Operation, explain

CONNECTIONS = 50
SCOPE = "allergies"
MOMENT = 0.15
"""Seconds over which the requests of a round are spread."""


@dataclass(frozen=True)
class Shot:
    """One request that waits to be sent."""

    kind: str
    what: str
    url: str
    body: dict[str, Any]
    who: Session | None = None


class Range:
    """A platform, fifty connections to it, a patient and a recipient."""

    def __init__(self, platform: EmbeddedPlatform, client: Platform, http: httpx.AsyncClient, random: Random) -> None:
        self.platform = platform
        self.client = client
        self.http = http
        self.random = random
        self.records_url = platform.urls["records"]
        self.proxies = {did: platform.urls[name] for name, did in platform.proxy_dids.items()}

    async def begin(self) -> None:
        """Sign up, and open all connections."""
        self.owner, self.reader = self._session(), self._session()
        await self.owner.sign_up(Role.PATIENT)
        await self.reader.sign_up(Role.RECIPIENT, name="Demo Practice")
        self.patient = Patient(self.owner, known_scopes=[SCOPE])
        [self.record] = await self.patient.add_records([self._note("first")])
        await asyncio.gather(*(self.http.get(f"{self.records_url}/healthz") for _ in range(CONNECTIONS)))

    # The races

    async def revoke_against_disclose(self) -> list[Operation]:
        """Disclosures from most connections, some straight to the proxies, and the revocation among them."""
        grant = await self._shared(self.reader)
        listed = await self._listed(self.reader, grant)
        requests = [await self._request(self.reader, grant, listed) for _ in range(40)]
        revocation = await self.owner.sign(Revocation, self.reader.did, grant=grant.id, epochs=())
        shots = [self._disclosure(request, self.reader) for request in requests]
        shots += [self._post("revoke", "revocations", revocation, self.owner)] * 4
        direct = []
        for url in self.proxies.values():
            for _ in range(2):
                request = await self._request(self.reader, grant, listed)
                body = {"request": request.token, "capsules": [b64url(listed.capsule)]}
                direct.append(Shot("reencrypt", request.id, f"{url}/v1/reencryptions", body))
        history = await self._fire([*shots, *direct])
        at_records = [one for one in history if one.kind != "reencrypt"]
        explain(at_records, False, specifications.revocation)
        at_proxies = [one for one in history if one.kind == "reencrypt"]
        began = min(one.began for one in history if one.kind == "revoke")
        for one in at_proxies:
            assert one.answer == "ok" or (one.answer == "grant_revoked" and one.ended > began), one

        # What the logs say is one of the orders, too.
        told = await self._told(self.owner, grant.id, self.records_url, RECORDS_AUDIENCE)
        disclosed = [event.statement for event in told if (event.event, event.outcome) == ("disclosed", "done")]
        acknowledged = {one.what for one in at_records if (one.kind, one.answer) == ("disclose", "ok")}
        assert sorted(filter(None, disclosed)) == sorted(acknowledged)
        acts = [event.event for event in told if event.event in ("disclosed", "revoked") and event.outcome == "done"]
        assert acts == ["disclosed"] * len(acknowledged) + ["revoked"], f"the log has another order: {acts}"
        ended = await self._until(grant, lambda report: report.erased == len(self.proxies))
        assert ended.disclosed == (1 if acknowledged else 0)
        for did, url in self.proxies.items():
            known = await self._told(self.owner, grant.id, url, did)
            done = [event.event for event in known if event.outcome == "done"]
            assert done.count("erased") == done.count("stored") == 1
            assert done.index("erased") == len(done) - 1, done
            answered = {one.what for one in at_proxies if one.answer == "ok"}
            there = {event.statement for event in known if (event.event, event.outcome) == ("reencrypted", "done")}
            elsewhere = {event.statement for event in known} - there
            assert not answered & (elsewhere - {None})
        return history

    async def approve_twice(self) -> list[Operation]:
        """Three grants and two denials of one request, each from many connections."""
        request = await Recipient(self.reader).request(
            self.owner.did,
            scopes=[SCOPE],
            actions=[Action.READ],
            purpose=Purpose.TREAT,
            reason="Planned treatment",
            expires=self.owner.clock() + 86_400,
        )
        shots: list[Shot] = []
        grants = [await self._made(request) for _ in range(3)]
        for grant, shares in grants:
            body = {"grant": grant.token, "shares": [share.model_dump(mode="json") for share in shares]}
            shots += [Shot("approve", grant.id, f"{self.records_url}/v1/grants", body, self.owner)] * 13
        for connections in (6, 5):
            denial = await self.owner.sign(Denial, self.reader.did, request=request, reason=DenialReason.UNSPECIFIED)
            shots += [self._post("deny", "denials", denial, self.owner)] * connections
        history = await self._fire(shots)
        _, done = explain(history, frozenset(), specifications.approval)
        approved = {what for kind, what, _ in done if kind == "approve"}
        denied = {what for kind, what, _ in done if kind == "deny"}

        shown = await self._request_shown(request)
        assert set(shown.grants) == approved
        assert (shown.denial is not None) == bool(denied)
        for grant, _ in grants:
            told = await self._told(self.owner, grant.id, self.records_url, RECORDS_AUDIENCE)
            granted = [event for event in told if (event.event, event.outcome) == ("granted", "done")]
            assert len(granted) == (grant.id in approved)
            if grant.id in approved:
                await self._until(await self.patient.grant(grant.id), lambda report: report.stored == report.shares)
                for did, url in self.proxies.items():
                    known = await self._told(self.owner, grant.id, url, did)
                    assert [event.event for event in known] == ["stored"]
                await self.client.revoke(
                    await self.owner.credentials(),
                    (await self.owner.sign(Revocation, self.reader.did, grant=grant.id, epochs=())).token,
                )
        return history

    async def rotate_while_disclosing(self) -> list[Operation]:
        """Two next key-entries of a recipient that discloses all the while; one wins, and its holder goes on."""
        reader = self._session()
        await reader.sign_up(Role.RECIPIENT, name="Demo Practice")
        grant = await self._shared(reader)
        listed = await self._listed(reader, grant)
        requests = [await self._request(reader, grant, listed) for _ in range(42)]
        shots = [self._disclosure(request, reader) for request in requests]
        url = f"{self.platform.registry_url}/v1/parties/{reader.did}/keys"
        for name in ("one", "other"):
            entry = await self._next_entry(reader)
            shots += [Shot("rotate", name, url, {"key_entry": entry})] * 4
        history = await self._fire(shots)
        _, winner = explain(history, "", specifications.rotation)
        assert winner
        assert len((await self.client.party(reader.did)).entries) == 2

        self.client.forget_tokens(reader.did)
        await reader.me(fresh=True)
        report = await Recipient(reader).fetch(grant.id)
        assert [record.record_id for record in report.opened] == [self.record.record_id], report.problems
        told = await self._told(self.owner, grant.id, self.records_url, RECORDS_AUDIENCE)
        disclosed = {event.statement for event in told if (event.event, event.outcome) == ("disclosed", "done")}
        acknowledged = {one.what for one in history if (one.kind, one.answer) == ("disclose", "ok")}
        assert acknowledged <= disclosed
        assert len(disclosed) == len(acknowledged) + 1
        return history

    async def amend_at_once(self) -> list[Operation]:
        """Ten second versions of one record, and a third one after each, from all connections."""
        [first] = await self.patient.add_records([self._note("first")])
        seconds = [self._version(first, 2, first.manifest_id) for _ in range(10)]
        thirds = [self._version(first, 3, second.manifest_id) for second in seconds]
        shots = [self._write(one, first.manifest_id) for one in seconds] * 4
        shots += [self._write(one, before.manifest_id) for one, before in zip(thirds, seconds, strict=True)]
        history = await self._fire(shots)
        _, chain = explain(history, (first.manifest_id,), specifications.amendment)

        shown = await self.client.record_versions(await self.owner.credentials(), first.record_id)
        assert tuple(statements_id(record.manifest) for record in shown) == chain
        written = [
            event.statement
            for event in await self._told(self.owner, None, self.records_url, RECORDS_AUDIENCE, set(chain[1:]))
            if event.outcome == "done"
        ]
        assert tuple(filter(None, written)) == chain[1:]
        return history

    # Preparing

    def _session(self) -> Session:
        return Session(Keyring.generate(), self.client, ClientState())

    @staticmethod
    def _note(text: str) -> NewRecord:
        return NewRecord(body=text.encode(), media_type="text/plain", scope=SCOPE)

    async def _shared(self, reader: Session) -> GrantReport:
        report = await self.patient.share(
            reader.did,
            scopes=[SCOPE],
            actions=[Action.READ],
            purpose=Purpose.TREAT,
            expires=self.owner.clock() + 86_400,
            records=[self.record.record_id],
        )
        return await self._until(report, lambda one: one.stored == one.shares)

    async def _until(self, grant: GrantReport, good: Callable[[GrantReport], bool]) -> GrantReport:
        async with asyncio.timeout(60):
            while not good(grant):
                await asyncio.sleep(0.05)
                grant = await self.patient.grant(grant.id)
        return grant

    async def _listed(self, reader: Session, grant: GrantReport) -> ListedRecord:
        recipient = Recipient(reader)
        [listed] = await recipient.listing(await recipient.grant(grant.id))
        return listed

    async def _request(
        self, reader: Session, grant: GrantReport, listed: ListedRecord
    ) -> Verified[ReencryptionRequest]:
        now = reader.clock()
        wanted = (WantedCapsule(entry=listed.entry, capsule=listed.manifest.payload.capsule),)
        return await reader.sign(
            ReencryptionRequest,
            PROXIES_AUDIENCE,
            iat=now,
            exp=now + REENCRYPTION_LIFETIME,
            grant=grant.id,
            capsules=wanted,
        )

    async def _made(self, request: str) -> tuple[Verified[Grant], list[SealedShare]]:
        plan = Plan(
            recipient=await self.owner.party(self.reader.did),
            actions=(Action.READ,),
            purpose=Purpose.TREAT,
            expires=self.owner.clock() + 86_400,
            entries=(PlannedEntry(name=SCOPE, epoch=0),),
            threshold=2,
            proxies=await proxies_for_grants(self.owner),
            request=request,
        )
        return await make_grant(self.owner, plan)

    async def _request_shown(self, request: str) -> Any:
        async for shown in self.client.requests(await self.owner.credentials(), "inbox"):
            if shown.id == request:
                return shown
        raise AssertionError("the request is not shown")

    async def _next_entry(self, session: Session) -> str:
        me = (await session.me()).current
        entry = session._entry(me.payload.role, 1, me.id, name=me.payload.name, organisation=None)
        proof = session.keyring.identity(1).sign(entry.possession_message())
        claims = statements.claims_of(entry) | {"role": entry.role, "possession": b64url(proof)}
        return statements.sign(KeyEntry(**claims), session.keyring.identity(0))

    def _version(self, first: StoredRecord, version: int, prev: str) -> SealedRecord:
        keyring = self.owner.keyring
        placement = Placement(
            patient=self.owner.did,
            scope_id=keyring.scope_id(SCOPE),
            epoch=0,
            delegating_key=keyring.delegating(SCOPE, 0).public_key(),
            record_id=first.record_id,
            version=version,
            prev=prev,
        )
        return seal_record(
            self._note(f"version {version}"),
            placement,
            author=self.owner.did,
            key=keyring.identity(0),
            now=self.owner.clock(),
            folder=Path(tempfile.gettempdir()),
        )

    # Sending

    def _post(self, kind: str, path: str, statement: Verified[Any], who: Session) -> Shot:
        return Shot(kind, statement.id, f"{self.records_url}/v1/{path}", {"statement": statement.token}, who)

    def _disclosure(self, request: Verified[ReencryptionRequest], who: Session) -> Shot:
        body = {"request": request.token, "exclude": []}
        return Shot("disclose", request.id, f"{self.records_url}/v1/disclosures", body, who)

    def _write(self, sealed: SealedRecord, before: str) -> Shot:
        body = {"records": [sealed.upload.model_dump(mode="json", exclude_none=True)]}
        what = f"{sealed.manifest_id} after {before}"
        return Shot("amend", what, f"{self.records_url}/v1/records", body, self.owner)

    async def _fire(self, shots: Sequence[Shot]) -> list[Operation]:
        """Send everything within a moment, each over a connection of its own; in whatever order chance gives it."""
        assert len(shots) == CONNECTIONS
        tokens = {
            who.did: await self.client.token(await who.credentials(), RECORDS_AUDIENCE)
            for who in {shot.who.did: shot.who for shot in shots if shot.who is not None}.values()
        }

        async def send(shot: Shot) -> Operation:
            await asyncio.sleep(self.random.random() * MOMENT)
            headers = {} if shot.who is None else {"authorization": f"Bearer {tokens[shot.who.did]}"}
            began = time.monotonic()
            while (response := await self._attempt(shot, headers)) is None:  # noqa: ASYNC110  Nobody tells.
                await asyncio.sleep(0.2)
            ended = time.monotonic()
            body = response.json()
            answer = "ok" if response.is_success else body["code"]
            return Operation(shot.kind, shot.what, began, ended, answer, body.get("received_at"))

        return list(await asyncio.gather(*map(send, shots)))

    async def _attempt(self, shot: Shot, headers: dict[str, str]) -> httpx.Response | None:
        """The answer; None for no answer, and for an outage, after which nothing was changed and the request is to be
        repeated as it is (docs/spec.md, section 10)."""
        try:
            response = await self.http.post(shot.url, json=shot.body, headers=headers)
        except httpx.TransportError:
            return None
        away = response.status_code == 503 and response.json()["code"] != specifications.NOT_ENOUGH_PROXIES
        return None if away else response

    async def _told(
        self, who: Session, grant: str | None, url: str, audience: str, about: set[str] | None = None
    ) -> list[Event]:
        """Events of a party's log about a grant, or about these statements, oldest first; as far back as the beginning
        of this round reaches, which is the newest few hundred."""
        found: list[Event] = []
        seen = 0
        async for shown in self.client.log_events(await who.credentials(), url, audience):
            seen += 1
            if shown.event is not None:
                event = parse_event(shown.event)
                if (grant is not None and event.grant == grant) or (about is not None and event.statement in about):
                    found.append(event)
            if seen >= 300:
                break
        return found[::-1]


def statements_id(token: str) -> str:
    """The id of a statement in compact form."""
    return b64url(sha256(token.rpartition(".")[0].encode("ascii")))


RACES: dict[str, Callable[[Range], Awaitable[list[Operation]]]] = {
    "revoke against disclose": Range.revoke_against_disclose,
    "approve twice": Range.approve_twice,
    "rotate while disclosing": Range.rotate_while_disclosing,
    "two amends of one version": Range.amend_at_once,
}
