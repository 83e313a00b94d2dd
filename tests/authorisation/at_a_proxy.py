"""Attempts at a proxy. What writes is authorised by the signed statement alone."""

from __future__ import annotations

from shared import statements as st
from shared.crypto.sealing import seal
from shared.encoding import b64url
from tests.authorisation.attempts import Ask, Scene, attempt, the_recipient
from tests.authorisation.matrix import Role, State
from tests.services.signing_parties import SignedGrant

NOT_GIVEN = (State.NONE, State.REQUESTED)


@attempt(
    "proxy", "POST /v1/kfrags", "its share of the grant, as whoever may give the grant has signed it", changes=NOT_GIVEN
)
async def store(scene: Scene) -> Ask:
    grant = scene.case.grant if scene.entitled or scene.role is Role.OWNER else _own_grant(scene)
    return _share(scene, grant)


@attempt("proxy", "POST /v1/kfrags", "the patient's grant with a share that the caller has made")
async def store_another_share(scene: Scene) -> Ask:
    box = b64url(seal(scene.cast.platform.proxy.sealing_key().public_key, b"\0" * 260))
    return Ask("/v1/kfrags", json={"grant": scene.case.grant.token, "sealed": box}, shows=scene.case.grant.id)


@attempt("proxy", "POST /v1/reencryptions", "a capsule that the grant covers", who=the_recipient)
async def reencrypt(scene: Scene) -> Ask:
    allergy = scene.cast.allergy
    wanted = scene.caller.reencryption_request(scene.case.grant.id, [(0, allergy.capsule_hash)], now=scene.now)
    body = {"request": wanted, "capsules": [b64url(allergy.capsule)]}
    return Ask("/v1/reencryptions", json=body, shows=scene.case.grant.id)


@attempt("proxy", "POST /v1/reencryptions", "in the recipient's name, signed with its own key", who=the_recipient)
async def reencrypt_as_the_recipient(scene: Scene) -> Ask:
    allergy, recipient = scene.cast.allergy, scene.case.recipient
    claims = recipient.common("urn:pcehr:proxies", scene.now) | {
        "exp": scene.now + 300,
        "grant": scene.case.grant.id,
        "capsules": (st.WantedCapsule(entry=0, capsule=allergy.capsule_hash),),
    }
    wanted = st.sign(st.ReencryptionRequest(**claims), scene.caller.identity_key())
    body = {"request": wanted, "capsules": [b64url(allergy.capsule)]}
    return Ask("/v1/reencryptions", json=body, shows=scene.case.grant.id)


@attempt("proxy", "POST /v1/revocations", "ends the grant", changes=State)
async def revoke(scene: Scene) -> Ask:
    statement = scene.caller.revocation(scene.case.recipient, scene.case.grant.id, now=scene.now)
    return Ask("/v1/revocations", json={"revocation": statement})


@attempt("proxy", "POST /v1/revocations", "in the patient's name, signed with its own key", changes=State)
async def revoke_as_the_patient(scene: Scene) -> Ask:
    owner = scene.cast.owner
    claims = owner.common(scene.case.recipient.did, scene.now) | {"grant": scene.case.grant.id, "epochs": ()}
    statement = st.sign(st.Revocation(**claims), scene.caller.identity_key())
    return Ask("/v1/revocations", json={"revocation": statement})


@attempt("proxy", "POST /v1/witness/add-checkpoint", "the registry's newest checkpoint once more")
async def witness(scene: Scene) -> Ask:
    http, url = scene.cast.platform.http, scene.cast.platform.urls["proxy"]
    found = (await http.get(f"{url}/v1/witness/checkpoints")).json()["items"]
    [note] = [item["checkpoint"] for item in found if item["origin"].startswith("pcehr/registry/")]
    content = f"old {note.splitlines()[1]}\n\n{note}"
    return Ask("/v1/witness/add-checkpoint", content=content, headers={"content-type": "text/plain"})


@attempt("proxy", "GET /v1/witness/checkpoints", "asks")
async def checkpoints(_: Scene) -> Ask:
    return Ask("/v1/witness/checkpoints")


@attempt("proxy", "GET /v1/identity", "asks")
async def identity(_: Scene) -> Ask:
    return Ask("/v1/identity")


@attempt("proxy", "GET /v1/audit", "reads its log")
async def audit(scene: Scene) -> Ask:
    return Ask("/v1/audit", params={"limit": 100}, shows=scene.cast.owner.did)


@attempt("proxy", "POST /v1/audit/erasures", "has texts of its log erased")
async def erase(scene: Scene) -> Ask:
    statement = scene.caller.log_erasure(scene.cast.platform.proxy.did, 1, now=scene.now)
    return Ask("/v1/audit/erasures", json={"statement": statement})


@attempt("proxy", "POST /v1/audit/erasures", "what the patient has signed")
async def erase_for_the_patient(scene: Scene) -> Ask:
    statement = scene.cast.owner.log_erasure(scene.cast.platform.proxy.did, 1, now=scene.now)
    return Ask("/v1/audit/erasures", json={"statement": statement})


def _own_grant(scene: Scene) -> SignedGrant:
    """A grant that the caller gives the recipient, over keys of the caller's own."""
    platform = scene.cast.platform
    return scene.caller.grant(
        scene.case.recipient, proxies=[platform.proxy, platform.second], threshold=2, now=scene.now
    )


def _share(scene: Scene, grant: SignedGrant) -> Ask:
    body = {"grant": grant.token, "sealed": grant.shares[scene.cast.platform.proxy.did]}
    return Ask("/v1/kfrags", json=body, shows=scene.case.grant.id)
