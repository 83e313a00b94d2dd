"""What arrives together, on real connections: nothing is released after an acknowledged revocation."""

from __future__ import annotations

import asyncio

from tests.services.proxy.world import World


async def test_a_revocation_against_reencryptions(world: World) -> None:
    grant = await world.stored()
    body = {"revocation": world.patient.revocation(world.recipient, grant.id)}

    async def ask_until_refused() -> list[tuple[int, str]]:
        """A few times more after the first refusal; the bound makes a revocation that never comes a failure."""
        answers = []
        for _ in range(200):
            response = await world.reencrypt(grant, (0, world.envelope()))
            if response.status_code == 200:
                answers.append((world.receipt(response).seq, "done"))
            else:
                answers.append((0, response.json()["code"]))
                if len([code for _, code in answers if code != "done"]) == 3:
                    break
        return answers

    asking = [asyncio.create_task(ask_until_refused()) for _ in range(6)]
    await asyncio.sleep(0.1)
    revoked = world.receipt(await world.http.post("/v1/revocations", json=body))
    answers = [answer for answered in await asyncio.gather(*asking) for answer in answered]

    assert {outcome for _, outcome in answers} <= {"done", "grant_revoked"}
    assert (0, "grant_revoked") in answers
    # Events are numbered under the grant's lock, so a release with a higher number came after the tombstone.
    assert all(seq < revoked.seq for seq, outcome in answers if outcome == "done")
    assert await world.count("kfrags") == 0
    assert (await world.rows("SELECT count(*) AS n FROM answers WHERE cfrags IS NOT NULL"))[0]["n"] == 0


async def test_a_revocation_waits_for_the_release_that_was_first(world: World) -> None:
    """The release is committed, or refused, before the receipt `erased` can be had."""
    grant = await world.stored()
    async with world.lock_held(grant, shared=True):
        revoking = asyncio.create_task(world.revoke(grant))
        await world.until_somebody_waits_for_a_lock()
        assert not revoking.done()
        assert await world.count("kfrags") == 1
    assert world.receipt(await revoking).act == "erased"
    assert await world.count("kfrags") == 0


async def test_a_revocation_that_waits_is_before_whoever_asks_after_it(world: World) -> None:
    """However many ask, and go on asking, a revocation waits for those only who were there before it."""
    grant = await world.stored()
    async with world.lock_held(grant, shared=True):
        revoking = asyncio.create_task(world.revoke(grant))
        await world.until_somebody_waits_for_a_lock()
        asking = [asyncio.create_task(world.reencrypt(grant, (0, world.envelope()))) for _ in range(3)]
        await world.until_somebody_waits_for_a_lock(waiters=4)
        assert not any(task.done() for task in [revoking, *asking])
    assert world.receipt(await revoking).act == "erased"
    for answer in await asyncio.gather(*asking):
        assert answer.json()["code"] == "grant_revoked"


async def test_a_share_and_its_revocation_never_miss_each_other(world: World) -> None:
    for _ in range(10):
        grant = world.grant()
        taken, revoked = await asyncio.gather(world.post_share(grant), world.revoke(grant))
        assert world.receipt(revoked).act == "erased"
        assert taken.status_code in (200, 409)
        assert await world.count("kfrags") == 0


async def test_a_share_posted_many_times_at_once_gets_one_receipt(world: World) -> None:
    grant = world.grant(["allergies", "medication"])
    answers = await asyncio.gather(*[world.post_share(grant) for _ in range(6)])
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert (await world.count("kfrags"), await world.count("log_events")) == (2, 1)


async def test_two_replicas_start_at_once_with_one_key_entry(idle_world: World) -> None:
    other = _replica(idle_world)
    async with idle_world.running(), other.running():
        cards = await asyncio.gather(*[world.http.get("/v1/identity") for world in (idle_world, other)])
    assert cards[0].json()["entries"] == cards[1].json()["entries"]


async def test_a_revocation_at_one_replica_counts_at_the_other(world: World) -> None:
    other = _replica(world)
    async with other.running():
        grant = await world.stored()
        assert (await other.reencrypt(grant, (0, world.envelope()))).status_code == 200
        await world.revoke(grant)
        response = await other.reencrypt(grant, (0, world.envelope()))
    assert response.json()["code"] == "grant_revoked"


def _replica(world: World) -> World:
    """Another process of the same proxy: the same database, seed and parties."""
    other = World(world.url)
    vars(other).update({name: value for name, value in vars(world).items() if name not in ("app", "http")})
    return other
