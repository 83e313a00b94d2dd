"""What a recipient can do: ask a patient, see what was granted, and open it.

Plain values in, plain values out (`client.reports`). Every method verifies what the services show and raises a
`ClientError` with a stable code and a hint; asking again after an interruption is safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

from client.disclosure import Batch, Outcome, request_reencryption
from client.errors import (
    GrantEnded,
    GrantOver,
    GrantPending,
    InvalidGrant,
    InvalidRequest,
    ServiceRefused,
    VerificationFailed,
    WrongAnswer,
    WrongRole,
)
from client.held import held_grant, report_held
from client.history import check_histories
from client.keyring import check_scope_name
from client.pool import EnvelopePool
from client.reading import check_all, problem_of
from client.reports import FetchReport, HeldGrant, ListedRecord, Problem, SentRequest
from client.sealed import MAX_REASON, RequestContent, seal_content
from client.session import Session
from client.verification import check_receipt, entry_index, verifying
from shared.encoding import b64url, from_b64url, sha256
from shared.identity import VerifiedParty, receiving_key
from shared.schemas.proxy import ReencryptionOut
from shared.schemas.records import GrantState, RecordOut, RequestOut
from shared.statements import Denial, DisclosureRequest, new_jti, verify_stored
from shared.wire import Action, DenialReason, Purpose, Role

__all__ = ["FetchReport", "HeldGrant", "ListedRecord", "Problem", "Recipient", "SentRequest"]

Progress = Callable[[int, int], None]

BATCH = 100
"""Records in one disclosure; a re-encryption request takes 200 capsules."""

_AT_ONCE = 2
"""Disclosures under way at the same time: while one is being checked, the proxies work on the next."""


class Recipient:
    """A recipient's side of the platform: a doctor, a hospital, an insurer."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def sign_up(self, name: str, organisation: str | None = None) -> VerifiedParty:
        """Register with the registry under a public name; doing it again has no effect."""
        return await self.session.sign_up(Role.RECIPIENT, name=name, organisation=organisation)

    async def request(
        self,
        patient_did: str,
        *,
        scopes: Iterable[str],
        actions: Iterable[Action],
        purpose: Purpose,
        reason: str,
        expires: int,
    ) -> str:
        """Ask a patient for scopes, by name; names and reason are sealed to the patient. Returns the request's id.

        `expires` is when the request lapses, in seconds since the epoch, at most 90 days ahead.
        """
        names = [check_scope_name(name) for name in dict.fromkeys(scopes)]
        wanted = tuple(sorted(set(actions)))
        if not names or not wanted:
            raise InvalidRequest("A request names at least one scope and one action.")
        if len(reason) > MAX_REASON:
            raise InvalidRequest(f"The reason may have at most {MAX_REASON} characters.")
        session = self.session
        patient = await session.party(patient_did, fresh=True)
        if patient.role is not Role.PATIENT:
            raise WrongRole("Records are asked of a patient, and this party is none.")
        jti = new_jti()
        content = RequestContent(iss=session.did, aud=patient.did, jti=jti, scopes=names, reason=reason)
        statement = await session.sign(
            DisclosureRequest,
            patient.did,
            jti=jti,
            exp=expires,
            actions=wanted,
            purpose=purpose,
            recipient_entry=(await session.me()).current.id,
            patient_entry=patient.current.id,
            sealed=seal_content(content, receiving_key(patient.current)),
        )
        accepted = await session.platform.file_request(await session.credentials(), statement.token)
        if accepted.id != statement.id:
            raise WrongAnswer("The records service acknowledged another request.")
        return statement.id

    async def requests(self) -> list[SentRequest]:
        """Requests this recipient has sent, newest first, with the patients' answers."""
        session = self.session
        return [
            await self._sent(shown) async for shown in session.platform.requests(await session.credentials(), "sent")
        ]

    async def grants(self) -> list[HeldGrant]:
        """Grants this recipient holds, newest first, the ended ones too. One that does not verify is left out."""
        session = self.session
        found = []
        async for shown in session.platform.grants(await session.credentials(), "held"):
            try:
                found.append(await report_held(session, shown))
            except VerificationFailed:
                # Anybody can make a bad grant to this recipient; it must not hide the good ones.
                continue
        session.state.save_if_changed()
        return found

    async def grant(self, grant_id: str) -> HeldGrant:
        """One grant; raises `UnknownGrant`."""
        return await held_grant(self.session, grant_id)

    async def listing(self, grant: HeldGrant) -> list[ListedRecord]:
        """The records a grant covers, newest version of each, as their manifests describe them; nothing is opened.

        A record that does not verify is left out; `fetch` says why.
        """
        listed, _ = await self._list(grant)
        return listed

    async def fetch(
        self,
        grant_id: str | None = None,
        *,
        patient: str | None = None,
        record_ids: Iterable[str] | None = None,
        progress: Progress | None = None,
        large_to: Path | None = None,
    ) -> FetchReport:
        """Open the records of one grant, or of all that allow reading now, of one patient or of all.

        `record_ids` narrows it further. Of a record that several grants cover, the newest version is opened, once.
        What does not hold is in the report's problems, with the proxies whose re-encryptions did not verify.
        """
        problems: list[Problem] = []
        wanted = None if record_ids is None else set(record_ids)
        if grant_id is None:
            batches = self._from_many(patient, wanted, problems)
        else:
            batches = self._from_one(await self._readable(grant_id), patient, wanted, problems)
        return await self._open_all(batches, problems, progress, large_to, strict=grant_id is not None)

    async def open(
        self, grant: HeldGrant, records: Sequence[ListedRecord], *, large_to: Path | None = None
    ) -> FetchReport:
        """Open records that were listed under a grant, in one round trip for each hundred; checked as by `fetch`.

        Whether the grant still holds is for the service and the proxies to say. A version that has come since the list
        was made is not looked for.
        """

        async def batches() -> AsyncIterator[tuple[HeldGrant, list[ListedRecord]]]:
            once = list({record.record_id: record for record in records}.values())
            for start in range(0, len(once), BATCH):
                yield grant, once[start : start + BATCH]

        return await self._open_all(batches(), [], None, large_to, strict=True)

    async def ask_proxy_directly(
        self, proxy_did: str, grant: HeldGrant, records: Sequence[ListedRecord]
    ) -> ReencryptionOut:
        """Ask one proxy, past the records service; each proxy decides for itself and raises its refusal.

        The receipt of an answer is checked; the re-encryptions are returned as they came.
        """
        session = self.session
        proxy = await session.party(proxy_did)
        if proxy.role is not Role.PROXY:
            raise WrongRole(f"{proxy_did} is not a proxy.")
        request = await request_reencryption(session, grant, records)
        capsules = [b64url(record.capsule) for record in records]
        answer = await session.platform.reencrypt_at(proxy.current.payload.endpoint or "", request.token, capsules)
        check_receipt(
            answer.receipt,
            proxy,
            act="reencrypted",
            statement=request.id,
            grant=grant.id,
            audience=session.did,
            cfrags=[b64url(sha256(from_b64url(cfrag))) for cfrag in answer.cfrags],
        )
        return answer

    async def _open_all(
        self,
        batches: AsyncIterator[tuple[HeldGrant, list[ListedRecord]]],
        problems: list[Problem],
        progress: Progress | None,
        large_to: Path | None,
        *,
        strict: bool,
    ) -> FetchReport:
        """Open batches while others are still being listed."""
        gate = asyncio.Semaphore(_AT_ONCE)
        total = done = 0
        tasks: list[asyncio.Task[Outcome]] = []

        async def one(pool: EnvelopePool, grant: HeldGrant, batch: list[ListedRecord]) -> Outcome:
            nonlocal done
            async with gate:
                outcome = await self._open_batch(pool, grant, batch, large_to, strict=strict)
            done += len(batch)
            if progress is not None:
                progress(done, total)
            return outcome

        try:
            async with EnvelopePool() as pool, asyncio.TaskGroup() as group:
                async for grant, batch in batches:
                    total += len(batch)
                    pool.expect(len(batch))
                    tasks.append(group.create_task(one(pool, grant, batch)))
        except BaseExceptionGroup as failures:
            # One refusal is what a caller can act on; the others are of the same kind.
            raise failures.exceptions[0] from None
        outcomes = [task.result() for task in tasks]
        self.session.state.save_if_changed()
        for outcome in outcomes:
            problems += outcome.problems
        return FetchReport(
            opened=[record for outcome in outcomes for record in outcome.opened],
            problems=list(dict.fromkeys(problems)),
            lying_proxies=sorted({did for outcome in outcomes for did in outcome.lying_proxies}),
        )

    async def _open_batch(
        self, pool: EnvelopePool, grant: HeldGrant, batch: list[ListedRecord], large_to: Path | None, *, strict: bool
    ) -> Outcome:
        """A refusal is raised where one grant was asked for, and noted where it is one of many."""
        try:
            return await Batch(self.session, pool, grant, batch, large_to=large_to).open()
        except ServiceRefused as refused:
            if strict:
                raise
            noted = [problem_of(refused, record_id=record.record_id, grant_id=grant.id) for record in batch]
            return Outcome([], noted, [])

    async def _readable(self, grant_id: str) -> HeldGrant:
        grant = await self.grant(grant_id)
        if Action.READ not in grant.actions:
            raise InvalidGrant("This grant does not allow reading.")
        return grant

    async def _from_one(
        self, grant: HeldGrant, patient: str | None, wanted: set[str] | None, problems: list[Problem]
    ) -> AsyncIterator[tuple[HeldGrant, list[ListedRecord]]]:
        """The records of one grant, a batch for each page of its list."""
        if patient not in (None, grant.patient.did):
            return
        seen: set[str] = set()
        async for listed, wrong in self._listed_pages(grant):
            problems += wrong
            fresh: dict[str, ListedRecord] = {}
            for record in listed:
                known = fresh.get(record.record_id)
                if record.record_id in seen or (wanted is not None and record.record_id not in wanted):
                    continue
                if known is None or record.version > known.version:
                    fresh[record.record_id] = record
            seen |= fresh.keys()
            if fresh:
                yield grant, list(fresh.values())

    async def _from_many(
        self, patient: str | None, wanted: set[str] | None, problems: list[Problem]
    ) -> AsyncIterator[tuple[HeldGrant, list[ListedRecord]]]:
        """The records of all grants that allow reading now; of a record that several cover, the newest version."""
        grants = [grant for grant in await self.grants() if grant.live and Action.READ in grant.actions]
        if patient is not None:
            grants = [grant for grant in grants if grant.patient.did == patient]
        newest: dict[tuple[str, str], tuple[HeldGrant, ListedRecord]] = {}
        for grant in grants:
            try:
                listed, wrong = await self._list(grant)
            except (ServiceRefused, GrantEnded, GrantPending) as refused:
                if isinstance(refused, ServiceRefused) and refused.status != 404:
                    raise
                # It has ended since they were listed.
                listed, wrong = [], [problem_of(refused, grant_id=grant.id)]
            problems += wrong
            for record in listed:
                place = (grant.patient.did, record.record_id)
                known = newest.get(place)
                if wanted is not None and record.record_id not in wanted:
                    continue
                if known is None or record.version > known[1].version:
                    newest[place] = (grant, record)
        for grant in grants:
            records = [record for holder, record in newest.values() if holder.id == grant.id]
            for start in range(0, len(records), BATCH):
                yield grant, records[start : start + BATCH]

    async def _list(self, grant: HeldGrant) -> tuple[list[ListedRecord], list[Problem]]:
        listed: list[ListedRecord] = []
        problems: list[Problem] = []
        async for page, wrong in self._listed_pages(grant):
            listed += page
            problems += wrong
        return listed, problems

    async def _listed_pages(self, grant: HeldGrant) -> AsyncIterator[tuple[list[ListedRecord], list[Problem]]]:
        """What a grant covers, verified, page by page; and what of it does not verify."""
        session = self.session
        names = {entry.scope_id: entry.scope or entry.scope_id for entry in grant.entries}
        async for page in self._pages(grant):
            listed: list[ListedRecord] = []
            problems: list[Problem] = []
            checked = await check_all(session, page, grant.patient)
            for record in await check_histories(session, checked, grant.patient):
                if isinstance(record, Problem):
                    problems.append(Problem(record.code, record.detail, record.record_id, grant.id))
                    continue
                payload = record.manifest.payload
                try:
                    entry = entry_index(grant.statement.payload, payload)
                except VerificationFailed as error:
                    problems.append(problem_of(error, record_id=payload.record, grant_id=grant.id))
                    continue
                listed.append(
                    ListedRecord(
                        grant_id=grant.id,
                        record_id=payload.record,
                        version=payload.version,
                        scope=names[payload.scope],
                        epoch=payload.epoch,
                        author=payload.iss,
                        written_at=payload.iat,
                        size=payload.size,
                        entry=entry,
                        capsule=record.capsule,
                        manifest=record.manifest,
                        authority=record.authority,
                    )
                )
            yield listed, problems

    async def _pages(self, grant: HeldGrant) -> AsyncIterator[list[RecordOut]]:
        """Pages of what a grant covers. The service says of a grant that does not hold that there is nothing, whatever
        the reason; the grant's own end, its revocation and its receipts say why."""
        session = self.session
        try:
            async for page in session.platform.granted_records(await session.credentials(), grant.id):
                yield page
        except ServiceRefused as refused:
            reasons = {
                GrantState.REVOKED: GrantEnded,
                GrantState.EXPIRED: GrantOver,
                GrantState.PENDING: GrantPending,
            }
            if refused.status == 404 and grant.state in reasons:
                raise reasons[grant.state] from None
            raise

    async def _sent(self, shown: RequestOut) -> SentRequest:
        session = self.session
        me = await session.me()
        with verifying():
            statement = verify_stored(shown.statement, DisclosureRequest, me)
            if statement.id != shown.id:
                raise WrongAnswer("The records service shows another request.")
        return SentRequest(
            id=statement.id,
            patient=statement.payload.aud,
            actions=statement.payload.actions,
            purpose=statement.payload.purpose,
            expires=statement.payload.exp,
            state=shown.state,
            received_at=shown.received_at,
            grants=shown.grants,
            denial=await self._denial(shown, statement.payload.aud),
        )

    async def _denial(self, shown: RequestOut, patient_did: str) -> DenialReason | None:
        if shown.denial is None:
            return None
        patient = await self.session.issuer_of(shown.denial, Denial)
        with verifying():
            denial = verify_stored(shown.denial, Denial, patient)
        if patient.did != patient_did or denial.payload.request != shown.id:
            raise WrongAnswer("The records service shows a denial of another request.")
        return denial.payload.reason
