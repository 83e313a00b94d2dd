"""The way to the proxies. What they answer is bounded, parsed and checked before anybody uses it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import httpx
from cachetools import LRUCache
from pydantic import ValidationError

from services.records.domain import refused_for_good
from services.records.figures import Asked, Figures
from shared.encoding import b64url, from_b64url, sha256
from shared.errors import PcehrError
from shared.identity import VerifiedParty
from shared.registry_client import PartyDirectory
from shared.schemas.common import Body, Problem
from shared.schemas.proxy import KfragsIn, ReceiptOut, ReencryptionIn, ReencryptionOut, RevocationIn
from shared.statements import Receipt, ReencryptionRequest, Verified, verify_stored
from shared.web.logs import log_unexpected
from shared.wire import ReceiptAct, Role

MAX_ANSWER = 256 * 1024
"""Bytes; 200 cfrags and a receipt take half of it."""
MAX_LATENCIES = 1_000
_WEIGHT = 0.3
"""How much the last answer counts in the average; the rest is what was known before."""
log = logging.getLogger("pcehr.records.proxies")
_CODE = re.compile(r"[a-z][a-z_]{0,63}")

Answer = TypeVar("Answer", bound=Body)


class ProxyFailure(Exception):
    """A proxy did not do what it was asked. `code` may be shown; `for_good` says that asking again is of no use, and
    `outcome` as what it counts."""

    def __init__(self, code: str, *, for_good: bool = False, outcome: Asked = Asked.FAILED) -> None:
        super().__init__(code)
        self.code = code
        self.for_good = for_good
        self.outcome = outcome


class _Unusable(ProxyFailure):
    """An answer, or a receipt in it, that does not hold."""

    def __init__(self, code: str = "proxy_answer_invalid") -> None:
        super().__init__(code, outcome=Asked.MALFORMED)


@dataclass(frozen=True)
class Reencryption:
    """One proxy's cfrags, in the order of the request, with the receipt that lists them; the receipt has been
    verified, the cfrags have not, since only the recipient must."""

    proxy: str
    cfrags: list[str]
    receipt: str


class Proxies:
    """Talks to proxies at the endpoints in their key-entries, and remembers how long each takes to answer."""

    def __init__(
        self, http: httpx.AsyncClient, directory: PartyDirectory, figures: Figures, *, timeout_seconds: float
    ) -> None:
        self._figures = figures
        self._http = http
        self._directory = directory
        self._timeout = timeout_seconds
        self._latencies: LRUCache[str, float] = LRUCache(MAX_LATENCIES)

    @property
    def latencies(self) -> Mapping[str, float]:
        """Seconds that each proxy has taken to re-encrypt lately, as a moving average; failures count as time-outs."""
        return MappingProxyType(self._latencies)

    async def store(self, proxy: str, *, grant: str, grant_id: str, patient: str, sealed: str) -> str:
        """Hand a proxy its share of a grant; returns the receipt, verified. Raises `ProxyFailure`."""
        party = await self._resolve(proxy)
        answer = await self._post(party, "/v1/kfrags", KfragsIn(grant=grant, sealed=sealed), ReceiptOut)
        _check_receipt(party, answer.receipt, audience=patient, statement=grant_id, grant=grant_id, act="stored")
        return answer.receipt

    async def erase(self, proxy: str, *, revocation: str, revocation_id: str, grant_id: str, patient: str) -> str:
        """Hand a proxy a revocation; returns the receipt, verified. Raises `ProxyFailure`."""
        party = await self._resolve(proxy, for_less=True)
        answer = await self._post(party, "/v1/revocations", RevocationIn(revocation=revocation), ReceiptOut)
        _check_receipt(party, answer.receipt, audience=patient, statement=revocation_id, grant=grant_id, act="erased")
        return answer.receipt

    async def reencrypt(
        self, proxy: str, request: Verified[ReencryptionRequest], capsules: Sequence[str]
    ) -> Reencryption:
        """Have a proxy re-encrypt the capsules of a request, in its order. Raises `ProxyFailure`."""
        started = time.monotonic()
        try:
            party = await self._resolve(proxy)
            body = ReencryptionIn(request=request.token, capsules=list(capsules))
            answer = await self._post(party, "/v1/reencryptions", body, ReencryptionOut)
            receipt = _check_receipt(
                party,
                answer.receipt,
                audience=request.payload.iss,
                statement=request.id,
                grant=request.payload.grant,
                act="reencrypted",
            )
            hashes = tuple(b64url(sha256(from_b64url(cfrag))) for cfrag in answer.cfrags)
            if len(hashes) != len(capsules) or receipt.cfrags != hashes:
                raise _Unusable
        except ProxyFailure as failure:
            self._figures.asked[failure.outcome].inc()
            log.warning("a proxy was of no use", extra={"outcome": failure.outcome.value, "code": failure.code})
            self._remember(proxy, self._timeout)
            raise
        except Exception as error:
            # Whatever else a proxy's address or answer brings about is the proxy's failure, never the recipient's.
            log_unexpected(log, "unexpected while asking a proxy", error)
            self._figures.asked[Asked.MALFORMED].inc()
            self._remember(proxy, self._timeout)
            raise _Unusable from None
        except asyncio.CancelledError:
            self._figures.asked[Asked.SLOW].inc()
            # Others were faster. Without this a proxy that never answers in time would always count as not tried yet.
            self._remember(proxy, time.monotonic() - started)
            raise
        self._figures.asked[Asked.OK].inc()
        self._remember(proxy, time.monotonic() - started)
        return Reencryption(proxy, answer.cfrags, answer.receipt)

    def _remember(self, proxy: str, seconds: float) -> None:
        before = self._latencies.get(proxy, seconds)
        self._latencies[proxy] = before + _WEIGHT * (seconds - before)

    async def _resolve(self, proxy: str, *, for_less: bool = False) -> VerifiedParty:
        try:
            resolve = self._directory.resolve_for_less if for_less else self._directory.resolve
            party = await resolve(proxy)
        except PcehrError as error:
            raise ProxyFailure(error.code) from None
        if party.role is not Role.PROXY:
            raise ProxyFailure("refused", for_good=True)
        return party

    async def _post(self, party: VerifiedParty, path: str, body: Body, answer: type[Answer]) -> Answer:
        url = (party.current.payload.endpoint or "").rstrip("/") + path
        try:
            # The client's own time-outs are for each step; a proxy that drips its answer would outlast them.
            async with asyncio.timeout(self._timeout):
                status, data = await self._exchange(url, body.model_dump_json().encode("utf-8"))
        except (httpx.TimeoutException, TimeoutError):
            raise ProxyFailure("proxy_unreachable", outcome=Asked.SLOW) from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise ProxyFailure("proxy_unreachable") from None
        if status not in (200, 201):
            code = _problem_code(data)
            if code is None:
                raise _Unusable
            outcome = Asked.FAILED if status >= 500 else Asked.REFUSED
            raise ProxyFailure(code, for_good=refused_for_good(status, code), outcome=outcome)
        try:
            return answer.model_validate_json(data)
        except (ValidationError, PcehrError):
            # The second is what the members' own checks raise, which pydantic lets through.
            raise _Unusable from None

    async def _exchange(self, url: str, body: bytes) -> tuple[int, bytes]:
        # Unpacking a compressed answer could make any amount of memory out of little, so none is accepted.
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        data = bytearray()
        async with self._http.stream("POST", url, content=body, headers=headers, timeout=self._timeout) as response:
            if "content-encoding" in response.headers:
                raise _Unusable
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_ANSWER:
                    raise _Unusable
        return response.status_code, bytes(data)


def _check_receipt(
    proxy: VerifiedParty, token: str, *, audience: str, statement: str, grant: str, act: ReceiptAct
) -> Receipt:
    """The receipt, if it is this proxy's and says exactly this; raises `ProxyFailure`."""
    try:
        receipt = verify_stored(token, Receipt, proxy).payload
    except PcehrError:
        raise _Unusable("receipt_rejected") from None
    if (receipt.aud, receipt.statement, receipt.grant, receipt.act) != (audience, statement, grant, act):
        raise _Unusable("receipt_rejected")
    return receipt


def _problem_code(data: bytes) -> str | None:
    """The code of a proxy's problem document, or None for what is no such document or has no code to be shown."""
    try:
        code = Problem.model_validate_json(data).code
    except (ValidationError, PcehrError):
        return None
    return code if _CODE.fullmatch(code) else None
