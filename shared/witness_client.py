"""What a log asks of one witness, over HTTP (C2SP tlog-witness). Whatever is answered is bounded and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx
from pydantic import ValidationError

from shared.crypto.signing import VerifyKey
from shared.errors import PcehrError
from shared.identity import VerifiedParty
from shared.schemas.log import WitnessedCheckpoints
from shared.transparency.checkpoints import VerifiedCheckpoint, accept_cosignatures
from shared.transparency.witnessing import AddCheckpoint

ADD_PATH = "/v1/witness/add-checkpoint"
SHOW_PATH = "/v1/witness/checkpoints"
SIZE_TYPE = "text/x.tlog.size"
MAX_LINES_BYTES = 16 * 1024
"""A cosignature line takes some 200 bytes; a witness may send several, of keys that are not asked for."""
MAX_SHOWN_BYTES = 256 * 1024
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,17})\n")


@dataclass(frozen=True)
class Witness:
    """A proxy as the directory shows it: where it is reached, and the keys that it cosigns with."""

    did: str
    endpoint: str
    keys: frozenset[VerifyKey]

    @classmethod
    def of(cls, proxy: VerifiedParty) -> Witness:
        """The proxy as a witness: it cosigns with the identity key of its newest key-entry."""
        key = VerifyKey.from_bytes(proxy.current_identity_key)
        return cls(proxy.did, proxy.current.payload.endpoint or "", frozenset({key}))


class WitnessFailure(Exception):
    """A witness did not answer as the protocol asks. `code` names nobody and may be logged."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class OtherSize(Exception):
    """409: the witness has cosigned a checkpoint of this size last."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class NotConsistent(Exception):
    """422: the witness says that the proof does not lead from the checkpoint it knows to the new one."""


class WitnessClient:
    """Asks witnesses. How long that may take in all is for the caller to bound."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def add_checkpoint(
        self, witness: Witness, checkpoint: VerifiedCheckpoint, old: int, path: tuple[bytes, ...]
    ) -> str:
        """Hand over a checkpoint, with the proof that it extends the tree of size `old`; returns the witness's
        signature line, verified.

        Raises `OtherSize`, `NotConsistent`, and `WitnessFailure` for everything else that is no cosignature.
        """
        submission = AddCheckpoint(old, path, checkpoint.format()).format().encode("utf-8")
        url = witness.endpoint.rstrip("/") + ADD_PATH
        status, content_type, body = await self._exchange("POST", url, MAX_LINES_BYTES, submission)
        if status == 409 and content_type == SIZE_TYPE and _SIZE.fullmatch(body):
            raise OtherSize(int(body))
        if status == 422:
            raise NotConsistent
        if status != 200:
            raise WitnessFailure("witness_refused")
        return _own_line(witness, checkpoint, body)

    async def checkpoints(self, witness: Witness) -> list[str]:
        """The newest checkpoint that the witness has cosigned of each log, unverified. Raises `WitnessFailure`."""
        status, _, body = await self._exchange("GET", witness.endpoint.rstrip("/") + SHOW_PATH, MAX_SHOWN_BYTES)
        if status != 200:
            raise WitnessFailure("witness_refused")
        try:
            return [item.checkpoint for item in WitnessedCheckpoints.model_validate_json(body).items]
        except (ValidationError, PcehrError):
            raise WitnessFailure("witness_answer_invalid") from None

    async def _exchange(
        self, method: str, url: str, limit: int, content: bytes | None = None
    ) -> tuple[int, str, bytes]:
        """Status, media type without parameters, and body of at most `limit` bytes."""
        # Unpacking a compressed answer could make any amount of memory out of little, so none is accepted.
        headers = {"accept-encoding": "identity", "content-type": "text/plain; charset=utf-8"}
        data = bytearray()
        try:
            async with self._http.stream(
                method, url, content=content, headers=headers, follow_redirects=False
            ) as response:
                if "content-encoding" in response.headers:
                    raise WitnessFailure("witness_answer_invalid")
                async for chunk in response.aiter_raw():
                    data += chunk
                    if len(data) > limit:
                        raise WitnessFailure("witness_answer_invalid")
                content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                return response.status_code, content_type, bytes(data)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            raise WitnessFailure("witness_unreachable") from None


def _own_line(witness: Witness, checkpoint: VerifiedCheckpoint, body: bytes) -> str:
    """A line of the answer that is a cosignature by this witness; what others may have signed is ignored."""
    try:
        lines = accept_cosignatures(checkpoint, body, witness.did, witness.keys)
    except PcehrError:
        raise WitnessFailure("witness_answer_invalid") from None
    if not lines:
        raise WitnessFailure("witness_answer_invalid")
    return lines[0]
