"""Attempts at the registry."""

from __future__ import annotations

from typing import Any

from shared import statements as st
from shared.jose import parse
from shared.tokens import ASSERTION_TYPE_URN
from shared.wire import Role as Kind
from tests.authorisation.attempts import Ask, Scene, a_proxy, attempt, the_recipient
from tests.authorisation.matrix import Role
from tests.services.signing_parties import TestParty


@attempt("registry", "POST /v1/patients", "its own first key-entry")
async def sign_up_patient(scene: Scene) -> Ask:
    return Ask("/v1/patients", json={"key_entry": scene.caller.entries[0]}, shows=scene.cast.owner.did)


@attempt("registry", "POST /v1/patients", "another first key-entry in the patient's name")
async def sign_up_again(scene: Scene) -> Ask:
    entry = _resigned(scene.cast.owner.entries[0], st.KeyEntry, scene.caller, jti=st.new_jti())
    return Ask("/v1/patients", json={"key_entry": entry})


@attempt("registry", "POST /v1/recipients", "its own first key-entry", who=the_recipient)
async def sign_up_recipient(scene: Scene) -> Ask:
    return Ask("/v1/recipients", json={"key_entry": scene.caller.entries[0]})


@attempt("registry", "POST /v1/proxies", "its own first key-entry", who=a_proxy)
async def sign_up_proxy(scene: Scene) -> Ask:
    return Ask("/v1/proxies", json={"key_entry": scene.caller.entries[0]})


@attempt("registry", "POST /v1/proxies", "the first key-entry of a proxy that the operator has not admitted")
async def sign_up_stranger(scene: Scene) -> Ask:
    stranger = TestParty(Kind.PROXY, issued=scene.now)
    return Ask("/v1/proxies", json={"key_entry": stranger.entries[0]})


@attempt("registry", "POST /v1/parties/{did}/keys", "the next key-entry of a patient")
async def rotate(scene: Scene) -> Ask:
    # Not of the patient whom all else is about: its keys would be others afterwards.
    patient = await scene.cast.platform.signed_up(Kind.PATIENT)
    entry = patient.next_entry(scene.now)
    if not scene.entitled and scene.role is not Role.OWNER:
        entry = _resigned(entry, st.KeyEntry, scene.caller)
    return Ask(f"/v1/parties/{patient.did}/keys", json={"key_entry": entry})


@attempt("registry", "GET /v1/parties/{did}", "the patient, whose id it knows")
async def party(scene: Scene) -> Ask:
    return Ask(f"/v1/parties/{scene.cast.owner.did}", shows=scene.cast.owner.did)


@attempt("registry", "GET /v1/recipients", "lists")
async def recipients(_: Scene) -> Ask:
    return Ask("/v1/recipients", params={"limit": 100})


@attempt("registry", "GET /v1/proxies", "lists")
async def proxies(_: Scene) -> Ask:
    return Ask("/v1/proxies", params={"limit": 100})


@attempt("registry", "PUT /v1/patients/{did}/scope-keys", "a scope-key of its own for the patient")
async def publish(scene: Scene) -> Ask:
    key = scene.caller.scope_key("imaging", now=scene.now)
    return Ask(f"/v1/patients/{scene.cast.owner.did}/scope-keys", json={"scope_keys": [key]})


@attempt("registry", "PUT /v1/patients/{did}/scope-keys", "a scope-key in the patient's name")
async def publish_for_the_patient(scene: Scene) -> Ask:
    owner = scene.cast.owner
    key = _resigned(owner.scope_key("procedures", now=scene.now), st.ScopeKey, scene.caller)
    return Ask(f"/v1/patients/{owner.did}/scope-keys", json={"scope_keys": [key]})


@attempt("registry", "GET /v1/patients/{did}/scope-keys", "all of the patient's")
async def all_scope_keys(scene: Scene) -> Ask:
    owner = scene.cast.owner
    shows = owner.delegating_key("allergies").public_key().b64
    return Ask(f"/v1/patients/{owner.did}/scope-keys", shows=shows)


@attempt("registry", "GET /v1/patients/{did}/scope-keys", "those of a scope whose id it knows")
async def scope_keys(scene: Scene) -> Ask:
    owner = scene.cast.owner
    shows = owner.delegating_key("allergies").public_key().b64
    params = {"scope": owner.scope_id("allergies")}
    return Ask(f"/v1/patients/{owner.did}/scope-keys", params=params, shows=shows)


@attempt("registry", "POST /v1/oauth/token", "a token for itself")
async def token(scene: Scene) -> Ask:
    return _asking_for_a_token(scene, scene.caller.did)


@attempt("registry", "POST /v1/oauth/token", "a token in the patient's name")
async def token_of_the_patient(scene: Scene) -> Ask:
    return _asking_for_a_token(scene, scene.cast.owner.did)


@attempt("registry", "GET /.well-known/jwks.json", "asks")
async def jwks(_: Scene) -> Ask:
    return Ask("/.well-known/jwks.json")


@attempt("registry", "GET /.well-known/oauth-authorization-server", "asks")
async def authorization_server(_: Scene) -> Ask:
    return Ask("/.well-known/oauth-authorization-server")


@attempt("registry", "GET /.well-known/pcehr", "asks")
async def discovery(_: Scene) -> Ask:
    return Ask("/.well-known/pcehr")


@attempt("registry", "GET /v1/log/entries", "asks")
async def entries(_: Scene) -> Ask:
    return Ask("/v1/log/entries", params={"start": 0, "limit": 10})


def _asking_for_a_token(scene: Scene, did: str) -> Ask:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE_URN,
        "client_assertion": scene.cast.platform.assertion(did, scene.caller.identity_key()),
        "resource": "urn:pcehr:records",
    }
    return Ask("/v1/oauth/token", form=form)


def _resigned(token: str, kind: type[st.Payload], signer: TestParty, **changes: Any) -> str:
    """The same claims in the name of the same issuer, signed with the key of whoever tries it."""
    claims = kind.model_validate_json(parse(token, typ=kind.typ, max_size=kind.max_size).unverified_payload)
    return st.sign(claims.model_copy(update=changes), signer.identity_key())
