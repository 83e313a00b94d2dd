"""Runs attempts of the matrix against a running platform and says where the two disagree."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import httpx

from shared.crypto.signing import SigningKey
from shared.tokens import mint_access_token
from tests.authorisation import answers, at_a_proxy, at_every_service, at_the_records_service, at_the_registry
from tests.authorisation.attempts import ATTEMPTS, Ask, Scene, Tried, caller_of
from tests.authorisation.cast import Cast
from tests.authorisation.matrix import Attempt, Outcome, Role, State
from tests.services.loopback import PATIENCE, RECORDS_LOG_SEED, to_be_repeated
from tests.services.signing_parties import TestParty

MODULES = (at_every_service, at_the_registry, at_the_records_service, at_a_proxy)
"""Importing these has entered all attempts."""

SILENCE = 0.3
"""Seconds after which a stream has said what there was to say."""

AT_ONCE = 8
"""Requests under way at one time."""

_OTHER = {"registry": "records", "records": "registry", "proxy": "records"}


@dataclass(frozen=True)
class Disagreement:
    """One cell of the matrix that does not come true."""

    attempt: str
    role: Role
    state: State
    expected: Outcome
    found: str


def tried(attempt: Attempt) -> Tried:
    """How an attempt of the matrix is made."""
    return ATTEMPTS[attempt.service, attempt.operation, attempt.tries]


def spares(matrix: Iterable[Attempt]) -> Counter[State]:
    """How many grants of each state the matrix uses up: one for each operation that changes it. The patient does so
    again and again with different tokens, or none, and the first time finds the grant as it was."""
    used = {
        (state, attempt.service, attempt.operation)
        for attempt in matrix
        for role, state, outcome in attempt.cells()
        if tried(attempt).uses_up(role, state, outcome)
    }
    return Counter(state for state, _, _ in used)


async def disagreements(cast: Cast, attempt: Attempt) -> list[Disagreement]:
    """Try one attempt as every role in every state, a few at a time."""
    few = asyncio.Semaphore(AT_ONCE)

    async def cell(role: Role, state: State, expected: Outcome) -> Disagreement | None:
        what = tried(attempt)
        changed = what.uses_up(role, state, expected)
        case = cast.spare(state, attempt.service, attempt.operation) if changed else cast.cases[state]
        scene = Scene(cast, case, role, caller_of(role, cast, case, what.who))
        async with few:
            said = await _said(scene, attempt, await what.build(scene), expected)
        return None if said is None else Disagreement(attempt.name, role, state, expected, said)

    found = await asyncio.gather(*(cell(*one) for one in attempt.cells()))
    return [one for one in found if one is not None]


async def _said(scene: Scene, attempt: Attempt, ask: Ask, expected: Outcome) -> str | None:
    """What came instead of what was expected; None where it came."""
    method, _, _ = attempt.operation.partition(" ")
    headers = dict(ask.headers) | await _bearer(scene, attempt.service)
    url = scene.cast.platform.urls[attempt.service] + ask.path
    http = scene.cast.platform.http
    scene.cast.sent[scene.caller.did].append(answers.opened(f"{ask.path} {ask.params} {json.dumps(ask.json)}"))
    awaited = ask.shows if expected.word == "shown" else None
    deadline = time.monotonic() + PATIENCE
    while True:
        async with http.stream(
            method, url, params=dict(ask.params), json=ask.json, data=ask.form, content=ask.content, headers=headers
        ) as response:
            body = await _body(response, awaited)
        if not to_be_repeated(response.status_code, body) or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    text = answers.text_of(response, body)
    if response.status_code != expected.status or (not expected.allowed and _code(body) != expected.word):
        return f"{response.status_code} {_code(body)}"
    if expected.word == "shown":
        return None if ask.shows is None or ask.shows in text else "it does not show what was asked for"
    leaked = sorted(thing for thing in _forbidden(scene, expected, ask) if thing in text)
    return f"it shows {leaked}" if leaked else None


async def _bearer(scene: Scene, service: str) -> dict[str, str]:
    """The header with the access token that the role has, if it has one."""
    platform, did = scene.cast.platform, scene.caller.did
    match scene.role:
        case Role.NO_TOKEN:
            return {}
        case Role.EXPIRED_TOKEN:
            token = scene.cast.stale_tokens[did, service]
        case Role.OTHER_SERVICE:
            token = await platform.token(scene.caller, _OTHER[service])
        case Role.RECORDS_SERVICE:
            token = _self_made(scene.caller, platform.urls["registry"], platform.audience(service), scene.now)
        case _:
            token = await platform.token(scene.caller, service)
    return {"Authorization": f"Bearer {token}"}


def _self_made(party: TestParty, issuer: str, audience: str, now: int) -> str:
    """An access token as the registry would make it, signed with the only key that the records service has."""
    key = SigningKey(RECORDS_LOG_SEED)
    return mint_access_token(key=key, issuer=issuer, subject=party.did, role=party.role, audience=audience, now=now)


def _forbidden(scene: Scene, expected: Outcome, ask: Ask) -> set[str]:
    """What must not be in this answer."""
    cast, caller = scene.cast, scene.caller
    if not expected.allowed:
        return answers.things_of_the_patient(cast)
    if caller is cast.owner:
        return set()
    if expected.word == "nothing":
        return answers.things_of_the_patient(cast) | ({ask.shows} if ask.shows else set())
    return answers.private_things(cast) - answers.own_things(cast, caller)


async def _body(response: httpx.Response, awaited: str | None) -> bytes:
    """The body; of a stream, which has no end, what comes before it falls silent, and what is awaited in any case."""
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        return await response.aread()
    body = b""
    chunks = response.aiter_bytes()
    with suppress(TimeoutError, StopAsyncIteration):
        while True:
            still = awaited is not None and awaited.encode() not in body
            body += await asyncio.wait_for(anext(chunks), PATIENCE if still else SILENCE)
    return body


def _code(body: bytes) -> str:
    try:
        return str(json.loads(body).get("code", "no code"))
    except (ValueError, AttributeError):
        return "no problem"
