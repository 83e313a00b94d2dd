"""The outbox: at least once, one effect, back-off, leases, crashes, and what is refused for good."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from services.records.outbox import AT_ONCE_PER_PROXY, Outbox
from shared.errors import DatabaseUnavailable
from tests.services.records.network import Lie
from tests.services.records.world import PATIENCE, World
from tests.services.signing_parties import SignedGrant


@pytest.fixture
async def still(idle_world: World) -> AsyncIterator[World]:
    """A world whose outbox delivers only when a test says so, in a time of the test's own."""
    async with idle_world.running(own_time=True, outbox_enabled=False) as world:
        yield world


def outbox(world: World) -> Outbox:
    worker: Outbox = world.app.state.outbox
    return worker


async def pending(world: World) -> list[Any]:
    return await world.sql("SELECT kind, proxy, attempts, due_at, leased_until, sealed FROM outbox ORDER BY id")


async def until_left(world: World, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(await pending(world)) > count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def problems(world: World, grant: SignedGrant) -> list[str | None]:
    return [proxy["problem"] for proxy in (await world.grant_of(grant.id))["proxies"]]


def kfrag_calls(world: World) -> list[int]:
    return [proxy.calls["/v1/kfrags"] for proxy in world.proxies]


async def test_shares_wait_in_the_outbox_until_a_worker_comes(still: World) -> None:
    grant = await still.give(still.signed_grant())
    assert len(await pending(still)) == 3
    assert await outbox(still).run_once() == 3
    assert await pending(still) == []
    assert (await still.grant_of(grant.id))["state"] == "complete"
    assert await outbox(still).run_once() == 0


async def test_a_failed_delivery_waits_longer_each_time_up_to_a_cap(idle_world: World) -> None:
    tuning = {"outbox_first_backoff_seconds": 0.5, "outbox_max_backoff_seconds": 4.0}
    async with idle_world.running(own_time=True, outbox_enabled=False, **tuning) as world:
        for proxy in world.proxies[1:]:
            proxy.status, proxy.code = 422, "kfrag_rejected"
        world.proxies[0].down = True
        grant = await world.give(world.signed_grant())
        pauses = []
        for attempt in range(1, 7):
            assert await outbox(world).run_once() == (3 if attempt == 1 else 1)
            [row] = await pending(world)
            assert row["attempts"] == attempt
            pauses.append(row["due_at"] - world.milliseconds)
            # Not due a moment before, due then.
            world.milliseconds = row["due_at"] - 1
            assert await outbox(world).run_once() == 0
            world.milliseconds += 1
        for pause, whole in zip(pauses, (500, 1000, 2000, 4000, 4000, 4000), strict=True):
            assert whole / 2 <= pause <= whole
        assert (await problems(world, grant))[0] == "proxy_unreachable"
        world.proxies[0].down = False
        assert await outbox(world).run_once() == 1
        assert (await problems(world, grant))[0] is None


async def test_proxies_that_were_down_are_served_when_they_are_back(world: World) -> None:
    for proxy in world.proxies:
        proxy.down = True
    grant = await world.give(world.signed_grant())
    await world.until(grant.id, lambda found: {proxy["problem"] for proxy in found["proxies"]} == {"proxy_unreachable"})
    for proxy in world.proxies:
        proxy.down = False
    found = await world.until_state(grant.id, "complete")
    assert {proxy["problem"] for proxy in found["proxies"]} == {None}


async def test_a_crash_between_delivering_and_writing_it_down_delivers_twice_with_one_effect(still: World) -> None:
    grant = await still.give(still.signed_grant())
    crashing = still.proxies[0]
    worker: list[asyncio.Task[int]] = []

    async def die() -> None:
        worker[0].cancel()
        await asyncio.sleep(30)

    crashing.before_answer = die
    worker.append(asyncio.create_task(outbox(still).run_once()))
    with pytest.raises(asyncio.CancelledError):
        await worker[0]
    crashing.before_answer = None
    left = await pending(still)
    assert crashing.did in {row["proxy"] for row in left}
    # The lease of whoever died is still running.
    assert await outbox(still).run_once() == 0
    still.milliseconds = max(row["leased_until"] for row in left)
    assert await outbox(still).run_once() == len(left)
    assert crashing.calls["/v1/kfrags"] == 2
    found = await still.grant_of(grant.id)
    assert found["state"] == "complete"
    assert found["proxies"][0]["stored"] == crashing.kept[grant.id].json()["receipt"]
    assert (await still.audit()).count(("stored", "done")) == 3


async def test_whoever_comes_back_after_its_lease_has_nothing_more_to_say(still: World) -> None:
    for proxy in still.proxies[1:]:
        proxy.status = 422
    grant = await still.give(still.signed_grant())
    slow = still.proxies[0]
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    slow.before_answer = wait
    first = asyncio.create_task(outbox(still).run_once())
    await reached.wait()
    slow.before_answer = None
    await until_left(still, 1)
    still.milliseconds += 60_000
    assert await outbox(still).run_once() == 1
    receipt = (await still.grant_of(grant.id))["proxies"][0]["stored"]
    assert receipt is not None
    go_on.set()
    await first
    assert (await still.grant_of(grant.id))["proxies"][0]["stored"] == receipt
    assert (await still.audit()).count(("stored", "done")) == 1


async def test_two_workers_do_not_deliver_the_same_message(still: World) -> None:
    grants = [await still.give(still.signed_grant()) for _ in range(4)]
    tried = await asyncio.gather(*(outbox(still).run_once() for _ in range(4)))
    assert sum(tried) == 12
    assert kfrag_calls(still) == [4, 4, 4]
    for grant in grants:
        assert (await still.grant_of(grant.id))["state"] == "complete"


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
async def test_a_share_that_is_refused_for_good_is_deleted_and_shown(still: World, status: int) -> None:
    still.proxies[0].status, still.proxies[0].code = status, "kfrag_rejected"
    grant = await still.give(still.signed_grant())
    await outbox(still).run_once()
    assert await pending(still) == []
    assert await problems(still, grant) == ["kfrag_rejected", None, None]
    assert (await still.grant_of(grant.id))["state"] == "active"
    assert ("stored", "kfrag_rejected") in await still.audit()


@pytest.mark.parametrize("status", [301, 408, 425, 429, 500, 503])
async def test_a_share_is_offered_again_after_a_passing_refusal(still: World, status: int) -> None:
    still.proxies[0].status, still.proxies[0].code = status, "unavailable"
    grant = await still.give(still.signed_grant())
    await outbox(still).run_once()
    [row] = await pending(still)
    assert row["sealed"] is not None
    # What is no problem document has no code of its own.
    code = "unavailable" if status >= 400 else "proxy_answer_invalid"
    assert await problems(still, grant) == [code, None, None]


async def test_a_revocation_is_repeated_whatever_the_proxy_says(still: World) -> None:
    grant = await still.give(still.signed_grant())
    await outbox(still).run_once()
    for proxy in still.proxies:
        proxy.status, proxy.code = 403, "wrong_signer"
    await still.revoke(grant.id)
    for _ in range(3):
        assert await outbox(still).run_once() == 3
        still.milliseconds += 100_000
    assert [row["kind"] for row in await pending(still)] == 3 * ["revocation"]
    assert await problems(still, grant) == 3 * ["wrong_signer"]
    for proxy in still.proxies:
        proxy.status = None
    assert await outbox(still).run_once() == 3
    assert all(proxy["erased"] for proxy in (await still.grant_of(grant.id))["proxies"])


async def test_a_receipt_that_does_not_hold_counts_for_nothing(still: World) -> None:
    still.proxies[0].lie = Lie.FOREIGN_SIGNATURE
    grant = await still.give(still.signed_grant())
    await outbox(still).run_once()
    assert await problems(still, grant) == ["receipt_rejected", None, None]
    assert (await still.grant_of(grant.id))["proxies"][0]["stored"] is None
    assert len(await pending(still)) == 1


@pytest.mark.parametrize("member", ["aud", "statement", "grant", "act", "iss"])
async def test_a_receipt_about_something_else_counts_for_nothing(still: World, member: str) -> None:
    grant = await still.give(still.signed_grant())
    proxy = still.proxies[0]
    claims: dict[str, Any] = {"statement": grant.id, "grant": grant.id, "act": "stored"}
    changed: dict[str, Any] = {
        "aud": {"audience": still.doctor.did},
        "statement": {"statement": still.signed_grant().id},
        "grant": {"grant": still.signed_grant().id},
        "act": {"act": "erased"},
        "iss": {"signer": still.proxies[1].party},
    }[member]
    _replay(proxy, grant.id, changed, claims, still.patient.did)
    await outbox(still).run_once()
    assert await problems(still, grant) == ["receipt_rejected", None, None]


def _replay(proxy: Any, statement: str, changed: dict[str, Any], claims: dict[str, Any], patient: str) -> None:
    """Make the proxy answer with this receipt."""
    signer = changed.pop("signer", proxy.party)
    audience = changed.pop("audience", patient)
    proxy.kept[statement] = httpx.Response(201, json={"receipt": signer.receipt(audience, **claims | changed)})


async def test_a_delivery_under_way_does_not_end_a_later_revocation(still: World) -> None:
    """The proxy answers the first revocation after the second has been posted."""
    grant = await still.give(still.signed_grant())
    await outbox(still).run_once()
    await still.revoke(grant.id)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    for proxy in still.proxies:
        proxy.before_answer = wait
    first = asyncio.create_task(outbox(still).run_once())
    await reached.wait()
    second = await still.revoke(grant.id)
    for proxy in still.proxies:
        proxy.before_answer = None
    go_on.set()
    await first
    assert len(await pending(still)) == 3
    await outbox(still).run_once()
    assert await pending(still) == []
    found = await still.grant_of(grant.id)
    assert found["revocation"] == second


async def test_the_registry_being_away_delays_shares_and_not_revocations(still: World) -> None:
    grant = await still.give(still.signed_grant())
    await outbox(still).run_once()
    other = await still.give(still.signed_grant())
    await still.revoke(grant.id)
    still.registry.away = True
    await outbox(still).run_once()
    assert all(proxy["erased"] for proxy in (await still.grant_of(grant.id))["proxies"])
    assert await problems(still, other) == 3 * ["registry_unavailable"]
    still.registry.away = False
    still.milliseconds += 1_000
    await outbox(still).run_once()
    assert (await still.grant_of(other.id))["state"] == "complete"


async def test_one_unreachable_proxy_does_not_hold_up_the_others(world: World) -> None:
    world.proxies[0].delay = 30
    grant = await world.give(world.signed_grant())
    found = await world.until_state(grant.id, "active")
    assert [proxy["stored"] is not None for proxy in found["proxies"]] == [False, True, True]


async def test_a_proxy_that_never_answers_does_not_hold_up_revocations_to_the_others(idle_world: World) -> None:
    """By order: the honest proxies have erased everything before the first call to the silent one has ended."""
    patience = {"proxy_timeout_seconds": 120, "http_timeout_seconds": 60}
    async with idle_world.running(**patience) as world:
        old = await world.granted()
        silent, *honest = world.proxies
        order: list[str] = []

        async def never() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                order.append("the silent proxy's call ended")

        silent.before_answer = never
        silent.calls.clear()
        for _ in range(40):
            await world.give(world.signed_grant())
        await world.revoke(old.id)

        def told(found: dict[str, Any]) -> bool:
            return all(proxy["erased"] for proxy in found["proxies"] if proxy["did"] != silent.did)

        await world.until(old.id, told)
        order.append("the honest proxies have erased")
        # Nor were any but a few places taken by the silent one.
        assert silent.calls.total() == AT_ONCE_PER_PROXY
        for proxy in honest:
            assert proxy.erased == {old.id}
    assert order == ["the honest proxies have erased"] + AT_ONCE_PER_PROXY * ["the silent proxy's call ended"]


async def test_revocations_go_before_shares(still: World) -> None:
    old = await still.give(still.signed_grant())
    await outbox(still).run_once()
    for proxy in still.proxies:
        proxy.calls.clear()
    for _ in range(6):
        await still.give(still.signed_grant())
    await still.revoke(old.id)
    assert await outbox(still).run_once() == 3 * AT_ONCE_PER_PROXY
    for proxy in still.proxies:
        assert proxy.calls == {"/v1/revocations": 1, "/v1/kfrags": AT_ONCE_PER_PROXY - 1}


async def test_a_delivery_as_a_whole_has_an_end(idle_world: World) -> None:
    """Also one that hangs where no time-out of a single step ends it."""
    async with idle_world.running(
        own_time=True, outbox_enabled=False, http_timeout_seconds=0.1, proxy_timeout_seconds=0.1
    ) as world:
        grant = await world.give(world.signed_grant())
        answer = world.registry.answer

        async def hanging(request: httpx.Request) -> httpx.Response:
            return await (asyncio.sleep(3600) if "parties" in request.url.path else answer(request))

        world.registry.answer = hanging  # type: ignore[method-assign, assignment]
        assert await outbox(world).run_once() == 3
        world.registry.answer = answer  # type: ignore[method-assign]
        assert await problems(world, grant) == 3 * ["proxy_unreachable"]
        assert len(await pending(world)) == 3


@pytest.mark.parametrize(("status", "code"), [(404, "unknown_party"), (409, "key_chain_rolled_back"), (404, "")])
async def test_a_share_is_offered_again_when_the_refusal_is_not_about_the_share(
    still: World, status: int, code: str
) -> None:
    """A registry that hides a chain from a proxy, and an answer that is no problem document."""
    still.proxies[0].status, still.proxies[0].code = status, code
    grant = await still.give(still.signed_grant())
    await outbox(still).run_once()
    assert len(await pending(still)) == 1
    still.proxies[0].status = None
    still.milliseconds += 1_000
    await outbox(still).run_once()
    assert (await still.grant_of(grant.id))["state"] == "complete"


async def test_what_is_in_the_outbox_survives_a_restart(idle_world: World) -> None:
    for proxy in idle_world.proxies:
        proxy.down = True
    async with idle_world.running() as world:
        grant = await world.give(world.signed_grant())
    for proxy in idle_world.proxies:
        proxy.down = False
    async with idle_world.running(outbox_first_backoff_seconds=0.01) as world:
        await world.until_state(grant.id, "complete")


async def test_the_worker_outlives_what_it_runs_into(
    still: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = outbox(still)
    ends: list[Callable[[], Any]] = [_raise(DatabaseUnavailable()), _raise(RuntimeError("a secret"))]
    take = worker.take

    async def sometimes(under_way: Counter[str]) -> Any:
        return ends.pop(0)() if ends else await take(under_way)

    monkeypatch.setattr(worker, "take", sometimes)
    task = asyncio.create_task(worker.run())
    grant = await still.give(still.signed_grant())
    await still.until_state(grant.id, "complete")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "RuntimeError" in caplog.text
    assert "a secret" not in caplog.text


def _raise(error: Exception) -> Callable[[], Any]:
    def raising() -> Any:
        raise error

    return raising
