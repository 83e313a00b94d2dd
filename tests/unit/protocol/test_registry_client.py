"""What a service believes of a registry: bounded answers, chains that only grow, keys asked for in moderation."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from shared import registry_client as rc
from shared.crypto.signing import SigningKey, VerifyKey
from shared.errors import RegistryUnavailable
from shared.identity import ChainRolledBack
from shared.statements import Denial, sign
from shared.tokens import jwk, key_thumbprint, mint_access_token
from shared.wire import RECORDS_AUDIENCE, Role
from tests.unit.protocol.parties import NOW, SeededParty

URL = "http://registry.test"
ALICE = SeededParty(1)
CHAIN = ALICE.chain(3)


class Memory:
    """A store of chains in memory."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {}

    async def load(self, did: str) -> list[str] | None:
        return self.chains.get(did)

    async def save(self, did: str, entries: list[str]) -> None:
        self.chains[did] = entries


class Scripted:
    """A registry that gives these answers one after the other, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        answer = self.answers[min(self.asked, len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json={"entries": answer})


def directory(registry: Scripted, store: Memory | None = None, *, cache_seconds: int = 0) -> rc.PartyDirectory:
    http = httpx.AsyncClient(transport=httpx.MockTransport(registry))
    return rc.PartyDirectory(http, URL, store or Memory(), cache_seconds=cache_seconds)


async def test_a_chain_is_verified_kept_and_extended() -> None:
    store = Memory()
    parties = directory(Scripted(CHAIN[:1], CHAIN), store)
    assert (await parties.resolve(ALICE.did)).current.payload.seq == 0
    assert (await parties.resolve(ALICE.did)).current.payload.seq == 2
    assert store.chains[ALICE.did] == CHAIN


async def test_a_shorter_chain_is_a_roll_back_when_it_is_shown_twice() -> None:
    store = Memory()
    store.chains[ALICE.did] = CHAIN
    with pytest.raises(ChainRolledBack):
        await directory(Scripted(CHAIN[:1]), store).resolve(ALICE.did)
    assert store.chains[ALICE.did] == CHAIN


async def test_a_rotation_between_two_looks_is_no_roll_back() -> None:
    store = Memory()
    store.chains[ALICE.did] = CHAIN
    assert (await directory(Scripted(CHAIN[:2], CHAIN), store).resolve(ALICE.did)).current.payload.seq == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("away"),
        httpx.Response(500),
        httpx.Response(302, headers={"location": "http://elsewhere.test"}),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"entries": None}),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(200, content=b" " * (rc.MAX_ANSWER_BYTES + 1)),
        httpx.Response(200, content=b"\x1f\x8b", headers={"x-note": "compressed"}),
    ],
    ids=["away", "error", "redirect", "html", "list", "null", "deep", "huge", "binary"],
)
async def test_an_answer_that_is_none_is_registry_unavailable(answer: Any) -> None:
    with pytest.raises(RegistryUnavailable):
        await directory(Scripted(answer)).resolve(ALICE.did)


async def test_an_unknown_party() -> None:
    with pytest.raises(rc.UnknownParty):
        await directory(Scripted(httpx.Response(404))).resolve(ALICE.did)


async def test_a_registry_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rc, "ANSWER_SECONDS", 0.05)

    async def drip() -> Any:
        while True:
            await asyncio.sleep(0.01)
            yield b" "

    with pytest.raises(RegistryUnavailable):
        await directory(Scripted(httpx.Response(200, content=drip()))).resolve(ALICE.did)


async def test_a_key_that_is_not_there_does_not_make_the_registry_be_asked_each_time() -> None:
    registry = Scripted(CHAIN[:1])
    parties = directory(registry, cache_seconds=60)
    token = sign(ALICE.denial(), ALICE.identity(5))
    for _ in range(20):
        await parties.issuer_of(token, Denial)
    assert registry.asked == 2


async def test_a_statement_that_takes_access_away_needs_no_honest_registry() -> None:
    store = Memory()
    store.chains[ALICE.did] = CHAIN
    token = sign(ALICE.denial(), ALICE.identity(2))
    for lie in (httpx.Response(404), CHAIN[:1], httpx.ConnectError("away"), httpx.Response(200, json={})):
        assert (await directory(Scripted(lie), store).issuer_of_for_less(token, Denial)).did == ALICE.did
        assert (await directory(Scripted(lie), store).resolve_for_less(ALICE.did)).did == ALICE.did


async def test_a_key_that_no_chain_seen_holds_does_need_the_registry() -> None:
    store = Memory()
    store.chains[ALICE.did] = CHAIN
    token = sign(ALICE.denial(), ALICE.identity(7))
    with pytest.raises(RegistryUnavailable):
        await directory(Scripted(httpx.ConnectError("away")), store).issuer_of_for_less(token, Denial)


KEY = SigningKey(bytes(range(32)))
TOKEN = mint_access_token(key=KEY, issuer=URL, subject=ALICE.did, role=Role.PATIENT, audience=RECORDS_AUDIENCE, now=NOW)


@pytest.mark.parametrize(
    "body",
    [{"keys": None}, {"keys": 5}, 5, [], {}, {"keys": [5]}, {"keys": [{"kty": "OKP", "crv": "Ed25519"}]}],
    ids=str,
)
async def test_a_jwks_that_is_none_is_registry_unavailable(body: Any) -> None:
    http = httpx.AsyncClient(transport=httpx.MockTransport(Scripted(httpx.Response(200, json=body))))
    with pytest.raises(RegistryUnavailable):
        await rc.jwks_fetcher(http, URL)()


async def test_a_directory_with_an_id_that_is_none_is_registry_unavailable() -> None:
    """Its members' own check raises no ValidationError, and the fault would be taken for the caller's."""
    party = {"did": ALICE.did[:-1] + "0", "role": "proxy", "seq": 0, "entries": CHAIN}
    answer = httpx.Response(200, json={"items": [party]})
    http = httpx.AsyncClient(transport=httpx.MockTransport(Scripted(answer)))
    with pytest.raises(RegistryUnavailable):
        await rc.list_proxies(http, URL)


async def test_token_keys_are_fetched_once_for_many_callers() -> None:
    registry = Scripted(httpx.Response(200, json={"keys": [jwk(KEY.verify_key)]}))
    http = httpx.AsyncClient(transport=httpx.MockTransport(registry))
    keys = rc.TokenKeys(rc.jwks_fetcher(http, URL))
    found = await asyncio.gather(*(keys.for_token(TOKEN) for _ in range(30)))
    assert registry.asked == 1
    assert all(key_thumbprint(KEY.verify_key) in one for one in found)


async def test_junk_tokens_do_not_hammer_a_registry_that_is_away() -> None:
    tried = 0

    async def fetch() -> dict[str, VerifyKey]:
        nonlocal tried
        tried += 1
        raise RegistryUnavailable

    keys = rc.TokenKeys(fetch)
    answers = await asyncio.gather(*(keys.for_token(TOKEN) for _ in range(30)), return_exceptions=True)
    assert tried == 1
    assert all(isinstance(answer, RegistryUnavailable) for answer in answers)
