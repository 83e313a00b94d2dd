"""Opening what a grant covers: ask for re-encryptions, check each, combine, decrypt (docs/spec.md section 9).

A proxy whose re-encryption does not verify is named, and the batch asked for again without it. What verifies and
still does not combine is the fault of whoever made the kfrags. One record that does not hold costs no other record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.envelopes import Envelope, OpeningKeys, Unwrapped
from client.errors import (
    LyingProxy,
    ReceiptInvalid,
    ServiceRefused,
    VerificationFailed,
    WrongAnswer,
)
from client.pool import EnvelopePool
from client.reading import check_all, open_all, problem_of
from client.records import key_from_envelope
from client.reports import HeldGrant, ListedRecord, OpenedRecord, Problem
from client.session import Session
from client.verification import VerifiedRecord, VerifiedVersion, check_parts, check_receipt, verifying
from shared.crypto.record import RecordKey
from shared.encoding import b64url, from_b64url, sha256
from shared.errors import PcehrError
from shared.identity import verifying_key
from shared.schemas.records import DisclosureOut, RecordOut
from shared.statements import ReencryptionRequest, Verified, WantedCapsule
from shared.wire import PROXIES_AUDIENCE, REENCRYPTION_LIFETIME


@dataclass
class Outcome:
    """What became of one batch."""

    opened: list[OpenedRecord]
    problems: list[Problem]
    lying_proxies: list[str]


async def request_reencryption(
    session: Session, grant: HeldGrant, records: Sequence[ListedRecord]
) -> Verified[ReencryptionRequest]:
    """Sign a request for the capsules of these records, good for five minutes."""
    now = session.clock()
    return await session.sign(
        ReencryptionRequest,
        PROXIES_AUDIENCE,
        iat=now,
        exp=now + REENCRYPTION_LIFETIME,
        grant=grant.id,
        capsules=tuple(
            WantedCapsule(entry=record.entry, capsule=record.manifest.payload.capsule) for record in records
        ),
    )


class Batch:
    """One disclosure of up to 200 records under one grant."""

    def __init__(
        self,
        session: Session,
        pool: EnvelopePool,
        grant: HeldGrant,
        records: Sequence[ListedRecord],
        *,
        large_to: Path | None = None,
    ) -> None:
        self._session = session
        self._pool = pool
        self._grant = grant
        self._records = records
        self._large_to = large_to
        self._keys = _keys_of(session, grant)
        self._delegating = tuple(from_b64url(entry.delegating_key, 33) for entry in grant.statement.payload.scopes)

    async def open(self) -> Outcome:
        """Have the batch re-encrypted and open it; raises what the service refuses for the batch as a whole."""
        outcome = Outcome([], [], [])
        excluded: list[str] = []
        while True:
            request = await request_reencryption(self._session, self._grant, self._records)
            who = await self._session.credentials()
            try:
                answer = await self._session.platform.disclose(who, request.token, excluded)
            except ServiceRefused as refused:
                if not excluded:
                    raise
                # Without the proxies that lied there are too few; the batch stays closed, and everybody hears why.
                outcome.problems += [self._problem(refused, record) for record in self._records]
                return outcome
            cfrags = _by_proxy(answer, self._records, self._grant)
            if any(did in of_record for of_record in cfrags for did in excluded):
                raise WrongAnswer("The records service asked a proxy that it had been told to leave out.")
            records = await self._check_records(answer)
            unwrapped = await self._unwrap(records, cfrags)
            wrong = await self._wrong_proxies(request, answer, cfrags, unwrapped, outcome)
            good = [{did: cfrag for did, cfrag in of_record.items() if did not in wrong} for of_record in cfrags]
            if all(len(of_record) >= self._grant.threshold for of_record in good):
                if wrong:
                    unwrapped = await self._unwrap(records, good)
                await self._open_all(records, unwrapped, outcome)
                return outcome
            if not wrong:
                raise WrongAnswer("The records service sent fewer re-encryptions than the grant's threshold.")
            excluded += sorted(wrong)

    async def _check_records(self, answer: DisclosureOut) -> list[VerifiedRecord | Problem]:
        """The records disclosed, or why one is not the one asked for, in order.

        A manifest that is the one listed, to the letter, has been verified with the list.
        """
        shown = [disclosed.record for disclosed in answer.records]
        others = [
            one for one, wanted in zip(shown, self._records, strict=True) if one.manifest != wanted.manifest.token
        ]
        checked = dict(zip(map(id, others), await check_all(self._session, others, self._grant.patient), strict=True))
        return await asyncio.to_thread(
            lambda: [
                self._check_record(one, wanted, checked.get(id(one)))
                for one, wanted in zip(shown, self._records, strict=True)
            ]
        )

    def _check_record(
        self, shown: RecordOut, wanted: ListedRecord, other: VerifiedRecord | Problem | None
    ) -> VerifiedRecord | Problem:
        try:
            if isinstance(other, Problem):
                raise VerificationFailed.from_code(other.code, other.detail)
            if other is not None:
                raise WrongAnswer("The records service sent another record than the one asked for.")
            return check_parts(shown, VerifiedVersion(wanted.manifest, wanted.authority))
        except VerificationFailed as error:
            return self._problem(error, wanted)

    async def _unwrap(
        self, records: Sequence[VerifiedRecord | Problem], cfrags: Sequence[Mapping[str, bytes]]
    ) -> list[Unwrapped]:
        """Check the re-encryptions of each capsule asked for and open its envelope. That of a record which is not the
        one asked for is left closed, and its re-encryptions are checked all the same."""
        envelopes = [
            Envelope(
                capsule=wanted.capsule,
                delegating_key=self._delegating[wanted.entry],
                wrapped_key=b"" if isinstance(record, Problem) else record.wrapped_key,
                cfrags=tuple(of_record.values()),
            )
            for wanted, record, of_record in zip(self._records, records, cfrags, strict=True)
        ]
        return await self._pool.open(self._keys, envelopes)

    async def _wrong_proxies(
        self,
        request: Verified[ReencryptionRequest],
        answer: DisclosureOut,
        cfrags: Sequence[Mapping[str, bytes]],
        unwrapped: Sequence[Unwrapped],
        outcome: Outcome,
    ) -> set[str]:
        """Proxies whose re-encryptions or receipts do not hold; noted in the outcome.

        A re-encryption that does not verify is a lie. A receipt that is missing or lists other re-encryptions may be
        the records service's doing just as well, so such a proxy is passed over and not accused.
        """
        liars = {
            did
            for of_record, one in zip(cfrags, unwrapped, strict=True)
            for did, holds in zip(of_record, one.holds, strict=True)
            if not holds
        }
        for did in sorted(liars):
            outcome.problems.append(problem_of(LyingProxy(did), grant_id=self._grant.id, proxy=did))
            outcome.lying_proxies.append(did)
        unproven = await self._without_receipt(request, answer, cfrags)
        outcome.problems += [problem for did, problem in unproven.items() if did not in liars]
        return liars | unproven.keys()

    async def _without_receipt(
        self, request: Verified[ReencryptionRequest], answer: DisclosureOut, cfrags: Sequence[Mapping[str, bytes]]
    ) -> dict[str, Problem]:
        """Proxies without a receipt that verifies and lists exactly the re-encryptions that came in their name."""
        receipts = {receipt.proxy: receipt.receipt for receipt in answer.receipts}
        unproven: dict[str, Problem] = {}
        for did in sorted({did for of_record in cfrags for did in of_record}):
            hashes = [b64url(sha256(of_record[did])) for of_record in cfrags if did in of_record]
            try:
                await self._check_receipt(receipts.get(did), did, request.id, hashes)
            except VerificationFailed as error:
                unproven[did] = problem_of(error, grant_id=self._grant.id, proxy=did)
        return unproven

    async def _check_receipt(self, token: str | None, did: str, request_id: str, hashes: Sequence[str]) -> None:
        if token is None:
            raise ReceiptInvalid("A proxy's receipt is missing.")
        for fresh in (False, True):
            proxy = await self._session.party(did, fresh=fresh)
            try:
                check_receipt(
                    token,
                    proxy,
                    act="reencrypted",
                    statement=request_id,
                    grant=self._grant.id,
                    audience=self._session.did,
                    cfrags=hashes,
                )
            except ReceiptInvalid:
                # The first time it may only be that the proxy has changed its keys since this session saw it.
                if fresh:
                    raise
            else:
                return

    async def _open_all(
        self, records: Sequence[VerifiedRecord | Problem], unwrapped: Sequence[Unwrapped], outcome: Outcome
    ) -> None:
        keyed: list[tuple[ListedRecord, VerifiedRecord, RecordKey]] = []
        for wanted, record, one in zip(self._records, records, unwrapped, strict=True):
            try:
                if isinstance(record, Problem):
                    outcome.problems.append(record)
                else:
                    keyed.append((wanted, record, _key_of(record, one)))
            except VerificationFailed as error:
                outcome.problems.append(self._problem(error, wanted))
        whole = [(record, key, wanted.scope) for wanted, record, key in keyed]
        opened = await open_all(self._session, whole, large_to=self._large_to)
        for (wanted, record, _), result in zip(keyed, opened, strict=True):
            try:
                if isinstance(result, OpenedRecord):
                    self._session.state.note_record(record.manifest)
                    outcome.opened.append(result)
                else:
                    outcome.problems.append(self._problem(result, wanted))
            except VerificationFailed as error:
                outcome.problems.append(self._problem(error, wanted))

    def _problem(self, error: PcehrError, record: ListedRecord) -> Problem:
        return problem_of(error, record_id=record.record_id, grant_id=self._grant.id)


def _key_of(record: VerifiedRecord, unwrapped: Unwrapped) -> RecordKey:
    """The content key; raises `SharesDoNotCombine` or another `VerificationFailed`."""
    with verifying():
        if unwrapped.fault is not None:
            raise unwrapped.fault
    if unwrapped.content is None:
        raise WrongAnswer("The records service sent fewer re-encryptions than the grant's threshold.")
    return key_from_envelope(record, unwrapped.content)


def _keys_of(session: Session, grant: HeldGrant) -> OpeningKeys:
    return OpeningKeys(
        threshold=grant.threshold,
        verifying_key=bytes(verifying_key(grant.patient_entry)),
        receiving_key=session.keyring.receiving(grant.recipient_entry.payload.seq),
    )


def _by_proxy(answer: DisclosureOut, records: Sequence[ListedRecord], grant: HeldGrant) -> list[dict[str, bytes]]:
    """The re-encryptions of each record by proxy. Only proxies that the grant names count, and each once."""
    if answer.grant != grant.id or len(answer.records) != len(records):
        raise WrongAnswer("The records service answered another request.")
    named = {proxy.did for proxy in grant.proxies}
    found = []
    for disclosed in answer.records:
        cfrags: dict[str, bytes] = {}
        for share in disclosed.cfrags:
            if share.proxy not in named or share.proxy in cfrags:
                raise WrongAnswer("The records service sent a re-encryption by a proxy that the grant does not name.")
            cfrags[share.proxy] = from_b64url(share.cfrag)
        found.append(cfrags)
    return found
