"""Opening what a grant covers: ask for re-encryptions, check each, combine, decrypt (docs/spec.md section 9).

A proxy whose re-encryption does not verify is named, and the batch asked for again without it. What verifies and
still does not combine is the fault of whoever made the kfrags. One record that does not hold costs no other record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.cfrags import CfragTask
from client.errors import (
    ClientError,
    LyingProxy,
    ReceiptInvalid,
    ServiceRefused,
    VerificationFailed,
    WrongAnswer,
)
from client.pool import CfragPool
from client.reading import check_all, open_whole, problem_of
from client.records import unwrap_as_recipient
from client.reports import HeldGrant, ListedRecord, OpenedRecord, Problem
from client.session import Session
from client.verification import VerifiedRecord, check_receipt
from shared.crypto.record import RecordKey
from shared.crypto.umbral import PublicKey, SecretKey, VerifiedCapsuleFrag
from shared.encoding import b64url, from_b64url, sha256
from shared.errors import PcehrError
from shared.identity import verifying_key
from shared.schemas.records import DisclosureOut
from shared.statements import ReencryptionRequest, Verified, WantedCapsule
from shared.wire import PROXIES_AUDIENCE, REENCRYPTION_LIFETIME


@dataclass
class Outcome:
    """What became of one batch."""

    opened: list[OpenedRecord]
    problems: list[Problem]
    lying_proxies: list[str]


@dataclass(frozen=True)
class _Keys:
    """The keys of one grant: what cfrags verify under, and what opens them."""

    verifying: bytes
    receiving: SecretKey
    delegating: tuple[bytes, ...]


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
        pool: CfragPool,
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
            wrong = await self._wrong_proxies(request, answer, cfrags, outcome)
            if all(len(of_record.keys() - wrong) >= self._grant.threshold for of_record in cfrags):
                good = [[cfrag for did, cfrag in of_record.items() if did not in wrong] for of_record in cfrags]
                await self._open_all(answer, good, outcome)
                return outcome
            if not wrong:
                raise WrongAnswer("The records service sent fewer re-encryptions than the grant's threshold.")
            excluded += sorted(wrong)

    async def _wrong_proxies(
        self,
        request: Verified[ReencryptionRequest],
        answer: DisclosureOut,
        cfrags: Sequence[Mapping[str, bytes]],
        outcome: Outcome,
    ) -> set[str]:
        """Proxies whose re-encryptions or receipts do not hold; noted in the outcome.

        A re-encryption that does not verify is a lie. A receipt that is missing or lists other re-encryptions may be
        the records service's doing just as well, so such a proxy is passed over and not accused.
        """
        tasks = [self._task(record, of_record) for record, of_record in zip(self._records, cfrags, strict=True)]
        verdicts = await self._pool.check(tasks)
        liars = {
            did
            for of_record, verdict in zip(cfrags, verdicts, strict=True)
            for did, holds in zip(of_record, verdict, strict=True)
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

    async def _open_all(self, answer: DisclosureOut, cfrags: Sequence[list[bytes]], outcome: Outcome) -> None:
        shown = [disclosed.record for disclosed in answer.records]
        checked = await check_all(self._session, shown, self._grant.patient)
        for wanted, record, of_record in zip(self._records, checked, cfrags, strict=True):
            try:
                outcome.opened.append(await self._open_one(wanted, record, of_record))
            except ClientError as error:
                outcome.problems.append(self._problem(error, wanted))

    async def _open_one(
        self, wanted: ListedRecord, record: VerifiedRecord | Problem, cfrags: list[bytes]
    ) -> OpenedRecord:
        if isinstance(record, Problem):
            raise VerificationFailed.from_code(record.code, record.detail)
        if record.manifest.id != wanted.manifest.id:
            raise WrongAnswer("The records service sent another record than the one asked for.")
        key = await asyncio.to_thread(_unwrap, self._keys, wanted.entry, record, cfrags[: self._grant.threshold])
        opened = await open_whole(self._session, record, key, scope=wanted.scope, large_to=self._large_to)
        self._session.state.note_record(record.manifest)
        return opened

    def _task(self, record: ListedRecord, cfrags: Mapping[str, bytes]) -> CfragTask:
        return CfragTask(
            capsule=record.capsule,
            verifying_key=self._keys.verifying,
            delegating_key=self._keys.delegating[record.entry],
            receiving_key=bytes(self._keys.receiving.public_key()),
            cfrags=tuple(cfrags.values()),
        )

    def _problem(self, error: PcehrError, record: ListedRecord) -> Problem:
        return problem_of(error, record_id=record.record_id, grant_id=self._grant.id)


def _unwrap(keys: _Keys, entry: int, record: VerifiedRecord, cfrags: list[bytes]) -> RecordKey:
    """Combine `t` verified re-encryptions; more would only take longer."""
    trusted = [VerifiedCapsuleFrag.from_verified_bytes(cfrag) for cfrag in cfrags]
    return unwrap_as_recipient(record, keys.receiving, PublicKey.from_bytes(keys.delegating[entry]), trusted)


def _keys_of(session: Session, grant: HeldGrant) -> _Keys:
    payload = grant.statement.payload
    return _Keys(
        verifying=bytes(verifying_key(grant.patient_entry)),
        receiving=session.keyring.receiving(grant.recipient_entry.payload.seq),
        delegating=tuple(from_b64url(entry.delegating_key, 33) for entry in payload.scopes),
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
