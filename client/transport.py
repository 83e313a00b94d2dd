"""The platform as a client sees it: one method for each route of the registry, the records service and the proxies.

Nothing is verified here but the shape of the answers; what they say is believed nowhere before `client.verification`
has looked at it. Requests that need an access token take the `Credentials` of the party that asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from client.errors import AnswerTooLarge, ServiceRefused, UnexpectedAnswer
from client.http import Body, Http, Request, parse_json, repeatedly
from shared.clock import Clock, system_clock
from shared.encoding import b64url
from shared.errors import Malformed
from shared.schemas.common import Accepted
from shared.schemas.events import LogEventOut, LogEventPage
from shared.schemas.log import MAX_NOTE, ConsistencyOut, EntriesOut, InclusionOut, WitnessedCheckpoints
from shared.schemas.proxy import Identity, ReceiptOut, ReencryptionOut
from shared.schemas.records import (
    DisclosureOut,
    GrantOut,
    GrantPage,
    PastVersion,
    PastVersionPage,
    RecordIn,
    RecordOut,
    RecordPage,
    RecordsAccepted,
    RequestOut,
    RequestPage,
    SealedShare,
)
from shared.schemas.registry import Discovery, Party, PartyPage, ScopeKeyPage, TokenResponse
from shared.tokens import ASSERTION_TYPE_URN
from shared.wire import RECORDS_AUDIENCE, REGISTRY_AUDIENCE, Role

PAGE = 100
CONTENT_PAGE = 50
"""Records with their bodies come in smaller pages, to keep an answer below a few megabytes."""

_TOKEN_MARGIN = 30
"""Seconds before its end from which a token is not used any more."""

_MAX_PAGES = 100_000
_SIGN_UP = {Role.PATIENT: "patients", Role.RECIPIENT: "recipients", Role.PROXY: "proxies"}
_PIECE = 65_536
_MAX_STREAM = 16 * 1024 * 1024
"""Bytes; a stream lasts some minutes, and a notice has some hundred bytes."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Credentials:
    """Who asks: its id, and a function that signs a new client assertion for a token endpoint."""

    did: str
    make_assertion: Callable[[str], str]


class Platform:
    """The services behind one registry. Use it as an async context manager.

    `transport` replaces the network, for tests. All methods raise `ServiceRefused`, `ServiceUnreachable` or
    `UnexpectedAnswer`.
    """

    def __init__(
        self, registry_url: str, *, clock: Clock = system_clock, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.registry_url = registry_url.rstrip("/")
        self._clock = clock
        self._http = Http(transport)
        self._discovery: Discovery | None = None
        self._tokens: dict[tuple[str, str], tuple[str, int]] = {}
        self._token_lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    # --- registry ---------------------------------------------------------------------------------------------

    async def discovery(self) -> Discovery:
        """Where the parts of the platform are; asked once."""
        if self._discovery is None:
            self._discovery = await self._get(Discovery, f"{self.registry_url}/.well-known/pcehr")
        return self._discovery

    async def sign_up(self, role: Role, key_entry: str) -> None:
        """Register the first key-entry of a party."""
        await self._post(f"{self.registry_url}/v1/{_SIGN_UP[role]}", {"key_entry": key_entry})

    async def party(self, did: str) -> Party:
        """A party with its whole chain, unverified; `unknown_party` if there is none."""
        return await self._get(Party, f"{self.registry_url}/v1/parties/{did}")

    async def add_key_entry(self, did: str, key_entry: str) -> None:
        """Append the next key-entry of a party."""
        await self._post(f"{self.registry_url}/v1/parties/{did}/keys", {"key_entry": key_entry})

    async def recipients(self, query: str) -> AsyncIterator[Party]:
        """Recipients of the directory by name or organisation, unverified."""
        async for page in self._pages(PartyPage, f"{self.registry_url}/v1/recipients", {"q": query} if query else {}):
            for item in page.items:
                yield item

    async def proxies(self) -> AsyncIterator[Party]:
        """All proxies of the directory, unverified."""
        async for page in self._pages(PartyPage, f"{self.registry_url}/v1/proxies", {}):
            for item in page.items:
                yield item

    async def publish_scope_keys(self, who: Credentials, scope_keys: list[str]) -> None:
        """Publish a batch of the caller's scope-keys; all or none."""
        url = f"{self.registry_url}/v1/patients/{who.did}/scope-keys"
        await self._authorised(who, REGISTRY_AUDIENCE, Request("PUT", url, json={"scope_keys": scope_keys}))

    async def scope_keys(self, who: Credentials, patient: str, scope_id: str | None = None) -> AsyncIterator[str]:
        """Scope-keys of a patient by scope and epoch, unverified; only the patient may leave the scope out."""
        params: dict[str, str | int] = {} if scope_id is None else {"scope": scope_id}
        url = f"{self.registry_url}/v1/patients/{patient}/scope-keys"
        async for page in self._pages(ScopeKeyPage, url, params, who=who, audience=REGISTRY_AUDIENCE):
            for item in page.items:
                yield item

    async def token(self, who: Credentials, audience: str) -> str:
        """An access token of the caller for one service, from the cache while it lasts."""
        async with self._token_lock:
            cached = self._tokens.get((who.did, audience))
            if cached is not None and self._clock() < cached[1]:
                return cached[0]
            endpoint = (await self.discovery()).token_endpoint

            async def ask() -> TokenResponse:
                # An assertion is good for one use, so each attempt signs a new one.
                form = {
                    "grant_type": "client_credentials",
                    "client_assertion_type": ASSERTION_TYPE_URN,
                    "client_assertion": who.make_assertion(endpoint),
                    "resource": audience,
                }
                return _shape(TokenResponse, await self._http.send(Request("POST", endpoint, form=form)))

            answer = await repeatedly(ask)
            margin = min(_TOKEN_MARGIN, answer.expires_in // 2)
            self._tokens[who.did, audience] = (answer.access_token, self._clock() + answer.expires_in - margin)
            return answer.access_token

    # --- records service --------------------------------------------------------------------------------------

    async def add_records(self, who: Credentials, records: list[RecordIn]) -> list[Accepted]:
        """Store a batch of record versions, all or none; one answer for each, in order."""
        body = {"records": [record.model_dump(mode="json", exclude_none=True) for record in records]}
        answer = await self._records(who, RecordsAccepted, "POST", "/v1/records", json=body)
        if len(answer.items) != len(records):
            raise UnexpectedAnswer("The records service answered for another number of records.")
        return answer.items

    async def my_records(self, who: Credentials, *, content: bool = False) -> AsyncIterator[list[RecordOut]]:
        """Pages of the patient's records, newest version of each, with bodies if wanted."""
        limit = CONTENT_PAGE if content else PAGE
        async for page in self._record_pages(who, "/v1/me/records", {"content": "true"} if content else {}, limit):
            yield page.items

    async def granted_records(self, who: Credentials, grant_id: str) -> AsyncIterator[list[RecordOut]]:
        """Pages of the records that a grant covers, newest version of each, without bodies."""
        async for page in self._record_pages(who, "/v1/records", {"grant": grant_id}, PAGE):
            yield page.items

    async def record_versions(self, who: Credentials, record_id: str) -> list[RecordOut]:
        """All versions of a record that the caller may see, oldest first."""
        found: list[RecordOut] = []
        async for page in self._record_pages(who, f"/v1/records/{record_id}", {}, CONTENT_PAGE):
            found += page.items
        return found

    async def record_history(self, who: Credentials, record_id: str, version: int) -> list[PastVersion]:
        """The manifests before a version of a record, oldest first, as far as the caller needs them; unverified."""
        url = f"{(await self.discovery()).records_url.rstrip('/')}/v1/records/{record_id}/history"
        found: list[PastVersion] = []
        async for page in self._pages(PastVersionPage, url, {"version": version}, who=who, audience=RECORDS_AUDIENCE):
            found += page.items
        return found

    async def put_blob(self, who: Credentials, sha256: str, ciphertext: Path) -> None:
        """Upload a large ciphertext from a file, in constant memory."""
        url = f"{(await self.discovery()).records_url.rstrip('/')}/v1/blobs/{sha256}"
        length = await asyncio.to_thread(lambda: ciphertext.stat().st_size)
        request = Request("PUT", url, body=_file_body(ciphertext), length=length)
        await self._authorised(who, RECORDS_AUDIENCE, request)

    async def get_blob(self, who: Credentials, sha256: str, destination: Path, *, size: int) -> None:
        """Download a large ciphertext of `size` bytes to a file, in constant memory; its hash is not checked here."""
        url = f"{(await self.discovery()).records_url.rstrip('/')}/v1/blobs/{sha256}"

        async def download(token: str) -> None:
            with destination.open("wb") as file:
                async for piece in self._http.stream(Request("GET", url, token=token), limit=size):
                    file.write(piece)

        await self._with_token(who, RECORDS_AUDIENCE, download)

    async def file_request(self, who: Credentials, statement: str) -> Accepted:
        """File a disclosure request."""
        return await self._records(who, Accepted, "POST", "/v1/disclosure-requests", json={"statement": statement})

    async def requests(self, who: Credentials, box: Literal["inbox", "sent"]) -> AsyncIterator[RequestOut]:
        """Disclosure requests addressed to, or sent by, the caller."""
        url = f"{(await self.discovery()).records_url.rstrip('/')}/v1/disclosure-requests"
        async for page in self._pages(RequestPage, url, {"box": box}, who=who, audience=RECORDS_AUDIENCE):
            for item in page.items:
                yield item

    async def deny(self, who: Credentials, statement: str) -> Accepted:
        """Refuse a request."""
        return await self._records(who, Accepted, "POST", "/v1/denials", json={"statement": statement})

    async def give(self, who: Credentials, grant: str, shares: list[SealedShare]) -> Accepted:
        """File a grant with the sealed share of each proxy."""
        body = {"grant": grant, "shares": [share.model_dump(mode="json") for share in shares]}
        return await self._records(who, Accepted, "POST", "/v1/grants", json=body)

    async def grants(self, who: Credentials, box: Literal["given", "held"]) -> AsyncIterator[GrantOut]:
        """Grants that the caller gave or holds."""
        url = f"{(await self.discovery()).records_url.rstrip('/')}/v1/grants"
        async for page in self._pages(GrantPage, url, {"box": box}, who=who, audience=RECORDS_AUDIENCE):
            for item in page.items:
                yield item

    async def grant(self, who: Credentials, grant_id: str) -> GrantOut:
        """One grant."""
        return await self._records(who, GrantOut, "GET", f"/v1/grants/{grant_id}")

    async def revoke(self, who: Credentials, statement: str) -> Accepted:
        """Revoke a grant."""
        return await self._records(who, Accepted, "POST", "/v1/revocations", json={"statement": statement})

    async def disclose(self, who: Credentials, request: str, exclude: list[str]) -> DisclosureOut:
        """Have capsules re-encrypted by `t` proxies, none of them in `exclude`."""
        body = {"request": request, "exclude": exclude}
        return await self._records(who, DisclosureOut, "POST", "/v1/disclosures", json=body)

    async def events(self, who: Credentials, after: int | None) -> AsyncIterator[bytes]:
        """The bytes of one stream of server-sent events for the caller, after event number `after` or from now on.

        Tried once: whoever reads it knows best where to go on.
        """
        url = f"{(await self.discovery()).records_url.rstrip('/')}/v1/me/events"
        token = await self.token(who, RECORDS_AUDIENCE)
        request = Request("GET", url, token=token, last_event_id=after)
        async for piece in self._http.stream(request, limit=_MAX_STREAM):
            yield piece

    # --- logs -------------------------------------------------------------------------------------------------

    async def log_checkpoint(self, url: str) -> str:
        """The newest checkpoint that a service's log has published, unverified."""
        request = Request("GET", f"{url.rstrip('/')}/v1/log/checkpoint")
        data = await repeatedly(lambda: self._http.send(request, limit=MAX_NOTE))
        try:
            return data.decode()
        except UnicodeError:
            raise UnexpectedAnswer("A service sent something that is not a checkpoint.") from None

    async def log_inclusion(self, url: str, leaves: Sequence[bytes], known: int, *, attempts: int) -> InclusionOut:
        """Ask a service's log for proofs; what was written a moment ago is waited for."""
        body = {"leaves": [b64url(leaf) for leaf in leaves], "size": known}
        answer = await self._post(f"{url.rstrip('/')}/v1/log/inclusion", body, attempts=attempts)
        return _shape(InclusionOut, answer)

    async def log_events(self, who: Credentials, url: str, audience: str) -> AsyncIterator[LogEventOut]:
        """The caller's own events in the log of a service, reached at `url`, newest first; unverified."""
        path = "/v1/me/audit" if audience == RECORDS_AUDIENCE else "/v1/audit"
        async for page in self._pages(LogEventPage, f"{url.rstrip('/')}{path}", {}, who=who, audience=audience):
            for item in page.items:
                yield item

    async def log_consistency(self, url: str, old: int, new: int) -> ConsistencyOut:
        """Ask a service's log for the proof that it only grew."""
        return await self._get(ConsistencyOut, f"{url.rstrip('/')}/v1/log/consistency?from={old}&to={new}")

    async def log_entries(self, start: int, limit: int) -> EntriesOut:
        """What the registry's log holds from a place on."""
        return await self._get(EntriesOut, f"{self.registry_url}/v1/log/entries?start={start}&limit={limit}")

    async def witnessed(self, endpoint: str) -> WitnessedCheckpoints:
        """What a witness has cosigned last."""
        return await self._get(WitnessedCheckpoints, f"{endpoint.rstrip('/')}/v1/witness/checkpoints")

    # --- proxies, directly ------------------------------------------------------------------------------------

    async def proxy_identity(self, endpoint: str) -> Identity:
        """Who answers at a proxy's address, unverified."""
        return await self._get(Identity, f"{endpoint.rstrip('/')}/v1/identity")

    async def reencrypt_at(self, endpoint: str, request: str, capsules: list[str]) -> ReencryptionOut:
        """Ask one proxy to re-encrypt; the statement authorises."""
        body = {"request": request, "capsules": capsules}
        return _shape(ReencryptionOut, await self._post(f"{endpoint.rstrip('/')}/v1/reencryptions", body, attempts=2))

    async def revoke_at(self, endpoint: str, revocation: str) -> ReceiptOut:
        """Tell one proxy of a revocation; the statement authorises."""
        url = f"{endpoint.rstrip('/')}/v1/revocations"
        return _shape(ReceiptOut, await self._post(url, {"revocation": revocation}, attempts=1))

    # --- how --------------------------------------------------------------------------------------------------

    async def _get(self, shape: type[M], url: str) -> M:
        return _shape(shape, await repeatedly(lambda: self._http.send(Request("GET", url))))

    async def _post(self, url: str, body: dict[str, Any], *, attempts: int = 4) -> bytes:
        return await repeatedly(lambda: self._http.send(Request("POST", url, json=body)), attempts=attempts)

    async def _records(
        self, who: Credentials, shape: type[M], method: str, path: str, *, json: dict[str, Any] | None = None
    ) -> M:
        url = f"{(await self.discovery()).records_url.rstrip('/')}{path}"
        return _shape(shape, await self._authorised(who, RECORDS_AUDIENCE, Request(method, url, json=json)))

    async def _authorised(self, who: Credentials, audience: str, request: Request) -> bytes:
        answer = b""

        async def send(token: str) -> None:
            nonlocal answer
            answer = await self._http.send(
                Request(
                    request.method,
                    request.url,
                    params=request.params,
                    json=request.json,
                    body=request.body,
                    length=request.length,
                    token=token,
                )
            )

        await self._with_token(who, audience, send)
        return answer

    async def _with_token(self, who: Credentials, audience: str, send: Callable[[str], Any]) -> None:
        """Send with a token; when it is refused, once more with a new one."""
        token = await self.token(who, audience)
        try:
            await repeatedly(lambda: send(token))
        except ServiceRefused as refused:
            if refused.status != 401:
                raise
            if self._tokens.get((who.did, audience), ("", 0))[0] == token:
                del self._tokens[who.did, audience]
            fresh = await self.token(who, audience)
            await repeatedly(lambda: send(fresh))

    def forget_tokens(self, did: str) -> None:
        """Drop the cached tokens of a party, for instance when its keys were rotated."""
        for key in [key for key in self._tokens if key[0] == did]:
            del self._tokens[key]

    async def _record_pages(
        self, who: Credentials, path: str, params: dict[str, str | int], limit: int
    ) -> AsyncIterator[RecordPage]:
        url = f"{(await self.discovery()).records_url.rstrip('/')}{path}"
        async for page in self._pages(RecordPage, url, params, who=who, audience=RECORDS_AUDIENCE, limit=limit):
            yield page

    async def _pages(
        self,
        shape: type[M],
        url: str,
        params: dict[str, str | int],
        *,
        who: Credentials | None = None,
        audience: str = "",
        limit: int = PAGE,
    ) -> AsyncIterator[M]:
        """Pages of a list, until one has no successor."""
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            query = {**params, "limit": limit} | ({"cursor": cursor} if cursor else {})
            request = Request("GET", url, params=query)
            if who is None:
                data = await repeatedly(lambda request=request: self._http.send(request))  # type: ignore[misc]
            else:
                data = await self._authorised(who, audience, request)
            page = _shape(shape, data)
            yield page
            following: str | None = getattr(page, "next", None)
            if following is None:
                return
            if following == cursor:
                raise UnexpectedAnswer("A service's list does not get on.")
            cursor = following
        raise AnswerTooLarge("A service's list has no end.")


def _shape(shape: type[M], data: bytes) -> M:
    value = parse_json(data)
    try:
        return shape.model_validate(value)
    except (ValidationError, Malformed):
        # The second is what the members' own checks raise, which pydantic lets through.
        raise UnexpectedAnswer(f"A service sent something that is not a {shape.__name__}.") from None


def _file_body(path: Path) -> Body:
    async def pieces() -> AsyncIterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    return pieces
