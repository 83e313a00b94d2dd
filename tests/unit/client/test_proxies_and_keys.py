"""Which proxies hold a patient's shares, and what becomes of shares on their way when the keys change."""

from __future__ import annotations

import pytest

from client.cli.grants import describe_grant, revocation_document
from client.errors import SharesUndelivered
from shared.schemas.records import GrantState
from shared.wire import Action
from tests.unit.client.hiding import again, hide_grants, note, share
from tests.unit.client.world import Problem, World


async def test_an_approval_names_the_proxies_and_says_when_they_were_chosen() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    assert await owner.proxies() == []
    first, second = await share(owner, reader), await share(owner, reader)
    assert (first.first_choice, second.first_choice) == (True, False)
    for grant in (first, second):
        assert {(proxy.did, proxy.endpoint) for proxy in grant.proxies} == {
            (proxy.did, proxy.endpoint) for proxy in world.proxies
        }
    assert [proxy.did for proxy in await owner.proxies()] == [proxy.did for proxy in first.proxies]


async def test_people_are_told_of_the_proxies_and_of_what_is_hidden() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    first, second = await share(owner, reader), await share(owner, reader)
    told, told_later = (" ".join(map(str, describe_grant(grant))) for grant in (first, second))
    for proxy in world.proxies:
        assert proxy.endpoint in told
        assert proxy.endpoint in told_later
    assert "from now on your shares go to these" in told
    assert "from now on your shares go to these" not in told_later
    assert "grant_withheld" not in told
    hide_grants(world, first.id)
    assert "[grant_withheld]" in " ".join(map(str, describe_grant(await owner.grant(first.id))))
    report = revocation_document(await owner.revoke(first.id, wait_seconds=0))
    assert [problem["code"] for problem in report["problems"]] == ["grant_withheld"]


async def test_a_grant_to_write_chooses_no_proxies() -> None:
    world = World()
    owner, author = await world.patient(), await world.recipient()
    await owner.add_scope("allergies")
    grant = await share(owner, author, actions=[Action.APPEND])
    assert (grant.first_choice, grant.proxies, await owner.proxies()) == (False, [], [])


async def test_a_proxy_that_the_registry_hides_stays_in_the_report() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    hidden = world.proxies[0]
    answer = world._registry

    def hiding(method: str, parts: list[str], *rest: object) -> object:
        if parts == ["v1", "parties", hidden.did]:
            raise Problem("unknown_party", 404)
        return answer(method, parts, *rest)  # type: ignore[arg-type]

    world._registry = hiding  # type: ignore[method-assign, assignment]
    owner.session._parties.clear()
    shown = await owner.grant(grant.id)
    report = {proxy.did: proxy for proxy in shown.proxies}[hidden.did]
    # Its receipt is not held against keys that may be old, and where it is has been remembered.
    assert (report.endpoint, report.stored, report.problem) == (hidden.endpoint, False, "unknown_party")
    assert (shown.state, shown.stored) == (GrantState.ACTIVE, 2)
    other = again(world, owner)
    report = {proxy.did: proxy for proxy in (await other.grant(grant.id)).proxies}[hidden.did]
    assert (report.name, report.endpoint, report.stored) == (None, None, False)


async def test_keys_are_not_changed_while_a_proxy_waits_for_its_share() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    world.proxies[2].silent_to_records = True
    grant = await share(owner, reader)
    assert grant.state is GrantState.ACTIVE
    with pytest.raises(SharesUndelivered) as refusal:
        await owner.rotate_keys()
    assert grant.id in refusal.value.detail
    assert len((await owner.session.me(fresh=True)).entries) == 1
    await owner.rotate_keys(force=True)
    assert len((await owner.session.me(fresh=True)).entries) == 2


@pytest.mark.parametrize("why", ["delivered", "revoked", "nothing to deliver"])
async def test_keys_are_changed_when_no_proxy_waits(why: str) -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    world.proxies[2].silent_to_records = why == "revoked"
    actions = [Action.APPEND] if why == "nothing to deliver" else [Action.READ]
    grant = await share(owner, reader, actions=actions)
    if why == "revoked":
        await owner.revoke(grant.id, wait_seconds=0)
    await owner.rotate_keys()
    assert len((await owner.session.me(fresh=True)).entries) == 2


async def test_a_share_refused_after_a_change_of_keys_is_named_and_the_grant_to_be_renewed() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    world.proxies[2].silent_to_records = True
    grant = await share(owner, reader)
    await owner.rotate_keys(force=True)
    world.grants[grant.id].proxies[world.proxies[2].did]["problem"] = "wrong_signer"
    (report,) = await owner.grants()
    assert (report.state, report.stored) == (GrantState.ACTIVE, 2)
    assert report.problem is not None
    assert (report.problem.code, report.problem.proxy) == ("wrong_signer", world.proxies[2].did)
    assert "Give the grant anew" in report.problem.detail
