"""What was acknowledged, written down outside the platform at the moment it was.

`Observed` stands between a client and the network. It reads every answer that acknowledges something, and writes a line
of JSON with the ids of the statements into a file, flushed to disk, before the client is given that answer. Neither the
client's memory nor its state has a part in it, so that a client that is killed a moment later takes nothing along.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from shared.encoding import b64url, from_b64url, sha256


@dataclass(frozen=True)
class Signed:
    """A statement by its id (SHA-256 of its signing input, base64url) and its claims."""

    id: str
    claims: dict[str, Any]

    @classmethod
    def of(cls, token: str) -> Self:
        signing_input = token.rpartition(".")[0]
        return cls(b64url(sha256(signing_input.encode())), json.loads(from_b64url(signing_input.partition(".")[2])))


@dataclass(frozen=True)
class Entry:
    """One acknowledgement: what kind of thing was accepted, the statements' ids and claims, the receipts that came with
    it as (proxy, token), and for `seen` the events that were shown as (number, commitment, text)."""

    kind: str
    url: str
    statements: list[Signed] = field(default_factory=list)
    receipts: list[tuple[str, str]] = field(default_factory=list)
    seen: list[tuple[int, str, str | None]] = field(default_factory=list)


_ROUTES = [
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"POST /v1/(?:patients|recipients|parties/[^/]+/keys)", "key_entry"),
        (r"PUT /v1/patients/[^/]+/scope-keys", "scope_keys"),
        (r"POST /v1/records", "records"),
        (r"PUT /v1/blobs/[^/]+", "blob"),
        (r"POST /v1/disclosure-requests", "request"),
        (r"POST /v1/denials", "denial"),
        (r"POST /v1/grants", "grant"),
        (r"POST /v1/revocations", "revocation"),
        (r"POST /v1/disclosures", "disclosure"),
        (r"POST /v1/(?:me/)?audit/erasures", "erasure"),
        (r"GET /v1/(?:me/)?audit", "seen"),
    )
]


class Observed(httpx.AsyncBaseTransport):
    """A transport that notes in `path` what the answers acknowledge. The file is made, and only ever added to."""

    def __init__(self, path: Path) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._ledger = path.open("ab")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        kind = kind_of(request.method, request.url.path)
        # A body that streams, of a blob, is not looked into: its name is its hash.
        sent = await request.aread() if kind not in (None, "blob") else b""
        response = await self._inner.handle_async_request(request)
        if kind is None or not response.is_success:
            return response
        answer = await response.aread()
        self._note(entry_of(kind, request.url, sent, answer))
        return httpx.Response(response.status_code, headers=response.headers, content=answer)

    async def aclose(self) -> None:
        await self._inner.aclose()
        # The client closes its transport once for each kind of address that goes through it.
        self._ledger.close()

    def _note(self, entry: Entry) -> None:
        self._ledger.write(json.dumps(asdict(entry)).encode() + b"\n")
        self._ledger.flush()
        os.fsync(self._ledger.fileno())


def kind_of(method: str, path: str) -> str | None:
    """What an answer to this request acknowledges; None for one that changes nothing."""
    return next((kind for pattern, kind in _ROUTES if pattern.fullmatch(f"{method} {path}")), None)


def entry_of(kind: str, url: httpx.URL, sent: bytes, answer: bytes) -> Entry:
    """The line of the ledger for one answer."""
    body = json.loads(sent) if sent else {}
    said = json.loads(answer) if answer else {}
    tokens = [body[name] for name in ("statement", "key_entry", "grant", "request", "revocation") if name in body]
    tokens += [*body.get("scope_keys", ()), *(record["manifest"] for record in body.get("records", ()))]
    receipts = [(one["proxy"], one["receipt"]) for one in said.get("receipts", ())]
    if "receipt" in said:
        receipts.append((Signed.of(said["receipt"]).claims["iss"], said["receipt"]))
    seen = [(one["n"], one["commitment"], one.get("event")) for one in said.get("items", ())] if kind == "seen" else []
    return Entry(kind, str(url), [Signed.of(token) for token in tokens], receipts, seen)


def read(path: Path) -> Iterator[Entry]:
    """The entries of a ledger in their order. A last line cut off by a kill acknowledged nothing to anybody."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        found = json.loads(line)
        yield Entry(
            found["kind"],
            found["url"],
            [Signed(**one) for one in found["statements"]],
            [(proxy, token) for proxy, token in found["receipts"]],
            [(n, commitment, text) for n, commitment, text in found["seen"]],
        )
