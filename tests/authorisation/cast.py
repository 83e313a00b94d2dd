"""The parties, what they have done before, and for each state one grant (or more) that is in it.

The patient has two records, one under allergies and one under medications. Every recipient has a grant of its own;
that of the recipient whom an attempt is about is in the state that is looked at, and allows to read, append and amend.
Grants that are to have expired are short, and the clock is moved once, when everything is prepared.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.encoding import b64url, from_b64url
from shared.transparency.merkle import leaf_hash
from shared.wire import Action
from shared.wire import Role as Kind
from tests.authorisation.matrix import State
from tests.services.loopback import PATIENCE, SERVICES, Loopback
from tests.services.signing_parties import DAY, SealedRecord, SignedGrant, TestParty, id_of, random_hash

SHORT = 120
"""Seconds that a grant lasts which is to have expired."""
LATER = 400
"""Seconds by which the clock is moved: more than such a grant lasts, and an access token with its grace."""
ALL = (Action.READ, Action.APPEND, Action.AMEND)


@dataclass(frozen=True)
class Case:
    """A recipient, and its grant in a state; where there is none yet, the one that the patient would give."""

    state: State
    recipient: TestParty
    request: str | None
    grant: SignedGrant

    @property
    def request_id(self) -> str:
        return id_of(self.request) if self.request is not None else random_hash()


@dataclass
class Cast:
    """Everybody, and what there is of theirs."""

    platform: Loopback
    owner: TestParty
    neighbour: TestParty
    """Another patient."""
    other_scope: TestParty
    expired: TestParty
    revoked: TestParty
    author: TestParty
    allergy: SealedRecord
    pills: SealedRecord
    authority: SignedGrant
    """The author's grant, to append allergies."""
    own_grants: dict[str, SignedGrant] = field(default_factory=dict)
    """The grant that each recipient holds or held, by its DID."""
    cases: dict[State, Case] = field(default_factory=dict)
    spares: dict[State, list[Case]] = field(default_factory=lambda: defaultdict(list))
    """Grants in a state, each for one operation that changes it."""
    stale_tokens: dict[tuple[str, str], str] = field(default_factory=dict)
    """Access tokens that have expired, by DID and service."""
    leaves: dict[str, str] = field(default_factory=dict)
    """For each service the hash of a leaf of its log."""
    sent: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """What each party has sent, by its DID: what a log shows it of that tells it nothing new."""
    _taken: dict[tuple[State, str, str], Case] = field(default_factory=dict)

    def spare(self, state: State, service: str, operation: str) -> Case:
        """A grant in this state with which nothing else is tried than this operation."""
        place = (state, service, operation)
        if place not in self._taken:
            self._taken[place] = self.spares[state].pop()
        return self._taken[place]

    async def asked(self, recipient: TestParty) -> str:
        """The id of a new request of the recipient's to the patient."""
        statement = recipient.disclosure_request(self.owner, now=self.platform.clock())
        path = "/v1/disclosure-requests"
        await self.platform.ask("POST", "records", path, recipient, json={"statement": statement})
        return id_of(statement)

    async def written(self, author: TestParty, record: SealedRecord) -> SealedRecord:
        """The record, stored."""
        await self.platform.ask("POST", "records", "/v1/records", author, json={"records": [record.as_json()]})
        return record


async def prepare(platform: Loopback, spares: Mapping[State, int]) -> Cast:
    """Let everybody do what comes before; `spares` says how many grants of each state are wanted besides."""
    now = platform.clock
    owner, neighbour = [await platform.signed_up(Kind.PATIENT) for _ in range(2)]
    others = [await platform.signed_up(Kind.RECIPIENT, name=f"Demo {name}") for name in ("A", "B", "C", "D")]
    other_scope, expired, revoked, author = others
    for patient in (owner, neighbour):
        keys = [patient.scope_key(scope, now=now()) for scope in ("allergies", "medications")]
        path = f"/v1/patients/{patient.did}/scope-keys"
        await platform.ask("PUT", "registry", path, patient, json={"scope_keys": keys})
    authority = owner.grant(author, actions=(Action.APPEND,), now=now())
    cast = Cast(
        platform,
        owner,
        neighbour,
        *others,
        allergy=owner.record(owner, "allergies", now=now()),
        pills=owner.record(owner, "medications", now=now()),
        authority=authority,
    )
    await cast.written(owner, cast.allergy)
    await cast.written(owner, cast.pills)
    await cast.written(neighbour, neighbour.record(neighbour, "allergies", now=now()))
    await _give(cast, authority)
    held = [
        Case(state, party, None, await _granted(cast, party, state, scope=scope))
        for party, state, scope in (
            (other_scope, State.COMPLETE, "medications"),
            (expired, State.EXPIRED, "allergies"),
            (revoked, State.REVOKED, "allergies"),
        )
    ]
    cast.own_grants = {case.recipient.did: case.grant for case in held} | {author.did: authority}
    for state in State:
        cast.cases[state] = await _case(cast, state, await platform.signed_up(Kind.RECIPIENT, name=f"Demo {state}"))
        cast.own_grants[cast.cases[state].recipient.did] = cast.cases[state].grant
        bystander = await platform.signed_up(Kind.RECIPIENT, name=f"Demo spare {state}")
        cast.spares[state] = await asyncio.gather(*(_case(cast, state, bystander) for _ in range(spares.get(state, 0))))
    everything = [*held, *cast.cases.values(), *[case for group in cast.spares.values() for case in group]]
    await _until(cast, everything, {State.EXPIRED: "complete", State.REVOKED: "complete"})
    # What has been opened once must not stay open: these all had the record before their grants ended.
    for case in [*held, *cast.cases.values()]:
        if case.state not in (State.NONE, State.REQUESTED, State.PENDING):
            record = cast.pills if case.recipient is other_scope else cast.allergy
            wanted = case.recipient.reencryption_request(case.grant.id, [(0, record.capsule_hash)], now=now())
            await platform.ask("POST", "records", "/v1/disclosures", case.recipient, json={"request": wanted})
    for case in everything:
        if case.state is State.REVOKED:
            statement = owner.revocation(case.recipient, case.grant.id, now=now())
            await platform.ask("POST", "records", "/v1/revocations", owner, json={"statement": statement})
    for party in (owner, *others, platform.second, *[case.recipient for case in cast.cases.values()]):
        for service in SERVICES:
            cast.stale_tokens[party.did, service] = await platform.token(party, service)
    now.advance(LATER)
    await _until(cast, everything, {})
    await _find_leaves(cast)
    return cast


async def _case(cast: Cast, state: State, recipient: TestParty) -> Case:
    now = cast.platform.clock()
    request = None
    if state is not State.NONE:
        request = recipient.disclosure_request(cast.owner, actions=ALL, now=now)
        path = "/v1/disclosure-requests"
        await cast.platform.ask("POST", "records", path, recipient, json={"statement": request})
    return Case(state, recipient, request, await _granted(cast, recipient, state, request=request))


async def _granted(
    cast: Cast, recipient: TestParty, state: State, *, scope: str = "allergies", request: str | None = None
) -> SignedGrant:
    platform = cast.platform
    proxies = {
        State.PENDING: [platform.proxy, platform.absent],
        State.ACTIVE: [platform.proxy, platform.second, platform.absent],
    }.get(state, [platform.proxy, platform.second])
    grant = cast.owner.grant(
        recipient,
        [scope],
        proxies=proxies,
        threshold=2,
        actions=ALL,
        request=None if request is None else id_of(request),
        lifetime=SHORT if state is State.EXPIRED else 30 * DAY,
        now=platform.clock(),
    )
    if state not in (State.NONE, State.REQUESTED):
        await _give(cast, grant)
    return grant


async def _give(cast: Cast, grant: SignedGrant) -> None:
    await cast.platform.ask("POST", "records", "/v1/grants", cast.owner, json=grant.as_json())


async def _until(cast: Cast, cases: Sequence[Case], states: Mapping[State, str]) -> None:
    """Until each grant is in the state of its case, or in the one that `states` has in its place.

    A grant that is pending has its one share, and one that has been revoked has its proxies' receipts."""
    deadline = time.monotonic() + PATIENCE
    for case in cases:
        wanted = states.get(case.state, case.state.value)
        if wanted in ("none", "requested"):
            continue
        while True:
            path = f"/v1/grants/{case.grant.id}"
            found = (await cast.platform.ask("GET", "records", path, cast.owner)).json()
            if found["state"] == wanted and _settled(found, wanted):
                break
            assert time.monotonic() < deadline, (wanted, found)
            await asyncio.sleep(0.05)


def _settled(grant: dict[str, Any], state: str) -> bool:
    receipts = "erased" if state == "revoked" else "stored"
    there = sum(proxy[receipts] is not None for proxy in grant["proxies"])
    return there == (1 if state == "pending" else 2)


async def _find_leaves(cast: Cast) -> None:
    """A leaf of each log, which is in the published tree."""
    platform = cast.platform
    entries = (await platform.http.get(f"{platform.urls['registry']}/v1/log/entries?start=0&limit=1")).json()
    cast.leaves["registry"] = b64url(leaf_hash(from_b64url(entries["items"][0])))
    for service, path in (("records", "/v1/me/audit"), ("proxy", "/v1/audit")):
        events = (await platform.ask("GET", service, path, cast.owner)).json()["items"]
        cast.leaves[service] = b64url(leaf_hash(from_b64url(events[-1]["commitment"])))
    async with asyncio.timeout(PATIENCE):
        for service, leaf in cast.leaves.items():
            url = f"{platform.urls[service]}/v1/log/inclusion"
            while (await platform.http.post(url, json={"leaves": [leaf], "size": 0})).status_code == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
