"""Routes of the registry: parse, call one use case, return."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from services.registry.domain import PartyCard
from services.registry.errors import (
    AlreadyRegistered,
    EpochGap,
    InvalidTarget,
    InvalidTokenRequest,
    JtiReused,
    ProxyNotAdmitted,
    ScopeKeyExists,
    StaleKeyEntry,
    UnsupportedGrantType,
    WrongRole,
)
from services.registry.service import GRANT_TYPE, Page, Registry
from shared import wire
from shared.crypto.errors import BadSignature, MalformedKeyMaterial
from shared.crypto.signing import VerifyKey
from shared.errors import (
    DatabaseUnavailable,
    Forbidden,
    Malformed,
    PcehrError,
    QuotaExceeded,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from shared.identity import BrokenChain
from shared.jose import ALGORITHM
from shared.registry_client import UnknownParty
from shared.schemas.common import MAX_PAGE, Cursor
from shared.schemas.examples import example
from shared.schemas.registry import (
    MAX_SCOPE_KEYS,
    AuthorizationServer,
    Discovery,
    Jwks,
    KeyRotation,
    Party,
    PartyPage,
    PatientSignUp,
    ProxySignUp,
    RecipientSignUp,
    ScopeKeyPage,
    ScopeKeysIn,
    TokenRequest,
    TokenResponse,
)
from shared.statements import StatementFromTheFuture, WrongAudience, WrongSigner
from shared.tokens import ACCESS_TOKEN_LIFETIME, InvalidClient, jwk
from shared.web.access import Authorized
from shared.web.problems import MEDIA_TYPE, problem_response, responses
from shared.wire import Role

DESCRIPTION = """\
Who takes part, and with which keys. Every party is known by the `did:key` of its first identity key; its keys are a
chain of signed entries that proves itself, so the registry is trusted with being there and with nothing else.

To sign up, post the first key-entry of your chain: the examples below can be posted as they are. To read with the
operations that have a padlock, get an access token (`pcehr token --service registry`) and paste it under *Authorize*.
"""

TAGS = [
    {"name": "sign-up", "description": "Register a patient, a recipient or a proxy, and change keys later."},
    {"name": "directory", "description": "Find parties and their chains of keys. Patients are never listed."},
    {"name": "scope-keys", "description": "The public keys that records of a patient are encrypted to."},
    {"name": "tokens", "description": "OAuth 2.0 access tokens against an assertion signed with your identity key."},
    {"name": "discovery", "description": "Where the parts of the platform are."},
]

_KEY_ENTRY_BODY = 8 * 1024
BODY_LIMITS = {
    "POST /v1/patients": _KEY_ENTRY_BODY,
    "POST /v1/recipients": _KEY_ENTRY_BODY,
    "POST /v1/proxies": _KEY_ENTRY_BODY,
    "POST /v1/parties/": _KEY_ENTRY_BODY,
    "POST /v1/oauth/token": 16 * 1024,
}
"""Bytes; a batch of scope-keys has the limit that all services share."""

_STATEMENT = (Malformed, MalformedKeyMaterial, WrongSigner, BadSignature, WrongAudience, StatementFromTheFuture)
_SIGN_UP = (*_STATEMENT, BrokenChain, WrongRole, AlreadyRegistered, JtiReused, DatabaseUnavailable)


@dataclass(frozen=True)
class Published:
    """What the registry says of itself; lives in `app.state.published`."""

    issuer: str
    public_url: str
    records_url: str
    threshold: int
    key: VerifyKey
    registry_log: str
    records_log: str
    witness_faults: int

    @property
    def token_endpoint(self) -> str:
        return f"{self.public_url}/v1/oauth/token"

    @property
    def jwks_uri(self) -> str:
        return f"{self.public_url}/.well-known/jwks.json"


def _registry(request: Request) -> Registry:
    service: Registry = request.app.state.service
    return service


def _published(request: Request) -> Published:
    published: Published = request.app.state.published
    return published


Service = Annotated[Registry, Depends(_registry)]
About = Annotated[Published, Depends(_published)]
PartyDid = Annotated[wire.Did, Path(description="The party's id.", examples=[example("recipient_did")])]
PatientDid = Annotated[wire.Did, Path(description="The patient's id.", examples=[example("patient_did")])]
After = Annotated[Cursor | None, Query(description="`next` of the page before; leave it out for the first page.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="The most parties on the page; there may be fewer.")]

router = APIRouter()


@router.post(
    "/v1/patients",
    tags=["sign-up"],
    summary="Register a patient",
    status_code=201,
    response_model=Party,
    responses=responses(*_SIGN_UP),
)
async def sign_up_patient(body: PatientSignUp, service: Service) -> Party:
    """Post entry 0 of the patient's chain of keys. It carries no name, and no route ever lists patients.

    Posting the same entry again gives the same answer.
    """
    return _party(await service.sign_up(body.key_entry, Role.PATIENT))


@router.post(
    "/v1/recipients",
    tags=["sign-up"],
    summary="Register a recipient",
    status_code=201,
    response_model=Party,
    responses=responses(*_SIGN_UP),
)
async def sign_up_recipient(body: RecipientSignUp, service: Service) -> Party:
    """Post entry 0 of the chain of keys of a doctor, a hospital or an insurer. Its name and organisation appear in
    the directory; nobody has checked them, so compare ids where it matters."""
    return _party(await service.sign_up(body.key_entry, Role.RECIPIENT))


@router.post(
    "/v1/proxies",
    tags=["sign-up"],
    summary="Register a proxy",
    status_code=201,
    response_model=Party,
    responses=responses(*_SIGN_UP, ProxyNotAdmitted),
)
async def sign_up_proxy(body: ProxySignUp, service: Service) -> Party:
    """Post entry 0 of a proxy's chain of keys. The operator of the registry must have admitted the proxy's id before
    (`PCEHR_ADMITTED_PROXIES`)."""
    return _party(await service.sign_up(body.key_entry, Role.PROXY))


@router.post(
    "/v1/parties/{did}/keys",
    tags=["sign-up"],
    summary="Add the next key-entry",
    status_code=201,
    response_model=Party,
    responses=responses(*_STATEMENT, BrokenChain, UnknownParty, StaleKeyEntry, JtiReused, DatabaseUnavailable),
)
async def rotate(did: PartyDid, body: KeyRotation, service: Service) -> Party:
    """Change keys, name, organisation or endpoint: post the entry that follows the newest one, signed with the newest
    identity key. From then on the key before signs nothing new. On `stale_key_entry` fetch the chain and sign anew."""
    return _party(await service.rotate(did, body.key_entry))


@router.get(
    "/v1/parties/{did}",
    tags=["directory"],
    summary="A party and its chain of keys",
    response_model=Party,
    responses=responses(Malformed, UnknownParty, DatabaseUnavailable),
)
async def party(did: PartyDid, service: Service) -> Party:
    """The whole chain, oldest entry first. Verify it, and refuse one that does not extend what you have seen before."""
    return _party(await service.party(did))


@router.get(
    "/v1/recipients",
    tags=["directory"],
    summary="Find recipients",
    response_model=PartyPage,
    responses=responses(Malformed, DatabaseUnavailable),
)
async def recipients(
    service: Service,
    q: Annotated[
        wire.Label | None,
        Query(description="Part of a name or organisation, in upper or lower case.", examples=["hospital"]),
    ] = None,
    cursor: After = None,
    limit: Limit = 50,
) -> PartyPage:
    """Recipients by name. Go on with `next` until a page has none."""
    return _page(await service.recipients(q, cursor, limit))


@router.get(
    "/v1/proxies",
    tags=["directory"],
    summary="The admitted proxies",
    response_model=PartyPage,
    responses=responses(Malformed, DatabaseUnavailable),
)
async def proxies(service: Service, cursor: After = None, limit: Limit = 50) -> PartyPage:
    """Proxies that are registered and that the operator admits now."""
    return _page(await service.proxies(cursor, limit))


@router.put(
    "/v1/patients/{did}/scope-keys",
    tags=["scope-keys"],
    summary="Publish scope-keys",
    response_model=ScopeKeyPage,
    responses=responses(
        *_STATEMENT,
        Unauthenticated,
        Forbidden,
        UnknownParty,
        JtiReused,
        EpochGap,
        ScopeKeyExists,
        QuotaExceeded,
        DatabaseUnavailable,
    ),
)
async def publish_scope_keys(did: PatientDid, body: ScopeKeysIn, caller: Authorized, service: Service) -> ScopeKeyPage:
    """Publish delegating keys of your own scopes, each for epoch 0 or the next one. All are accepted or none.

    The answer has, in the order of the request, the statement that stands for each scope and epoch from now on: the
    one posted, or an earlier one with the same key.
    """
    return ScopeKeyPage(items=await service.publish_scope_keys(caller, did, body.scope_keys))


@router.get(
    "/v1/patients/{did}/scope-keys",
    tags=["scope-keys"],
    summary="Read scope-keys",
    response_model=ScopeKeyPage,
    responses=responses(Malformed, Unauthenticated, Forbidden, UnknownParty, DatabaseUnavailable),
)
async def scope_keys(
    *,
    did: PatientDid,
    caller: Authorized,
    service: Service,
    scope: Annotated[
        wire.ScopeId | None, Query(description="The scope id; only the patient itself may leave it out.")
    ] = None,
    cursor: After = None,
    limit: Annotated[int, Query(ge=1, le=MAX_SCOPE_KEYS, description="The most scope-keys on the page.")] = 50,
) -> ScopeKeyPage:
    """Scope-keys by scope id and epoch. Whoever is not the patient names a scope id that the patient has told it."""
    page = await service.scope_keys(caller, did, scope, cursor, limit)
    return ScopeKeyPage(items=page.items, next=page.next)


@router.get("/.well-known/jwks.json", tags=["discovery"], summary="Keys of access tokens", response_model=Jwks)
async def jwks(about: About) -> Jwks:
    """RFC 7517: what access tokens of this registry verify under."""
    return Jwks(keys=[jwk(about.key)])


@router.get(
    "/.well-known/oauth-authorization-server",
    tags=["discovery"],
    summary="What OAuth clients need to know",
    response_model=AuthorizationServer,
)
async def authorization_server(about: About) -> AuthorizationServer:
    """RFC 8414."""
    return AuthorizationServer(
        issuer=about.issuer,
        token_endpoint=about.token_endpoint,
        jwks_uri=about.jwks_uri,
        grant_types_supported=[GRANT_TYPE],
        response_types_supported=[],
        token_endpoint_auth_methods_supported=["private_key_jwt"],
        token_endpoint_auth_signing_alg_values_supported=[ALGORITHM],
    )


@router.get(
    "/.well-known/pcehr",
    tags=["discovery"],
    summary="Where the parts of the platform are",
    response_model=Discovery,
)
async def discovery(about: About) -> Discovery:
    """Start here: everything a client needs besides this registry's address."""
    return Discovery(
        issuer=about.issuer,
        token_endpoint=about.token_endpoint,
        jwks_uri=about.jwks_uri,
        records_url=about.records_url,
        threshold=about.threshold,
        registry_log=about.registry_log,
        records_log=about.records_log,
        witness_faults=about.witness_faults,
    )


class _TokenRoute(APIRoute):
    """Gives the problems of the token endpoint the members of RFC 6749 section 5.2 besides."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            refusal: PcehrError
            try:
                await _check_form(request)
                return await handle(request)
            except RequestValidationError:
                refusal = InvalidTokenRequest()
            except PcehrError as error:
                refusal = error
            return problem_response(refusal, error=_oauth_error(refusal), error_description=refusal.detail)

        return answer


tokens = APIRouter(route_class=_TokenRoute)

_OAUTH_PROBLEM = {
    "allOf": [
        {"$ref": "#/components/schemas/Problem"},
        {
            "type": "object",
            "required": ["error", "error_description"],
            "properties": {
                "error": {"type": "string", "description": "RFC 6749 section 5.2 and RFC 8707 section 2."},
                "error_description": {"type": "string"},
            },
        },
    ]
}


@tokens.post(
    "/v1/oauth/token",
    tags=["tokens"],
    summary="Get an access token",
    response_model=TokenResponse,
    responses={
        **responses(InvalidTokenRequest, UnsupportedGrantType, InvalidTarget, InvalidClient, DatabaseUnavailable),
        "4XX": {
            "description": "Every problem but what is refused before the request is read, `too_large` and an address's"
            " `too_many_requests`, has the members of RFC 6749 section 5.2 besides.",
            "content": {MEDIA_TYPE: {"schema": _OAUTH_PROBLEM}},
        },
    },
)
async def token(form: Annotated[TokenRequest, Form()], response: Response, service: Service) -> TokenResponse:
    """Exchange an assertion, signed with your current identity key, for a token for one service, good for five
    minutes. Sign a new assertion for every token. `pcehr token` does all of this."""
    access_token = await service.issue_token(
        grant_type=form.grant_type,
        assertion_type=form.client_assertion_type,
        unverified_assertion=form.client_assertion,
        client_id=form.client_id,
        resource=form.resource,
    )
    # RFC 6749 section 5.1 asks for both; all answers of the platform have `Cache-Control: no-store` anyway.
    response.headers["Pragma"] = "no-cache"
    return TokenResponse(
        access_token=access_token,
        token_type="Bearer",  # noqa: S106  The name of a scheme (RFC 6750), no password.
        expires_in=ACCESS_TOKEN_LIFETIME,
    )


async def _check_form(request: Request) -> None:
    """RFC 6749 section 3.2: form-encoded, and no parameter twice. Raises `InvalidTokenRequest`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise InvalidTokenRequest
    names = [name for name, _ in (await request.form()).multi_items()]
    if len(set(names)) != len(names):
        raise InvalidTokenRequest


def _oauth_error(refusal: PcehrError) -> str:
    if isinstance(refusal, InvalidClient | UnsupportedGrantType | InvalidTarget):
        return refusal.code
    return "temporarily_unavailable" if isinstance(refusal, Unavailable | TooManyRequests) else "invalid_request"


def _party(card: PartyCard) -> Party:
    return Party(**asdict(card))


def _page(page: Page) -> PartyPage:
    return PartyPage(items=[_party(card) for card in page.items], next=page.next)
