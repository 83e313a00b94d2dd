"""Attempts at the records service."""

from __future__ import annotations

from shared.encoding import b64url, sha256
from shared.wire import RECORDS_AUDIENCE
from tests.authorisation.attempts import Ask, Scene, attempt, the_author, the_recipient
from tests.authorisation.matrix import Role, State
from tests.services.signing_parties import random_hash


@attempt("records", "POST /v1/records", "a new record of the patient's, under the grant", who=the_recipient)
async def append(scene: Scene) -> Ask:
    return _writing(scene, scene.case.grant.id)


@attempt("records", "POST /v1/records", "a new record of the patient's, under its own grant", who=the_author)
async def append_under_own_grant(scene: Scene) -> Ask:
    own = scene.cast.own_grants.get(scene.caller.did)
    return _writing(scene, random_hash() if own is None else own.id)


@attempt("records", "POST /v1/records", "a next version of a record of the patient's, under the grant")
async def amend(scene: Scene) -> Ask:
    owner = scene.cast.owner
    first = await scene.cast.written(owner, owner.record(owner, "allergies", now=scene.now))
    grant = None if scene.caller is owner else scene.case.grant.id
    record = scene.caller.record(owner, "allergies", after=first, grant=grant, now=scene.now)
    return Ask("/v1/records", json={"records": [record.as_json()]})


@attempt("records", "POST /v1/records", "a next version of a record of the patient's, under its own grant")
async def amend_under_own_grant(scene: Scene) -> Ask:
    owner = scene.cast.owner
    first = await scene.cast.written(owner, owner.record(owner, "allergies", now=scene.now))
    own = scene.cast.own_grants.get(scene.caller.did)
    grant = None if scene.caller is owner else random_hash() if own is None else own.id
    record = scene.caller.record(owner, "allergies", after=first, grant=grant, now=scene.now)
    return Ask("/v1/records", json={"records": [record.as_json()]})


@attempt("records", "POST /v1/records", "what the patient has signed")
async def write_for_the_patient(scene: Scene) -> Ask:
    owner = scene.cast.owner
    return Ask("/v1/records", json={"records": [owner.record(owner, "allergies", now=scene.now).as_json()]})


@attempt("records", "GET /v1/me/records", "lists")
async def own_records(scene: Scene) -> Ask:
    return Ask("/v1/me/records", params={"limit": 100}, shows=scene.cast.allergy.manifest)


@attempt("records", "GET /v1/records", "lists what the grant covers", who=the_recipient)
async def granted_records(scene: Scene) -> Ask:
    params = {"grant": scene.case.grant.id, "limit": 100}
    return Ask("/v1/records", params=params, shows=scene.cast.allergy.manifest)


@attempt("records", "GET /v1/records/{record}", "a record that the grant covers", who=the_recipient)
async def record(scene: Scene) -> Ask:
    allergy = scene.cast.allergy
    return Ask(f"/v1/records/{allergy.record}", shows=allergy.manifest)


@attempt("records", "GET /v1/records/{record}", "a record that the grant does not cover")
async def other_record(scene: Scene) -> Ask:
    pills = scene.cast.pills
    return Ask(f"/v1/records/{pills.record}", shows=pills.manifest)


@attempt("records", "GET /v1/records/{record}/history", "of a record that the grant covers", who=the_recipient)
async def history(scene: Scene) -> Ask:
    return Ask(f"/v1/records/{scene.cast.allergy.record}/history", params={"version": 1})


@attempt("records", "PUT /v1/blobs/{sha256}", "a ciphertext")
async def put_blob(_: Scene) -> Ask:
    content = b"a ciphertext of one's own"
    return Ask(f"/v1/blobs/{b64url(sha256(content))}", content=content)


@attempt("records", "GET /v1/blobs/{sha256}", "the body of a record that the grant covers", who=the_recipient)
async def get_blob(scene: Scene) -> Ask:
    return Ask(f"/v1/blobs/{b64url(sha256(scene.cast.allergy.body))}", shows=b64url(scene.cast.allergy.body))


@attempt("records", "POST /v1/disclosure-requests", "asks the patient", who=the_recipient)
async def ask(scene: Scene) -> Ask:
    statement = scene.caller.disclosure_request(scene.cast.owner, now=scene.now)
    return Ask("/v1/disclosure-requests", json={"statement": statement})


@attempt("records", "POST /v1/disclosure-requests", "what the recipient has signed", who=the_recipient)
async def ask_for_the_recipient(scene: Scene) -> Ask:
    statement = scene.case.recipient.disclosure_request(scene.cast.owner, now=scene.now)
    return Ask("/v1/disclosure-requests", json={"statement": statement})


@attempt("records", "GET /v1/disclosure-requests", "lists those addressed to it")
async def inbox(scene: Scene) -> Ask:
    return Ask("/v1/disclosure-requests", params={"box": "inbox", "limit": 100}, shows=scene.case.request)


@attempt("records", "GET /v1/disclosure-requests", "lists those it has sent", who=the_recipient)
async def sent(scene: Scene) -> Ask:
    return Ask("/v1/disclosure-requests", params={"box": "sent", "limit": 100}, shows=scene.case.request)


@attempt("records", "POST /v1/denials", "denies the recipient's request")
async def deny(scene: Scene) -> Ask:
    statement = scene.caller.denial(scene.case.recipient, await _to_be_denied(scene), now=scene.now)
    return Ask("/v1/denials", json={"statement": statement})


@attempt("records", "POST /v1/denials", "what the patient has signed")
async def deny_for_the_patient(scene: Scene) -> Ask:
    statement = scene.cast.owner.denial(scene.case.recipient, await _to_be_denied(scene), now=scene.now)
    return Ask("/v1/denials", json={"statement": statement})


@attempt("records", "POST /v1/grants", "answers the recipient's request with a grant", changes=State)
async def give(scene: Scene) -> Ask:
    platform, case = scene.cast.platform, scene.case
    grant = scene.caller.grant(
        case.recipient,
        proxies=[platform.proxy, platform.second],
        threshold=2,
        request=None if case.state is State.NONE else case.request_id,
        now=scene.now,
    )
    return Ask("/v1/grants", json=grant.as_json())


@attempt("records", "POST /v1/grants", "what the patient has signed", changes=State)
async def give_for_the_patient(scene: Scene) -> Ask:
    platform, owner = scene.cast.platform, scene.cast.owner
    proxies = [platform.proxy, platform.second]
    grant = owner.grant(scene.case.recipient, proxies=proxies, threshold=2, now=scene.now)
    return Ask("/v1/grants", json=grant.as_json())


@attempt("records", "GET /v1/grants", "lists those it has given")
async def given(scene: Scene) -> Ask:
    return Ask("/v1/grants", params={"box": "given", "limit": 100}, shows=scene.case.grant.token)


@attempt("records", "GET /v1/grants", "lists those it holds", who=the_recipient)
async def held(scene: Scene) -> Ask:
    return Ask("/v1/grants", params={"box": "held", "limit": 100}, shows=scene.case.grant.token)


@attempt("records", "GET /v1/grants/{grant}", "the grant", who=the_recipient)
async def one_grant(scene: Scene) -> Ask:
    return Ask(f"/v1/grants/{scene.case.grant.id}", shows=scene.case.grant.token)


@attempt("records", "POST /v1/revocations", "ends the grant", changes=State)
async def revoke(scene: Scene) -> Ask:
    statement = scene.caller.revocation(scene.case.recipient, scene.case.grant.id, now=scene.now)
    return Ask("/v1/revocations", json={"statement": statement})


@attempt("records", "POST /v1/revocations", "what the patient has signed", changes=State)
async def revoke_for_the_patient(scene: Scene) -> Ask:
    statement = scene.cast.owner.revocation(scene.case.recipient, scene.case.grant.id, now=scene.now)
    return Ask("/v1/revocations", json={"statement": statement})


@attempt("records", "POST /v1/disclosures", "a record that the grant covers", who=the_recipient)
async def disclose(scene: Scene) -> Ask:
    allergy = scene.cast.allergy
    wanted = scene.caller.reencryption_request(scene.case.grant.id, [(0, allergy.capsule_hash)], now=scene.now)
    return Ask("/v1/disclosures", json={"request": wanted}, shows=allergy.manifest)


@attempt("records", "POST /v1/disclosures", "a record of another scope, under the grant", who=the_recipient)
async def disclose_other_scope(scene: Scene) -> Ask:
    pills = scene.cast.pills
    wanted = scene.caller.reencryption_request(scene.case.grant.id, [(0, pills.capsule_hash)], now=scene.now)
    return Ask("/v1/disclosures", json={"request": wanted}, shows=pills.manifest)


@attempt("records", "POST /v1/disclosures", "what the recipient has signed", who=the_recipient)
async def disclose_for_the_recipient(scene: Scene) -> Ask:
    allergy, recipient = scene.cast.allergy, scene.case.recipient
    wanted = recipient.reencryption_request(scene.case.grant.id, [(0, allergy.capsule_hash)], now=scene.now)
    return Ask("/v1/disclosures", json={"request": wanted}, shows=allergy.manifest)


@attempt("records", "GET /v1/me/audit", "reads its log")
async def audit(scene: Scene) -> Ask:
    return Ask("/v1/me/audit", params={"limit": 100}, shows=scene.cast.owner.did)


@attempt("records", "POST /v1/me/audit/erasures", "has texts of its log erased")
async def erase(scene: Scene) -> Ask:
    statement = scene.caller.log_erasure(RECORDS_AUDIENCE, 1, now=scene.now)
    return Ask("/v1/me/audit/erasures", json={"statement": statement})


@attempt("records", "POST /v1/me/audit/erasures", "what the patient has signed")
async def erase_for_the_patient(scene: Scene) -> Ask:
    statement = scene.cast.owner.log_erasure(RECORDS_AUDIENCE, 1, now=scene.now)
    return Ask("/v1/me/audit/erasures", json={"statement": statement})


@attempt("records", "GET /v1/me/events", "all notices of its own from the first on", who=the_recipient)
async def events(scene: Scene) -> Ask:
    return Ask("/v1/me/events", headers={"last-event-id": "0"}, shows=scene.case.grant.id)


def _writing(scene: Scene, grant: str) -> Ask:
    """A new record by the caller; the patient needs no grant."""
    owner = scene.cast.owner
    named = None if scene.role is Role.OWNER else grant
    record = scene.caller.record(owner, "allergies", grant=named, now=scene.now)
    return Ask("/v1/records", json={"records": [record.as_json()]})


async def _to_be_denied(scene: Scene) -> str:
    """The request that the grant answers; where it is still open, a new one for the patient, who does deny it."""
    if scene.case.state is State.REQUESTED and scene.role is Role.OWNER:
        return await scene.cast.asked(scene.case.recipient)
    return scene.case.request_id
