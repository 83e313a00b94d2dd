"""The comparison notices what it is there for: each fault is planted into an account in which all is well."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.encoding import b64url, canonical_json
from tests.chaos import ledger
from tests.chaos.compare import problems
from tests.chaos.effects import Effects, LoggedOnce, root_of
from tests.chaos.ledger import Entry, Signed, entry_of, kind_of

PATIENT, PROXY = "did:key:patient", "did:key:proxy"
NAMES = {"registry": "registry", "records": "records", "proxy": "proxy-1"}


def token(**claims: Any) -> str:
    return f"{b64url(b'{}')}.{b64url(canonical_json(claims))}.{b64url(b'signature')}"


MANIFEST = Signed.of(token(iss=PATIENT, capsule="the capsule"))
GRANT = Signed.of(token(iss=PATIENT, exp=1))
KEY = Signed.of(token(iss=PATIENT, seq=0))
ERASURE = Signed.of(token(iss=PATIENT, upto=1))
RECEIPT = token(iss=PROXY, act="stored", statement=GRANT.id, seq=1)


def logged(service: str, n: int, prev: str | None, event: str, **members: Any) -> LoggedOnce:
    members = {"event": event, "outcome": "done", "actor": PATIENT} | members | ({} if prev is None else {"prev": prev})
    return LoggedOnce(service, PATIENT, n, f"{service} {n}", members)


def account() -> tuple[list[Entry], Effects]:
    """A key, a record, a grant with its receipt, and an erasure, all acknowledged once and there once."""
    written = logged("records", 1, None, "record_written", statement=MANIFEST.id, capsules=["the capsule"])
    entries = [
        Entry("key_entry", "http://registry/v1/patients", [KEY]),
        Entry("records", "http://records/v1/records", [MANIFEST]),
        Entry("blob", "http://records/v1/blobs/the-hash"),
        Entry("grant", "http://records/v1/grants", [GRANT]),
        Entry("seen", "http://records/v1/me/audit", seen=[(1, written.commitment, json.dumps(written.event))]),
        Entry("erasure", "http://records/v1/me/audit/erasures", [ERASURE]),
    ]
    effects = Effects(proxies={PROXY: "proxy-1"}, receipts=[(PROXY, RECEIPT)])
    rows = [("registry", kind, KEY.id) for kind in ("statement", "key_entry", "leaf")]
    rows += [("records", "statement", one.id) for one in (MANIFEST, GRANT, ERASURE)]
    rows += [("records", "version", MANIFEST.id), ("records", "grant", GRANT.id), ("records", "blob", "the-hash")]
    effects.rows.update(rows)
    effects.events = [
        replace(written, event=None),
        logged("records", 2, "records 1", "granted", statement=GRANT.id),
        logged("records", 3, "records 2", "stored", statement=GRANT.id, actor=PROXY),
        logged("records", 4, "records 3", "log_erased", statement=ERASURE.id),
        logged("proxy-1", 1, None, "stored", statement=GRANT.id),
    ]
    return entries, effects


def test_an_account_in_which_all_is_well_has_no_problem() -> None:
    assert problems(*account(), NAMES) == []


def lose(*row: str) -> Callable[[Effects], None]:
    def plant(effects: Effects) -> None:
        del effects.rows[row[0], row[1], row[2]]

    return plant


def double(*row: str) -> Callable[[Effects], None]:
    def plant(effects: Effects) -> None:
        effects.rows[row[0], row[1], row[2]] += 1

    return plant


def drop_event(place: int) -> Callable[[Effects], None]:
    def plant(effects: Effects) -> None:
        del effects.events[place]

    return plant


def change_event(place: int, **members: Any) -> Callable[[Effects], None]:
    def plant(effects: Effects) -> None:
        event = effects.events[place]
        effects.events[place] = replace(event, event={**(event.event or {}), **members})

    return plant


def again(place: int) -> Callable[[Effects], None]:
    """The event once more at the end of its chain, as a repeated statement with a second effect would write it."""

    def plant(effects: Effects) -> None:
        event = effects.events[place]
        chain = [one for one in effects.events if one.service == event.service]
        members = {**(event.event or {}), "prev": chain[-1].commitment}
        effects.events.append(replace(event, n=len(chain) + 1, commitment="another", event=members))

    return plant


def swap_receipt(effects: Effects) -> None:
    effects.receipts = [(PROXY, token(iss=PROXY, act="stored", statement=GRANT.id, seq=2))]


def no_leaf(effects: Effects) -> None:
    effects.events[-1] = replace(effects.events[-1], commitment="")


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lose("registry", "key_entry", KEY.id), "lost: key"),
        (lose("registry", "leaf", KEY.id), "lost: leaf"),
        (lose("registry", "statement", KEY.id), "lost: statement"),
        (lose("records", "version", MANIFEST.id), "lost: version"),
        (lose("records", "grant", GRANT.id), "lost: grant"),
        (lose("records", "blob", "the-hash"), "lost: blob"),
        (drop_event(1), "lost: event of grant"),
        (drop_event(3), "lost: event of erasure"),
        (drop_event(4), "lost: proxy-1 gave receipt 1"),
        (swap_receipt, "lost: proxy-1 gave receipt 2"),
        (double("records", "version", MANIFEST.id), "doubled: version"),
        (double("records", "statement", GRANT.id), "doubled: statement"),
        (double("proxy-1", "grant", GRANT.id), ""),
        (again(1), "doubled: event of grant"),
        (again(2), "doubled: records has 2 events stored"),
        (again(4), "doubled: proxy-1 has 2 events stored"),
        (change_event(2, prev="something else"), "does not follow"),
        (change_event(0, event="record_written", outcome="done"), "its erasure was acknowledged"),
        (drop_event(2), "have a gap"),
        (no_leaf, "has no leaf"),
    ],
)
def test_a_planted_fault_is_noticed(plant: Callable[[Effects], None], said: str) -> None:
    entries, effects = account()
    plant(effects)
    found = problems(entries, effects, NAMES)
    # One row more of what nobody acknowledged is what an answer that was lost looks like, and no fault.
    assert any(said in one for one in found) if said else found == []


def test_an_event_that_was_erased_without_having_been_seen_is_missed() -> None:
    entries, effects = account()
    assert any("lost: event of version" in one for one in problems([*entries[:4], entries[5]], effects, NAMES))


def test_a_broken_tree_is_a_problem() -> None:
    entries, effects = account()
    effects.broken_trees.append("records: the places of the leaves have gaps")
    assert problems(entries, effects, NAMES) == effects.broken_trees


def test_a_root_computed_by_its_definition_notices_every_leaf() -> None:
    leaves = [bytes([number]) * 32 for number in range(11)]
    root = root_of(leaves)
    for place in range(len(leaves)):
        changed = copy.copy(leaves)
        changed[place] = b"x" * 32
        assert root_of(changed) != root
    assert root_of(leaves[:-1]) != root


async def test_the_ledger_holds_what_an_answer_acknowledged_and_no_line_that_was_cut_off(tmp_path: Path) -> None:
    url = httpx.URL("http://records/v1/grants")
    sent = json.dumps({"grant": token(iss=PATIENT, exp=1), "shares": []}).encode()
    entry = entry_of("grant", url, sent, b'{"id": "x"}')
    assert entry.statements == [GRANT]
    path = tmp_path / "ledger.jsonl"
    observed = ledger.Observed(path)
    observed._note(entry)
    await observed.aclose()
    with path.open("ab") as file:
        file.write(b'{"kind": "grant", "url": "http://rec')
    assert list(ledger.read(path)) == [entry]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("POST /v1/patients", "key_entry"),
        ("POST /v1/parties/did:key:x/keys", "key_entry"),
        ("PUT /v1/patients/did:key:x/scope-keys", "scope_keys"),
        ("POST /v1/audit/erasures", "erasure"),
        ("GET /v1/me/audit", "seen"),
        ("GET /v1/grants", None),
        ("POST /v1/oauth/token", None),
    ],
)
def test_every_answer_that_acknowledges_something_is_noted(line: str, kind: str | None) -> None:
    assert kind_of(*line.split()) == kind
