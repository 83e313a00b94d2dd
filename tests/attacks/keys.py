"""Swapping, hiding and rolling back keys: what a registry tries, alone or with a stolen key."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from client.keyring import Keyring
from client.session import Session
from shared import jose, statements
from shared.crypto.sealing import SealingKey
from shared.did import key_id
from shared.encoding import b64url, from_b64url, sha256
from shared.statements import KeyEntry, ScopeKey, new_jti
from shared.transparency.entries import key_entry_data, scope_label
from shared.transparency.merkle import leaf_hash
from shared.wire import REGISTRY_AUDIENCE, Action, Purpose, Role
from tests.attacks.lying import Asked, Json, Refusal
from tests.attacks.stage import Party, Stage, codes_of
from tests.attacks.table import AUTHOR, KEYS, PATIENT, RECIPIENT, REGISTRY, attack
from tests.e2e.actors import in_a_month, note

CHAIN = "GET /v1/parties/{}"
SCOPE_KEYS = "GET /v1/patients/*/scope-keys"


def next_entry(party: Party, chain: Sequence[str], new: Keyring, *, signed_by: Any = None, **changed: Any) -> str:
    """A key-entry that follows a chain and brings keys of somebody else's; signed with the party's own newest key,
    which a thief has, or with another."""
    before = statements.verify_under(chain[-1], KeyEntry, party.did, [bytes(party.keyring.identity(0).verify_key)])
    return _follow(party, before, new, signed_by=signed_by, **changed)


def _follow(party: Party, before: Any, new: Keyring, *, signed_by: Any, **changed: Any) -> str:
    old = before.payload
    members: dict[str, Any] = {
        **statements.claims_of(old),
        "role": old.role,
        "iat": int(time.time()),
        "jti": new_jti(),
        "seq": old.seq + 1,
        "prev": before.id,
        "identity_key": new.identity(9).verify_key.b64,
        "receiving_key": new.receiving(9).public_key().b64,
        **changed,
    }
    members.pop("possession", None)
    unproven = KeyEntry.model_construct(**members)
    proof = new.identity(9).sign(unproven.possession_message())
    entry = KeyEntry(**members, possession=b64url(proof))
    return statements.sign(entry, signed_by or party.keyring.identity(old.seq))


def shows_more(token: str) -> Any:
    """A card with one more entry at the end of its chain."""

    def change(card: Json) -> Json:
        return {**card, "entries": [*card["entries"], token], "seq": card["seq"] + 1}

    return change


async def entries_of(session: Session, did: str) -> list[str]:
    return (await session.platform.party(did)).entries


async def write(stage: Stage) -> list[str]:
    """An author encrypts to a scope-key that the registry shows."""
    writer = await stage.machine(stage.cast.clinic)
    await writer.author.append(stage.cast.writing.id, [note("written", "medications")])
    return []


def scope_key(stage: Stage, signer: Party, **changed: Any) -> str:
    """A scope-key for medications with a delegating key of the stranger's."""
    owner = stage.cast.owner.keyring
    members: dict[str, Any] = {
        "iss": signer.did,
        "aud": REGISTRY_AUDIENCE,
        "iat": int(time.time()),
        "jti": new_jti(),
        "scope": owner.scope_id("medications"),
        "epoch": 0,
        "delegating_key": stage.cast.stranger.keyring.delegating("medications", 0).public_key().b64,
        **changed,
    }
    return signer.sign(ScopeKey(**members))


# --- chains ---------------------------------------------------------------------------------------------------------


@attack(KEYS, REGISTRY, "shows another patient's keys under the id of the one asked for", "wrong_signer", by=RECIPIENT)
async def another_chain(stage: Stage) -> list[str]:
    reader = await stage.new_machine(stage.cast.doctor)
    false = await reader.session.platform.party(stage.cast.neighbour.did)
    stage.lie.change("registry", CHAIN.format(stage.cast.owner.did), lambda card: {**card, "entries": false.entries})
    await reader.session.party(stage.cast.owner.did)
    return []


@attack(
    KEYS,
    REGISTRY,
    "adds a key-entry with a receiving key of its own to a recipient's chain, signed with its own key",
    "wrong_signer",
    by=PATIENT,
)
async def receiving_key_signed_by_the_registry(stage: Stage) -> list[str]:
    owner, thief = await stage.machine(stage.cast.owner), stage.cast.stranger.keyring
    chain = await entries_of(owner.session, stage.cast.clinic.did)
    token = next_entry(stage.cast.clinic, chain, thief, signed_by=thief.identity(0))
    stage.lie.change("registry", CHAIN.format(stage.cast.clinic.did), shows_more(token))
    await owner.session.party(stage.cast.clinic.did)
    return []


@attack(
    KEYS,
    REGISTRY,
    "adds a receiving key of its own to a recipient's chain with the recipient's stolen identity key,"
    " and shows the entry to one patient without logging it",
    "not_in_log",
    by=PATIENT,
)
async def stolen_key_entry_never_logged(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    chain = await entries_of(owner.session, stage.cast.clinic.did)
    token = next_entry(stage.cast.clinic, chain, stage.cast.stranger.keyring)
    stage.lie.change("registry", CHAIN.format(stage.cast.clinic.did), shows_more(token))
    await owner.session.party(stage.cast.clinic.did)
    return []


@attack(
    KEYS,
    REGISTRY,
    "adds a key-entry without the consent of the new key's holder",
    "broken_key_chain",
    by=PATIENT,
)
async def entry_without_possession(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    chain = await entries_of(owner.session, stage.cast.clinic.did)
    thief = stage.cast.stranger.keyring
    token = next_entry(stage.cast.clinic, chain, thief)
    entry = KeyEntry.model_validate_json(payload_of(token))
    forged = entry.model_copy(update={"possession": b64url(thief.identity(1).sign(entry.possession_message()))})
    stage.lie.change("registry", CHAIN.format(stage.cast.clinic.did), shows_more(stage.cast.clinic.sign(forged)))
    await owner.session.party(stage.cast.clinic.did)
    return []


@attack(KEYS, REGISTRY, "leaves a link out of a chain", "broken_key_chain", by=PATIENT)
async def missing_link(stage: Stage) -> list[str]:
    patient = await stage.new_machine(stage.cast.owner)
    stage.lie.change(
        "registry", CHAIN.format(stage.cast.doctor.did), lambda card: {**card, "entries": card["entries"][1:], "seq": 0}
    )
    await patient.session.party(stage.cast.doctor.did)
    return []


@attack(
    KEYS,
    REGISTRY,
    "shows a chain without its newest entry to somebody who has seen it",
    "key_chain_rolled_back",
    by=PATIENT,
)
async def chain_rolled_back(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    stage.lie.change(
        "registry",
        CHAIN.format(stage.cast.doctor.did),
        lambda card: {**card, "entries": card["entries"][:1], "seq": 0},
    )
    await owner.session.party(stage.cast.doctor.did)
    return []


@attack(
    KEYS,
    REGISTRY,
    "shows another last entry, made with a stolen key, in the place of the one that was seen",
    "key_chain_rolled_back",
    by=PATIENT,
)
async def chain_forked(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    chain = await entries_of(owner.session, stage.cast.doctor.did)
    token = next_entry(stage.cast.doctor, chain[:1], stage.cast.stranger.keyring)
    stage.lie.change(
        "registry", CHAIN.format(stage.cast.doctor.did), lambda card: {**card, "entries": [chain[0], token]}
    )
    await owner.session.party(stage.cast.doctor.did)
    return []


@attack(KEYS, REGISTRY, "puts a sealing key of its own into the place of a proxy's", "wrong_signer", by=PATIENT)
async def sealing_key_swapped(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    first, second = list(stage.operators.proxies.values())[:2]
    false = await entries_of(owner.session, second)
    stage.lie.change("registry", CHAIN.format(first), lambda card: {**card, "entries": false})
    await owner.patient.proxies()
    return []


@attack(
    KEYS,
    REGISTRY,
    "adds a sealing key of its own to a proxy's chain with the proxy's stolen identity key, unlogged",
    "not_in_log",
    by=PATIENT,
)
async def sealing_key_never_logged(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    name, did = next(iter(stage.operators.proxies.items()))
    [first] = await entries_of(owner.session, did)
    thief = stage.cast.stranger.keyring
    before = statements.verify_under(first, KeyEntry, did, [bytes(stage.operators.identity_key(name).verify_key)])
    token = _follow(
        stage.cast.owner,
        before,
        thief,
        signed_by=stage.operators.identity_key(name),
        receiving_key=None,
        sealing_key=SealingKey(bytes(range(32))).public_key.b64,
    )
    stage.lie.change("registry", CHAIN.format(did), shows_more(token))
    await owner.patient.proxies()
    return []


@attack(
    KEYS,
    REGISTRY,
    "puts a proxy that nobody admitted into the directory, for a patient's first choice",
    "not_in_log",
    by=PATIENT,
)
async def rogue_proxy(stage: Stage) -> list[str]:
    patient = await stage.newcomer(Role.PATIENT)
    await patient.session.logs.witnesses()
    thief = Keyring.generate()
    rogue = statements.sign(
        KeyEntry(
            iss=thief.did,
            aud="urn:pcehr:registry",
            iat=int(time.time()),
            jti=new_jti(),
            role=Role.PROXY,
            seq=0,
            identity_key=thief.identity(0).verify_key.b64,
            sealing_key=SealingKey(bytes(range(32))).public_key.b64,
            endpoint="http://127.0.0.1:9",
            name="Demo Proxy",
        ),
        thief.identity(0),
    )
    card = {"did": thief.did, "role": "proxy", "seq": 0, "entries": [rogue], "endpoint": "http://127.0.0.1:9"}
    stage.lie.change("registry", "GET /v1/proxies", lambda page: {**page, "items": [*page["items"][:1], card]})
    stage.lie.answer("registry", CHAIN.format(thief.did), lambda asked: card)
    await patient.patient.pin_proxies()
    return []


@attack(
    KEYS, REGISTRY, "takes in a key-entry of a party's that its seed does not give", "verification_failed", by=PATIENT
)
async def entry_that_the_seed_does_not_give(stage: Stage) -> list[str]:
    patient = await stage.newcomer(Role.PATIENT)
    party = Party(patient.keyring, stage.cast.owner.state)
    chain = await entries_of(patient.session, patient.did)
    thief = Keyring.generate()
    own = await stage.new_machine(party)
    # The registry accepts and logs it: it is signed as it should be.
    token = stage.lie.instead(None, next_entry(party, chain, thief))
    if token is not None:
        await own.session.platform.add_key_entry(patient.did, token)
    await own.session.me()
    return []


@attack(KEYS, REGISTRY, "says that it has never heard of the recipient of a grant", "unknown_party", by=PATIENT)
async def hidden_party(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)

    def hidden(asked: Asked) -> Json:
        raise Refusal(404, "unknown_party")

    stage.lie.answer("registry", CHAIN.format(stage.cast.doctor.did), hidden)
    report = await owner.patient.revoke(stage.cast.ended.id, wait_seconds=0)
    assert report.state == "sealed"
    await owner.session.party(stage.cast.doctor.did)
    return []


# --- scope-keys -----------------------------------------------------------------------------------------------------


@attack(KEYS, REGISTRY, "shows a scope-key that it signed itself", "bad_signature", by=AUTHOR)
async def scope_key_signed_by_the_registry(stage: Stage) -> list[str]:
    cast = stage.cast
    claims = json.loads(payload_of(scope_key(stage, cast.owner)))
    kid = key_id(cast.owner.did, bytes(cast.owner.keyring.identity(0).verify_key))
    false = jose.sign(claims, key=stage.operators.log_key("registry"), kid=kid, typ=ScopeKey.typ)
    stage.lie.answer("registry", SCOPE_KEYS, lambda asked: {"items": [false]})
    return await write(stage)


@attack(KEYS, REGISTRY, "shows a scope-key of somebody else's", "verification_failed", by=AUTHOR)
async def scope_key_of_another(stage: Stage) -> list[str]:
    false = scope_key(stage, stage.cast.neighbour)
    stage.lie.answer("registry", SCOPE_KEYS, lambda asked: {"items": [false]})
    return await write(stage)


@attack(
    KEYS,
    REGISTRY,
    "shows a scope-key made with the patient's stolen key, to one author, without logging it",
    "not_in_log",
    by=AUTHOR,
)
async def scope_key_never_logged(stage: Stage) -> list[str]:
    false = scope_key(stage, stage.cast.owner, epoch=1)
    stage.lie.answer("registry", SCOPE_KEYS, lambda asked: {"items": [false]})
    return await write(stage)


@attack(KEYS, REGISTRY, "shows the patient's key of another scope", "verification_failed", by=AUTHOR)
async def key_of_another_scope(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    keys = [token async for token in owner.session.platform.scope_keys(await owner.session.credentials(), owner.did)]
    other = next(
        token
        for token in keys
        if ScopeKey.model_validate_json(payload_of(token)).scope == owner.keyring.scope_id("allergies")
    )
    stage.lie.answer("registry", SCOPE_KEYS, lambda asked: {"items": [other]})
    return await write(stage)


@attack(
    KEYS, REGISTRY, "shows an author the key of an epoch that a revocation ended", "scope_key_rolled_back", by=AUTHOR
)
async def stale_scope_key(stage: Stage) -> list[str]:
    owner, writer = await stage.newcomer(Role.PATIENT), await stage.newcomer()
    await owner.patient.add_scope("medications")
    grant = await _append(owner, writer.did)
    await writer.author.append(grant, [note("before", "medications")])
    await _next_epoch(owner)
    await writer.author.append(grant, [note("after", "medications")])
    stage.lie.change("registry", SCOPE_KEYS, lambda page: {"items": page["items"][:1]})
    await writer.author.append(grant, [note("later", "medications")])
    return []


@attack(KEYS, REGISTRY, "hides the newest key of a scope from the patient", "scope_key_rolled_back", by=PATIENT)
async def own_scope_key_hidden(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    laboratory = owner.keyring.scope_id("laboratory")

    def hide(page: Json) -> Json:
        shown = [ScopeKey.model_validate_json(payload_of(token)) for token in page["items"]]
        kept = [t for t, one in zip(page["items"], shown, strict=True) if (one.scope, one.epoch) != (laboratory, 1)]
        return {**page, "items": kept}

    stage.lie.change("registry", SCOPE_KEYS, hide)
    await owner.patient.scopes()
    return []


@attack(KEYS, REGISTRY, "acknowledges a new scope-key and drops it", "scope_key_rolled_back", by=PATIENT)
async def scope_key_dropped(stage: Stage) -> list[str]:
    owner = await stage.newcomer(Role.PATIENT)
    stage.lie.answer("registry", "PUT /v1/patients/*/scope-keys", lambda asked: {"items": asked.json["scope_keys"]})
    await owner.patient.add_scope("medications")
    return []


@attack(
    KEYS,
    REGISTRY,
    "shows the patient a scope-key of the patient's own that its seed does not give",
    "verification_failed",
    by=PATIENT,
)
async def own_scope_key_that_the_seed_does_not_give(stage: Stage) -> list[str]:
    owner = await stage.newcomer(Role.PATIENT)
    await owner.patient.add_scope("medications")
    party = Party(owner.keyring, stage.cast.owner.state)
    false = scope_key(stage, party, scope=owner.keyring.scope_id("medications"), epoch=1)
    if stage.lie.instead(False, True):
        who = await owner.session.credentials()
        await owner.session.platform.publish_scope_keys(who, [false])
    await owner.patient.scopes()
    return []


# --- watching --------------------------------------------------------------------------------------------------------


@attack(
    KEYS,
    REGISTRY,
    "publishes a scope-key under the patient's label that the patient did not make",
    "foreign_key_entry",
    by=f"{PATIENT}, by watching",
)
async def foreign_entry(stage: Stage) -> list[str]:
    owner = await stage.newcomer(Role.PATIENT)
    await owner.patient.add_scope("medications")
    party = Party(owner.keyring, stage.cast.owner.state)
    false = scope_key(stage, party, scope=owner.keyring.scope_id("medications"), epoch=1)
    if stage.lie.instead(False, True):
        who = await owner.session.credentials()
        await owner.session.platform.publish_scope_keys(who, [false])
        # It has its place in the published tree a moment later; whoever looked before would find it the next time.
        leaf = key_entry_data(scope_label(owner.did, owner.keyring.scope_id("medications")), statement_id(false))
        await owner.session.logs.prove_keys({leaf_hash(leaf): owner.did})
    return codes_of((await owner.session.watch(["medications"])).findings)


@attack(
    KEYS,
    REGISTRY,
    "hides a party's newest key-entry from one client that has not seen it",
    "key_entry_withheld",
    by=f"{PATIENT}, by watching",
)
async def newest_entry_withheld(stage: Stage) -> list[str]:
    owner, reader = await stage.machine(stage.cast.owner), await stage.newcomer()
    owner.session.state.contacts["reader"] = reader.did
    await owner.session.party(reader.did)
    await reader.session.rotate_keys()
    stage.lie.change(
        "registry", CHAIN.format(reader.did), lambda card: {**card, "entries": card["entries"][:1], "seq": 0}
    )
    await owner.session.party(reader.did, fresh=True)
    return codes_of((await owner.session.watch()).findings)


# --- how -------------------------------------------------------------------------------------------------------------


async def _append(owner: Any, recipient: str) -> str:
    report = await owner.patient.share(
        recipient, scopes=["medications"], actions=[Action.APPEND], purpose=Purpose.TREAT, expires=in_a_month()
    )
    return str(report.id)


async def _next_epoch(owner: Any) -> None:
    keyring = owner.keyring
    token = await owner.session.sign(
        ScopeKey,
        REGISTRY_AUDIENCE,
        scope=keyring.scope_id("medications"),
        epoch=1,
        delegating_key=keyring.delegating("medications", 1).public_key().b64,
    )
    await owner.session.platform.publish_scope_keys(await owner.session.credentials(), [token.token])


def payload_of(token: str) -> bytes:
    """The payload of a statement, unverified."""
    return from_b64url(token.split(".")[1])


def statement_id(token: str) -> str:
    """The id of a statement."""
    return b64url(sha256(token.rpartition(".")[0].encode("ascii")))
