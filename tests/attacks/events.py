"""The patient's log: hiding, changing, inventing and re-dating events, by one service or by several together.

The strongest of these write their false events into the service's real tree, whose head the honest witnesses then
cosign in good faith: all proofs hold, and only the other services' logs, what the patient has signed, or what the
patient's client remembers tell the truth.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from client.audit.gather import gather
from client.audit.report import Audit, audit_of
from client.audit.story import SETTLING_SECONDS
from shared.encoding import b64url, from_b64url
from shared.transparency.entries import Event, commitment, parse_event
from shared.transparency.merkle import leaf_hash
from shared.wire import RECORDS_AUDIENCE
from tests.attacks.lying import Asked, Json
from tests.attacks.operators import Tree
from tests.attacks.registry_log import INCLUSION
from tests.attacks.stage import Party, Stage
from tests.attacks.table import EVENTS, PATIENT, PROXY, RECORDS, attack

PAGE = 100
LATER = 10 * SETTLING_SECONDS
"""The audit is judged as if it took place so many seconds later, when nothing can be on its way any more."""
AUDIT = {"records": "GET /v1/me/audit"}


def route(service: str) -> str:
    return AUDIT.get(service, "GET /v1/audit")


async def audit(stage: Stage, *, memory: bool = False) -> Audit:
    """The patient's audit, on its own machine or on one that has seen nothing."""
    party = stage.cast.owner
    owner = await (stage.machine(party) if memory else stage.new_machine(party))
    gathered = await gather(owner.patient, with_titles=False)
    if stage.lie.idle:
        assert len(gathered.logs) == 4, (gathered.away, gathered.broken)
        assert not gathered.problems
    return audit_of(replace(gathered, began=gathered.began + LATER, now=gathered.now + LATER))


async def findings(stage: Stage, *, memory: bool = False) -> list[str]:
    """What the patient's audit finds."""
    return [finding.code for finding in (await audit(stage, memory=memory)).findings]


# --- false histories -------------------------------------------------------------------------------------------------


async def items_of(stage: Stage, service: str, party: Party | None = None) -> list[Json]:
    """A party's events as the service really shows them, newest first."""
    actor = await stage.machine(party or stage.cast.owner)
    audience = RECORDS_AUDIENCE if service == "records" else stage.operators.proxies[service]
    platform, who = actor.session.platform, await actor.session.credentials()
    shown = platform.log_events(who, stage.operators.urls[service], audience)
    return [one.model_dump(mode="json", exclude_none=True) async for one in shown]


async def events_of(stage: Stage, service: str) -> list[Event]:
    """The same, oldest first."""
    return [parse_event(item["event"]) for item in reversed(await items_of(stage, service))]


def chained(events: Iterable[Event]) -> list[Json]:
    """A chain of these events in this order, numbered and salted anew, as a service shows it: newest first."""
    items: list[Json] = []
    before: str | None = None
    for n, event in enumerate(events, 1):
        text = event.model_copy(update={"n": n, "prev": before}).canonical()
        salt = secrets.token_bytes(32)
        before = b64url(commitment(salt, text))
        items.insert(0, {"n": n, "commitment": before, "event": text.decode(), "salt": b64url(salt)})
    return items


def shows(stage: Stage, service: str, items: Sequence[Json]) -> None:
    """The service shows the patient these events."""

    def page(asked: Asked) -> Json:
        start = int(asked.query.get("cursor") or 0)
        following = {"next": str(start + PAGE)} if start + PAGE < len(items) else {}
        return {"items": list(items[start : start + PAGE]), **following}

    stage.lie.answer(service, route(service), page)


async def rewrites(stage: Stage, service: str, how: Callable[[list[Event]], list[Event]]) -> None:
    """The service shows another history than the true one, and has it in its real tree."""
    items = chained(how(await events_of(stage, service)))
    if stage.lie.idle:
        return
    await stage.operators.commit(service, [from_b64url(item["commitment"], 32) for item in items])
    # A request that is logged has the tree grow at once.
    await items_of(stage, service)
    shows(stage, service, items)


def without(*kinds: str, grant: str | None = None) -> Callable[[list[Event]], list[Event]]:
    """A history without events of these kinds (under one grant)."""

    def left(events: list[Event]) -> list[Event]:
        return [one for one in events if one.event not in kinds or (grant is not None and one.grant != grant)]

    return left


def last(events: Sequence[Event], kind: str, grant: str) -> Event:
    """The last event of a kind under a grant."""
    return next(one for one in reversed(events) if (one.event, one.grant, one.outcome) == (kind, grant, "done"))


def also(*make: Callable[[list[Event]], Event]) -> Callable[[list[Event]], list[Event]]:
    """A history with invented events at its end."""
    return lambda events: [*events, *(one(events) for one in make)]


def invented(kind: str, like: str, **changed: Any) -> Callable[[list[Event]], Event]:
    """An event like the last one of its kind under this grant, about another statement."""

    def make(events: list[Event]) -> Event:
        return last(events, kind, like).model_copy(update={"statement": b64url(secrets.token_bytes(32)), **changed})

    return make


# --- one log by itself -----------------------------------------------------------------------------------------------


def edit(stage: Stage, service: str, how: Callable[[list[Json]], list[Json]]) -> None:
    """The service changes what it shows, and no more."""
    stage.lie.change(service, route(service), lambda page: {**page, "items": how(page["items"])})


for _service, _liar in (("records", RECORDS), ("proxy-1", PROXY)):

    @attack(EVENTS, _liar, "rewrites the text of an event", "event_changed", by=PATIENT)
    async def text_changed(stage: Stage, service: str = _service) -> list[str]:
        def change(items: list[Json]) -> list[Json]:
            first = items[0]["event"]
            return [{**items[0], "event": first.replace('"outcome":"done"', '"outcome":"gone"')}, *items[1:]]

        edit(stage, service, change)
        return await findings(stage)

    @attack(EVENTS, _liar, "leaves an event out", "event_missing", by=PATIENT)
    async def event_dropped(stage: Stage, service: str = _service) -> list[str]:
        edit(stage, service, lambda items: [*items[:1], *items[2:]])
        return await findings(stage)

    @attack(EVENTS, _liar, "leaves out the newest events, which the patient has seen", "log_rewritten", by=PATIENT)
    async def end_dropped(stage: Stage, service: str = _service) -> list[str]:
        first = [item for item in await items_of(stage, service) if item["n"] <= 2]
        shows(stage, service, first)
        return await findings(stage, memory=True)

    @attack(EVENTS, _liar, "shows events in another order", "events_out_of_order", by=PATIENT)
    async def reordered(stage: Stage, service: str = _service) -> list[str]:
        edit(stage, service, lambda items: items[::-1])
        return await findings(stage)

    @attack(EVENTS, _liar, "shows a history that it has made up and that is not in its tree", "not_in_log", by=PATIENT)
    async def never_committed(stage: Stage, service: str = _service) -> list[str]:
        shows(stage, service, chained(await events_of(stage, service)))
        return await findings(stage)

    @attack(
        EVENTS,
        _liar,
        "writes the history anew, proofs and all, for a patient who has seen the other one",
        "log_rewritten",
        by=PATIENT,
    )
    async def rewritten(stage: Stage, service: str = _service) -> list[str]:
        await rewrites(stage, service, lambda events: events)
        return await findings(stage, memory=True)

    @attack(EVENTS, _liar, "withholds the texts of events as if they had been erased", "event_withheld", by=PATIENT)
    async def texts_withheld(stage: Stage, service: str = _service) -> list[str]:
        edit(stage, service, lambda items: [{"n": one["n"], "commitment": one["commitment"]} for one in items])
        return await findings(stage)

    @attack(EVENTS, _liar, "proves another leaf in the place of an event's", "not_in_log", by=PATIENT)
    async def another_leaf(stage: Stage, service: str = _service) -> list[str]:
        stage.lie.change(service, INCLUSION, lambda said: {**said, "items": [said["items"][-1]] * len(said["items"])})
        return await findings(stage)


@attack(EVENTS, RECORDS, "shows an event twice", "events_out_of_order", by=PATIENT)
async def shown_twice(stage: Stage) -> list[str]:
    items = await items_of(stage, "records")
    shows(stage, "records", [items[0], *items])
    return await findings(stage)


@attack(EVENTS, RECORDS, "shows the events of another patient", "event_changed", by=PATIENT)
async def another_patients_events(stage: Stage) -> list[str]:
    shows(stage, "records", await items_of(stage, "records", stage.cast.neighbour))
    return await findings(stage)


@attack(EVENTS, RECORDS, "dates an event a day ahead", "event_from_the_future", by=PATIENT)
async def dated_ahead(stage: Stage) -> list[str]:
    def ahead(events: list[Event]) -> list[Event]:
        return [*events[:-1], events[-1].model_copy(update={"at": events[-1].at + 86_400})]

    await rewrites(stage, "records", ahead)
    return await findings(stage)


# --- another tree ----------------------------------------------------------------------------------------------------


async def another_tree(stage: Stage, service: str, by: Sequence[str], *, memory: bool, size: int) -> list[str]:
    """The service proves the true events in a tree of its own making."""
    items = await items_of(stage, service)
    leaves = [leaf_hash(from_b64url(item["commitment"], 32)) for item in items]
    tree = Tree([*leaves, *(leaf_hash(b"%32d" % number) for number in range(size - len(leaves)))])
    shows(stage, service, items)
    stage.lie.answer(
        service, INCLUSION, stage.operators.tells(service, tree, checkpoint=_note(stage, service, tree, by))
    )
    return await findings(stage, memory=memory)


def _note(stage: Stage, service: str, tree: Tree, by: Sequence[str]) -> str:
    return stage.operators.checkpoint(service, tree, by=by)


@attack(
    EVENTS, f"{RECORDS} and one {PROXY}", "show a new client a tree of their own", "not_enough_cosignatures", by=PATIENT
)
async def own_tree_for_a_new_client(stage: Stage) -> list[str]:
    return await another_tree(stage, "records", ["proxy-1"], memory=False, size=400)


@attack(
    EVENTS,
    f"{RECORDS} and all proxies",
    "show a client another tree than before, which all proxies vouch for",
    "log_forked",
    by=PATIENT,
)
async def forked(stage: Stage) -> list[str]:
    return await another_tree(stage, "records", list(stage.operators.proxies), memory=True, size=4_000)


@attack(EVENTS, f"{RECORDS} and all proxies", "go back to a smaller tree", "log_rolled_back", by=PATIENT)
async def rolled_back(stage: Stage) -> list[str]:
    items = await items_of(stage, "records")
    tree = Tree([leaf_hash(from_b64url(items[-1]["commitment"], 32))])
    checkpoint = stage.operators.checkpoint("records", tree)

    def small(asked: Asked) -> Json:
        proofs = [{"index": 0, "path": []} for _ in asked.json["leaves"]]
        return {"checkpoint": checkpoint, "consistency": [], "items": proofs}

    stage.lie.answer("records", INCLUSION, small)
    return await findings(stage, memory=True)


@attack(EVENTS, PROXY, "shows a client another tree of its own log than before", "log_forked", by=PATIENT)
async def proxy_forked(stage: Stage) -> list[str]:
    return await another_tree(stage, "proxy-1", [], memory=True, size=4_000)


# --- what only the others know ---------------------------------------------------------------------------------------


@attack(EVENTS, RECORDS, "omits a disclosure from the patient's log", "released_without_event", by=PATIENT)
async def disclosure_omitted(stage: Stage) -> list[str]:
    await rewrites(stage, "records", without("disclosed", grant=stage.cast.reading.id))
    return await findings(stage)


@attack(
    EVENTS,
    f"{RECORDS} and one {PROXY}",
    "hide an access together: the other proxies' logs show it",
    "released_without_event",
    by=PATIENT,
)
async def access_hidden_together(stage: Stage) -> list[str]:
    await rewrites(stage, "records", without("disclosed", grant=stage.cast.reading.id))
    await rewrites(stage, "proxy-1", without("reencrypted", grant=stage.cast.reading.id))
    return await findings(stage)


@attack(
    EVENTS, RECORDS, "says that it disclosed what no proxy has re-encrypted", "disclosed_without_proxies", by=PATIENT
)
async def disclosure_invented(stage: Stage) -> list[str]:
    await rewrites(stage, "records", also(invented("disclosed", stage.cast.reading.id)))
    return await findings(stage)


@attack(
    EVENTS,
    RECORDS,
    "says that fewer records were disclosed than were",
    "released_without_event",
    "disclosed_without_proxies",
    by=PATIENT,
)
async def disclosure_understated(stage: Stage) -> list[str]:
    def fewer(event: Event) -> Event:
        if event.event != "disclosed" or event.capsules is None or len(event.capsules) < 2:
            return event
        return event.model_copy(update={"capsules": event.capsules[:1]})

    await rewrites(stage, "records", lambda events: [fewer(one) for one in events])
    return await findings(stage)


@attack(EVENTS, RECORDS, "says that somebody else received the records", "beyond_grant", by=PATIENT)
async def recipient_changed(stage: Stage) -> list[str]:
    def other(event: Event) -> Event:
        return event.model_copy(update={"actor": stage.cast.clinic.did}) if event.event == "disclosed" else event

    await rewrites(stage, "records", lambda events: [other(one) for one in events])
    return await findings(stage)


@attack(EVENTS, RECORDS, "discloses under a grant that has lapsed and back-dates nothing", "beyond_grant", by=PATIENT)
async def disclosed_before_the_grant(stage: Stage) -> list[str]:
    def early(event: Event) -> Event:
        return event.model_copy(update={"at": event.at - 86_400}) if event.event == "disclosed" else event

    await rewrites(stage, "records", lambda events: [early(one) for one in events])
    return await findings(stage)


@attack(EVENTS, RECORDS, "discloses under a grant that the patient never gave", "grant_unknown", by=PATIENT)
async def unknown_grant(stage: Stage) -> list[str]:
    false = invented("disclosed", stage.cast.reading.id, grant=stage.cast.nextdoor.id)
    await rewrites(stage, "records", also(false))
    return await findings(stage)


@attack(EVENTS, RECORDS, "leaves the giving of a grant out of the log", "grant_without_event", by=PATIENT)
async def grant_unlogged(stage: Stage) -> list[str]:
    await rewrites(stage, "records", without("granted", grant=stage.cast.reading.id))
    return await findings(stage)


@attack(EVENTS, RECORDS, "leaves the end of a grant out of the log", "revocation_without_event", by=PATIENT)
async def revocation_unlogged(stage: Stage) -> list[str]:
    await rewrites(stage, "records", without("revoked", grant=stage.cast.ended.id))
    return await findings(stage)


@attack(EVENTS, RECORDS, "serves a grant after its end", "revoked_but_served", by=PATIENT)
async def served_after_the_end(stage: Stage) -> list[str]:
    await rewrites(stage, "records", also(invented("disclosed", stage.cast.ended.id)))
    return await findings(stage)


@attack(
    EVENTS,
    RECORDS,
    "moves the end of a grant before a disclosure under it, to have it look as if it came too late",
    "revoked_but_served",
    by=PATIENT,
)
async def end_moved(stage: Stage) -> list[str]:
    def moved(events: list[Event]) -> list[Event]:
        end = last(events, "revoked", stage.cast.ended.id)
        rest = [one for one in events if one is not end]
        place = rest.index(last(rest, "disclosed", stage.cast.ended.id))
        return [*rest[:place], end, *rest[place:]]

    await rewrites(stage, "records", moved)
    return await findings(stage)


@attack(
    EVENTS,
    RECORDS,
    "back-dates the end of a grant to before what was disclosed under it",
    "revoked_but_served",
    by=PATIENT,
)
async def end_back_dated(stage: Stage) -> list[str]:
    def dated(events: list[Event]) -> list[Event]:
        end = last(events, "revoked", stage.cast.ended.id)
        return [one.model_copy(update={"at": end.at - 3600}) if one is end else one for one in events]

    await rewrites(stage, "records", dated)
    return await findings(stage)


@attack(EVENTS, PROXY, "hides that it has re-encrypted", "disclosed_without_proxies", by=PATIENT)
async def release_hidden(stage: Stage) -> list[str]:
    for name in stage.operators.proxies:
        await rewrites(stage, name, without("reencrypted", grant=stage.cast.reading.id))
    return await findings(stage)


@attack(EVENTS, PROXY, "re-encrypts without the records service", "released_without_event", by=PATIENT)
async def released_alone(stage: Stage) -> list[str]:
    name = await _who_released(stage, stage.cast.reading.id)
    await rewrites(stage, name, also(invented("reencrypted", stage.cast.reading.id)))
    return await findings(stage)


@attack(EVENTS, PROXY, "re-encrypts after it has erased its share", "revoked_but_served", by=PATIENT)
async def released_after_erasing(stage: Stage) -> list[str]:
    name = await _who_released(stage, stage.cast.ended.id)
    await rewrites(stage, name, also(invented("reencrypted", stage.cast.ended.id)))
    return await findings(stage)


@attack(EVENTS, PROXY, "takes in a share of a grant that the patient never gave", "share_without_grant", by=PATIENT)
async def share_of_nobody(stage: Stage) -> list[str]:
    false = invented("stored", stage.cast.reading.id, grant=b64url(bytes(32)))
    await rewrites(stage, "proxy-1", also(false))
    return await findings(stage)


@attack(EVENTS, PROXY, "hides that it has stored a share", "share_missing", by=PATIENT)
async def share_hidden(stage: Stage) -> list[str]:
    await rewrites(stage, "proxy-1", without("stored", grant=stage.cast.reading.id))
    return await findings(stage)


@attack(EVENTS, PROXY, "hides an erasure for which it has signed a receipt", "erasure_missing", by=PATIENT)
async def erasure_hidden(stage: Stage) -> list[str]:
    await rewrites(stage, "proxy-1", without("erased", grant=stage.cast.ended.id))
    return await findings(stage)


@attack(EVENTS, RECORDS, "says that a proxy has erased a share that it still has", "erasure_missing", by=PATIENT)
async def erasure_invented(stage: Stage) -> list[str]:
    false = invented("erased", stage.cast.ended.id, grant=stage.cast.reading.id)
    await rewrites(stage, "records", also(false))
    return await findings(stage)


@attack(
    EVENTS, PROXY, "signs receipts with numbers of events that it does not have", "receipt_without_event", by=PATIENT
)
async def receipts_without_events(stage: Stage) -> list[str]:
    # One event more at the beginning: no receipt names the event that it is about any more.
    await rewrites(stage, "proxy-1", lambda events: [events[0].model_copy(update={"outcome": "refused"}), *events])
    return await findings(stage)


async def _who_released(stage: Stage, grant: str) -> str:
    """A proxy that has re-encrypted under a grant."""
    for name in stage.operators.proxies:
        if any((one.event, one.grant) == ("reencrypted", grant) for one in await events_of(stage, name)):
            return name
    raise AssertionError("no proxy has re-encrypted under this grant")
