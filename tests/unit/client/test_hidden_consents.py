"""A records service that hides grants or revocations from the patient who signed them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import stamina

from client.author import Author
from client.errors import GrantEnded, ServiceRefused, UnexpectedAnswer, UnknownGrant, VerificationFailed
from client.patient import Patient
from client.recipient import Recipient
from client.state import ClientState
from shared.schemas.records import GrantState
from shared.statements import Revocation
from shared.wire import Action, Purpose
from tests.unit.client.hiding import again, hide_grants, hide_revocations, note, sent, share
from tests.unit.client.world import DAY, NOW, Problem, World, claims_of


@pytest.fixture(autouse=True)
def _no_pauses() -> Any:
    with stamina.set_testing(True, attempts=2):
        yield


def refuse(world: World, method: str, parts: list[str], status: int = 409) -> None:
    """From now on the records service refuses this request."""
    answer = world._records

    def refusing(request: Any, path: list[str], *rest: Any) -> Any:
        if request.method == method and path[1:] == parts:
            raise Problem("refused", status)
        return answer(request, path, *rest)

    world._records = refusing  # type: ignore[method-assign]


def kill_before(world: World, path: str) -> None:
    """The machine stops, once, before a write reaches the services; nothing is caught on the way."""
    stopped: list[str] = []

    def stop(request: httpx.Request) -> None:
        if not stopped and request.method != "GET" and request.url.path == path:
            stopped.append(path)
            raise KeyboardInterrupt

    world.fail = stop


def kill_after(world: World, line: str) -> None:
    """The machine stops, once, when a write has been done and before its answer arrives."""
    stopped: list[str] = []

    def stop(what: str, answer: Any) -> Any:
        if not stopped and what.startswith(line):
            stopped.append(line)
            raise KeyboardInterrupt
        return answer

    world.tamper = stop


# --- hidden revocations ---------------------------------------------------------------------------------------------


async def test_a_grant_remembered_as_revoked_is_revoked_whatever_is_shown() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    await owner.revoke(grant.id, wait_seconds=0)
    (honest,) = await owner.grants()
    assert (honest.state, honest.problem, honest.revocation_shown) == (GrantState.REVOKED, None, True)
    hide_revocations(world, grant.id)
    for shown in (*await owner.grants(), await owner.grant(grant.id)):
        assert (shown.state, shown.live, shown.revocation_shown) == (GrantState.REVOKED, False, False)
        assert shown.problem is not None
        assert shown.problem.code == "revocation_withheld"


async def test_a_hidden_revocation_is_sent_again_to_the_service_and_to_the_proxies() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    await owner.revoke(grant.id, wait_seconds=0)
    await owner.grants()
    before = sent(world, "POST /v1/revocations")
    hide_revocations(world, grant.id)
    await owner.grants()
    assert sent(world, "POST /v1/revocations") == before + 1 + len(world.proxies)
    world.clock.now += 31 * DAY
    await owner.grants()
    # A grant that has lapsed needs no revocation any more.
    assert sent(world, "POST /v1/revocations") == before + 1 + len(world.proxies)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("remembering", [True, False])
async def test_a_hidden_revocation_gets_no_ended_grant_continued(hidden: bool, remembering: bool) -> None:
    """Only somebody with nothing but the words can be made to continue it; this is what a first look cannot know."""
    world = World()
    owner, accomplice, other = await world.patient(), await world.recipient(), await world.recipient("Demo Insurer")
    await owner.add_records([note("a")])
    ended = await share(owner, accomplice)
    kept = await share(owner, other)
    await owner.revoke(ended.id, wait_seconds=0)
    if hidden:
        hide_revocations(world, ended.id)
    patient = owner if remembering else again(world, owner)
    report = await patient.revoke(kept.id, wait_seconds=0)
    await patient.add_records([note("written after both had ended")])
    continued = [claims_of(world.grants[grant_id].token)["aud"] for grant_id in report.continued_grants]
    assert continued == ([accomplice.session.did] if hidden and not remembering else [])
    assert report.new_epochs == {"allergies": 2}


async def test_a_remembered_revocation_is_signed_anew_after_a_change_of_keys() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    kill_before(world, "/v1/revocations")
    with pytest.raises(KeyboardInterrupt):
        await owner.revoke(grant.id, wait_seconds=0)
    unsent = owner.session.state.consents.revocation(grant.id)
    assert unsent is not None
    assert world.grants[grant.id].revocation is None
    me = await owner.session.rotate_keys()
    await owner.grants()
    posted = world.grants[grant.id].revocation
    assert posted is not None
    assert posted != unsent.token
    assert claims_of(posted)["epochs"] == claims_of(unsent.token)["epochs"] != []
    assert (await owner.grant(grant.id)).revocation.signed_with == me.current_identity_key  # type: ignore[union-attr]


async def test_a_revocation_that_is_still_current_is_sent_again_to_the_letter() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    kill_before(world, "/v1/revocations")
    with pytest.raises(KeyboardInterrupt):
        await owner.revoke(grant.id, wait_seconds=0)
    unsent = owner.session.state.consents.revocation(grant.id)
    assert unsent is not None
    await owner.grants()
    assert world.grants[grant.id].revocation == unsent.token


@pytest.mark.parametrize("when", [kill_before, kill_after])
async def test_a_kill_around_the_post_of_a_revocation_leaves_the_grant_ended(tmp_path: Path, when: Any) -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    first = again(world, owner, ClientState.load(tmp_path / "state.db"))
    when(world, "/v1/revocations" if when is kill_before else "POST /v1/revocations")
    with pytest.raises(KeyboardInterrupt):
        await first.revoke(grant.id, wait_seconds=0)
    assert (world.grants[grant.id].revocation is None) == (when is kill_before)
    second = again(world, owner, ClientState.load(tmp_path / "state.db"))
    (shown,) = await second.grants()
    assert shown.state is GrantState.REVOKED
    assert world.grants[grant.id].revocation is not None
    assert (await second.grants())[0].problem is None
    report = await second.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.new_epochs, report.problems) == ("sealed", {"allergies": 1}, [])


async def test_a_revocation_that_had_no_new_epochs_gets_them_when_it_is_repeated() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    answer = world._registry

    def without_new_keys(method: str, *rest: Any) -> Any:
        if method == "PUT":
            raise Problem("database_unavailable", 500)
        return answer(method, *rest)

    world._registry = without_new_keys  # type: ignore[method-assign]
    assert (await owner.revoke(grant.id, wait_seconds=0)).new_epochs == {}
    assert world.floors == {}
    world._registry = answer  # type: ignore[method-assign]
    assert (await owner.revoke(grant.id, wait_seconds=0)).new_epochs == {"allergies": 1}
    assert list(world.floors.values()) == [1]


# --- hidden grants --------------------------------------------------------------------------------------------------


async def test_a_hidden_grant_is_named_and_still_counted() -> None:
    world = World()
    owner, reader, other = await world.patient(), await world.recipient(), await world.recipient("Demo Insurer")
    await owner.add_records([note("a")])
    grant, seen = await share(owner, reader), await share(owner, other)
    assert all(shown.shown and shown.problem is None for shown in await owner.grants())
    hide_grants(world, grant.id)
    reports = {report.id: report for report in await owner.grants()}
    assert reports.keys() == {grant.id, seen.id} == set(await owner.grant_ids())
    assert reports[seen.id].problem is None
    for hidden in (reports[grant.id], await owner.grant(grant.id)):
        assert (hidden.shown, hidden.live, hidden.scopes) == (False, True, ["allergies"])
        assert hidden.problem is not None
        assert hidden.problem.code == "grant_withheld"


async def test_a_hidden_grant_can_be_ended() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    for proxy in world.proxies:
        proxy.silent_to_records = True
    hide_grants(world, grant.id)
    report = await owner.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.receipts) == ("sealed", 3)
    assert [problem.code for problem in report.problems] == ["grant_withheld"]
    assert not any(grant.id in proxy.kfrags for proxy in world.proxies)
    assert (await owner.grant(grant.id)).state is GrantState.REVOKED


@pytest.mark.parametrize("hidden", [False, True])
async def test_a_hidden_continuation_ends_with_the_grant_that_it_continues(hidden: bool) -> None:
    world = World()
    owner, first, second = await world.patient(), await world.recipient(), await world.recipient("Demo Insurer")
    await owner.add_records([note("a")])
    ended, kept = await share(owner, first), await share(owner, second)
    (continued,) = (await owner.revoke(ended.id, wait_seconds=0)).continued_grants
    if hidden:
        hide_grants(world, continued)
        for proxy in world.proxies:
            proxy.silent_to_records = True
    report = await owner.revoke(kept.id, wait_seconds=0)
    assert {grant.grant_id for grant in report.grants} == {kept.id, continued}
    assert report.state == "sealed"
    assert [problem.code for problem in report.problems] == (["grant_withheld"] if hidden else [])
    assert not any(continued in proxy.kfrags for proxy in world.proxies)


async def test_a_hidden_grant_is_not_continued() -> None:
    """It may have been ended on another machine; whoever hides it does not get the new epoch for its holder."""
    world = World()
    owner, accomplice, other = await world.patient(), await world.recipient(), await world.recipient("Demo Insurer")
    await owner.add_records([note("a")])
    hidden, ended = await share(owner, accomplice), await share(owner, other)
    hide_grants(world, hidden.id)
    assert (await owner.revoke(ended.id, wait_seconds=0)).continued_grants == []


async def test_a_grant_given_on_another_machine_is_taken_and_remembered() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(again(world, owner), reader)
    (shown,) = await owner.grants()
    assert (shown.id, shown.shown, shown.problem) == (grant.id, True, None)
    hide_grants(world, grant.id)
    (remembered,) = await owner.grants()
    assert (remembered.id, remembered.shown) == (grant.id, False)


async def test_a_revocation_of_another_machine_is_taken_and_remembered() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    await again(world, owner).revoke(grant.id, wait_seconds=0)
    await owner.grants()
    hide_revocations(world, grant.id)
    assert (await owner.grant(grant.id)).state is GrantState.REVOKED


async def test_with_the_words_alone_what_is_hidden_is_not_known() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    restored = again(world, owner)
    assert (await restored.restore()).grants == 1
    hide_grants(world, grant.id)
    # What was shown once is remembered; another machine that has never seen it cannot miss it.
    assert await restored.grant_ids() == [grant.id]
    unknowing = again(world, owner)
    assert (await unknowing.restore()).grants == 0
    with pytest.raises(UnknownGrant):
        await unknowing.grant(grant.id)


async def ask(reader: Recipient, owner: Patient) -> str:
    return await reader.request(
        owner.session.did,
        scopes=["allergies"],
        actions=[Action.READ],
        purpose=Purpose.TREAT,
        reason="Planned treatment",
        expires=NOW + DAY,
    )


# --- grants that may not have come about ----------------------------------------------------------------------------


async def test_a_grant_that_was_signed_and_not_posted_is_named_never_continued_and_can_be_ended(tmp_path: Path) -> None:
    world = World()
    owner, reader, other = await world.patient(), await world.recipient(), await world.recipient("Demo Insurer")
    await owner.add_records([note("a")])
    ended = await share(owner, other)
    first = again(world, owner, ClientState.load(tmp_path / "state.db"))
    kill_before(world, "/v1/grants")
    with pytest.raises(KeyboardInterrupt):
        await share(first, reader)
    second = again(world, owner, ClientState.load(tmp_path / "state.db"))
    (unsure,) = [grant for grant in await second.grants() if grant.id != ended.id]
    assert unsure.problem is not None
    assert (unsure.problem.code, unsure.shown) == ("grant_unconfirmed", False)
    assert (await second.revoke(ended.id, wait_seconds=0)).continued_grants == []
    report = await second.revoke(unsure.id, wait_seconds=0)
    assert (report.state, report.receipts) == ("sealed", 3)
    over = await second.grant(unsure.id)
    assert (over.state, over.problem) == (GrantState.REVOKED, None)


async def test_a_grant_whose_answer_was_lost_is_there_next_time(tmp_path: Path) -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    first = again(world, owner, ClientState.load(tmp_path / "state.db"))
    kill_after(world, "POST /v1/grants")
    with pytest.raises(KeyboardInterrupt):
        await share(first, reader)
    (grant,) = await again(world, owner, ClientState.load(tmp_path / "state.db")).grants()
    assert (grant.state, grant.shown, grant.problem) == (GrantState.COMPLETE, True, None)


async def test_a_grant_whose_answer_was_lost_is_not_given_twice(tmp_path: Path) -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    first = again(world, owner, ClientState.load(tmp_path / "state.db"))
    kill_after(world, "POST /v1/grants")
    with pytest.raises(KeyboardInterrupt):
        await share(first, reader)
    second = again(world, owner, ClientState.load(tmp_path / "state.db"))
    repeated = await share(second, reader)
    assert [grant.id for grant in await second.grants()] == [repeated.id]
    assert (repeated.state, repeated.shown, repeated.problem) == (GrantState.COMPLETE, True, None)
    # Whoever gives the same once more afterwards means it.
    assert (await share(second, reader)).id != repeated.id


@pytest.mark.parametrize("place", ["POST /v1/grants", "GET /v1/grants/"])
async def test_a_request_approved_once_more_after_a_crash_has_one_grant(tmp_path: Path, place: str) -> None:
    """The answer was lost, or it had come and the command died while it waited for the receipts."""
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    request = await ask(reader, owner)
    first = again(world, owner, ClientState.load(tmp_path / "state.db"))
    kill_after(world, place)
    with pytest.raises(KeyboardInterrupt):
        await first.approve(request, expires=NOW + 30 * DAY)
    second = again(world, owner, ClientState.load(tmp_path / "state.db"))
    approved = await second.approve(request, expires=NOW + 30 * DAY + 60)
    assert [grant.id for grant in await second.grants()] == [approved.id]
    # In other terms it is another consent.
    assert (await second.approve(request, expires=NOW + 3 * DAY)).id != approved.id


@pytest.mark.parametrize(("problem", "stands"), [("proxy_unreachable", True), ("kfrag_rejected", False)])
async def test_a_grant_that_waits_for_a_proxy_stands_and_one_that_was_refused_does_not(
    tmp_path: Path, problem: str, *, stands: bool
) -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    request = await ask(reader, owner)
    first = again(world, owner, ClientState.load(tmp_path / "state.db"))
    world.proxies[0].away = True
    kill_after(world, "POST /v1/grants")
    with pytest.raises(KeyboardInterrupt):
        await first.approve(request, expires=NOW + 30 * DAY)
    (given,) = world.grants
    world.grants[given].proxies[world.proxies[0].did]["problem"] = problem
    world.proxies[0].away = False
    second = again(world, owner, ClientState.load(tmp_path / "state.db"))
    approved = await second.approve(request, expires=NOW + 30 * DAY)
    assert (approved.id == given) == stands


@pytest.mark.parametrize("other", [{"scope": "medications"}, {"expires": NOW + 3 * DAY}])
async def test_a_grant_whose_answer_was_lost_does_not_stand_for_another(tmp_path: Path, other: dict[str, Any]) -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    first = again(world, owner, ClientState.load(tmp_path / "state.db"))
    kill_after(world, "POST /v1/grants")
    with pytest.raises(KeyboardInterrupt):
        await share(first, reader)
    second = again(world, owner, ClientState.load(tmp_path / "state.db"))
    given = await share(second, reader, **other)
    assert len(await second.grants()) == 2
    assert (await second.grant(given.id)).expires == other.get("expires", NOW + 30 * DAY)


async def test_a_request_approved_once_more_after_a_crash_is_one_consent_that_ends_as_a_whole(tmp_path: Path) -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    request = await ask(reader, owner)
    first = again(world, owner, ClientState.load(tmp_path / "state.db"))
    kill_before(world, "/v1/grants")
    with pytest.raises(KeyboardInterrupt):
        await first.approve(request)
    second = again(world, owner, ClientState.load(tmp_path / "state.db"))
    given = await second.approve(request)
    # What has never been there waits for no proxy.
    await second.rotate_keys()
    report = await second.revoke(given.id, wait_seconds=0)
    assert (report.state, report.problems, len(report.grants)) == ("sealed", [], 2)
    assert [grant.state for grant in await second.grants()] == [GrantState.REVOKED] * 2


async def test_a_grant_that_the_service_refused_is_not_forgotten() -> None:
    """Whether it kept it all the same is not for the service to say."""
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    refuse(world, "POST", ["grants"])
    with pytest.raises(ServiceRefused):
        await share(owner, reader)
    (grant,) = await owner.grants()
    assert grant.problem is not None
    assert grant.problem.code == "grant_unconfirmed"


# --- a list that is no list -----------------------------------------------------------------------------------------


async def test_a_refused_list_keeps_no_remembered_grant_alive() -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    for parts in (["grants"], ["grants", grant.id], ["records", owner.session.keyring.settings_record_id]):
        refuse(world, "GET", parts, 500)
    with pytest.raises(ServiceRefused):
        await owner.grants()
    report = await owner.revoke(grant.id, wait_seconds=0)
    assert (report.state, [problem.code for problem in report.problems]) == ("sealed", ["refused"])
    assert not any(grant.id in proxy.kfrags for proxy in world.proxies)
    with pytest.raises(UnknownGrant):
        await again(world, owner).revoke(grant.id, wait_seconds=0)


async def test_a_list_with_a_malformed_hash_keeps_no_remembered_grant_alive() -> None:
    """What the members' own checks refuse is the service's doing, and no reason to leave the proxies untold."""
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)

    def malformed(operation: str, body: Any) -> Any:
        if not operation.startswith("GET /v1/grants"):
            return body
        broken = {"id": "!" * 43}
        return {"items": [item | broken for item in body["items"]]} if "items" in body else body | broken

    world.tamper = malformed
    with pytest.raises(UnexpectedAnswer):
        await owner.grants()
    report = await owner.revoke(grant.id, wait_seconds=0)
    assert report.state == "sealed"
    assert not any(grant.id in proxy.kfrags for proxy in world.proxies)


async def test_a_broken_grant_in_the_list_keeps_no_other_alive() -> None:
    world = World()
    owner, reader, other = await world.patient(), await world.recipient(), await world.recipient("Demo Insurer")
    await owner.add_records([note("a")])
    broken, grant = await share(owner, other), await share(owner, reader)
    # A revocation by somebody else, shown as if it were one by the patient.
    forged = await reader.session.sign(Revocation, other.session.did, grant=broken.id, epochs=())
    world.grants[broken.id].revocation = forged.token
    with pytest.raises(VerificationFailed):
        await owner.grants()
    assert set(await owner.grant_ids()) == {broken.id, grant.id}
    report = await owner.revoke(grant.id, wait_seconds=0)
    assert (report.state, [problem.grant_id for problem in report.problems]) == ("sealed", [broken.id])


# --- a registry that is away or hides somebody ---------------------------------------------------------------------


async def test_a_registry_that_is_away_keeps_no_remembered_grant_alive(tmp_path: Path) -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(again(world, owner, ClientState.load(tmp_path / "state.db")), reader)

    def away(request: httpx.Request) -> None:
        if request.url.host == "registry.test":
            raise httpx.ConnectError("away")

    world.fail = away
    patient = again(world, owner, ClientState.load(tmp_path / "state.db"))
    assert await patient.grant_ids() == [grant.id]
    report = await patient.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.receipts, report.new_epochs) == ("sealed", 3, {})
    assert not any(grant.id in proxy.kfrags for proxy in world.proxies)
    world.fail = lambda _: None
    # As soon as the registry is back the rest is done.
    assert (await patient.revoke(grant.id, wait_seconds=0)).new_epochs == {"allergies": 1}
    assert world.grants[grant.id].revocation is not None


@pytest.mark.parametrize("whom", ["recipient", "proxies", "the patient"])
async def test_a_registry_that_hides_somebody_keeps_no_remembered_grant_alive(tmp_path: Path, whom: str) -> None:
    world = World()
    owner, reader = await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(again(world, owner, ClientState.load(tmp_path / "state.db")), reader)
    for proxy in world.proxies:
        proxy.silent_to_records = True
    hidden = {
        "recipient": [reader.session.did],
        "proxies": [proxy.did for proxy in world.proxies],
        "the patient": [owner.session.did],
    }[whom]
    for did in hidden:
        world.parties.pop(did)
    patient = again(world, owner, ClientState.load(tmp_path / "state.db"))
    report = await patient.revoke(grant.id, wait_seconds=0)
    assert (report.state, report.receipts) == ("sealed", 3)
    assert not any(grant.id in proxy.kfrags for proxy in world.proxies)


# --- those who hold grants ------------------------------------------------------------------------------------------


async def test_an_author_that_has_seen_its_grant_ended_writes_nothing_under_it() -> None:
    world = World()
    owner, author = await world.patient(), await world.recipient()
    await owner.add_scope("allergies")
    grant = await share(owner, author, actions=[Action.APPEND])
    await Author(author.session).append(grant.id, [note("before")])
    await owner.revoke(grant.id, wait_seconds=0)
    assert [held.state for held in await author.grants()] == [GrantState.REVOKED]
    hide_revocations(world, grant.id)
    with pytest.raises(GrantEnded):
        await Author(author.session).append(grant.id, [note("after")])
    assert len(world.records) == 1


async def test_somebody_elses_revocation_does_not_end_a_held_grant() -> None:
    world = World()
    owner, stranger, reader = await world.patient(), await world.patient(), await world.recipient()
    await owner.add_records([note("a")])
    grant = await share(owner, reader)
    forged = await stranger.session.sign(Revocation, reader.session.did, grant=grant.id, epochs=())
    world.grants[grant.id].revocation = forged.token
    with pytest.raises(VerificationFailed):
        await reader.grant(grant.id)
    world.grants[grant.id].revocation = None
    assert (await reader.grant(grant.id)).live


# --- what was written under a grant that had ended ------------------------------------------------------------------


@pytest.mark.parametrize("remembering", [True, False])
async def test_what_is_written_after_the_revocation_is_unauthorised(remembering: bool) -> None:
    """The service hides the end of the grant from the author and from the patient; the patient remembers."""
    world = World()
    owner, author = await world.patient(), await world.recipient()
    await owner.add_scope("allergies")
    grant = await share(owner, author, actions=[Action.APPEND])
    (before,) = await Author(author.session).append(grant.id, [note("before")])
    await owner.revoke(grant.id, wait_seconds=0)
    hide_revocations(world, grant.id)
    world.clock.now = NOW + DAY
    (after,) = await Author(author.session).append(grant.id, [note("after")])
    reader = owner if remembering else again(world, owner)
    problems = {record.record_id: record.problem for record in await reader.records()}
    assert problems[before.record_id] is None
    if remembering:
        assert problems[after.record_id] is not None
        assert problems[after.record_id].code == "unauthorised_author"  # type: ignore[union-attr]
    else:
        assert problems[after.record_id] is None
