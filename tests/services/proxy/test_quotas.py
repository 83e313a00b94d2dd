"""How many shares of one patient a proxy holds: refused beyond, counted once, and free again when they are erased."""

from __future__ import annotations

from services.proxy.service import KEPT_AFTER_END
from tests.services.proxy.world import World, refused
from tests.services.signing_parties import DAY


async def shares(world: World) -> int:
    rows = await world.rows("SELECT amount FROM usage WHERE party = $1 AND kind = 'shares'", world.patient.did)
    return int(rows[0]["amount"])


async def test_shares_of_one_patient_are_bounded_until_they_are_erased(idle_world: World) -> None:
    async with idle_world.running(max_shares_per_patient=2):
        world = idle_world
        first = await world.stored(["allergies", "laboratory"])
        # The same again is no more than once.
        assert (await world.post_share(first)).status_code == 200
        await world.stored()
        third = world.grant()
        refused(await world.post_share(third), 403, "quota_exceeded")
        assert await shares(world) == 2
        assert (await world.logged())[0].outcome == "quota_exceeded"
        await world.revoke(first)
        await world.revoke(first)
        assert await shares(world) == 1
        assert world.receipt(await world.post_share(third)).act == "stored"
        assert await shares(world) == 2


async def test_a_share_too_many_is_refused_before_its_kfrags_are_looked_at(idle_world: World) -> None:
    async with idle_world.running(max_shares_per_patient=1):
        await idle_world.stored()
        refused(await idle_world.post_share(idle_world.grant(), sealed="AAAA"), 403, "quota_exceeded")


async def test_what_has_ended_long_ago_counts_no_longer(idle_world: World) -> None:
    async with idle_world.running(max_shares_per_patient=1):
        world = idle_world
        await world.stored(["allergies", "laboratory"], lifetime=DAY)
        world.clock.advance(DAY + KEPT_AFTER_END)
        await world.app.state.service.prune()
        assert await shares(world) == 0
        await world.stored(now=world.clock.now)
