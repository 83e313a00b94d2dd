"""Bodies of the transparency logs' routes, which all services have."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from shared import wire
from shared.encoding import b64url, sha256
from shared.schemas.common import Body
from shared.schemas.examples import example

MAX_LEAVES = 200
MAX_ENTRIES = 1_000
MAX_PATH = 64
MAX_NOTE = 64 * 1024
"""Characters; the bound of a signed note (C2SP signed-note)."""

EXAMPLE_CHECKPOINT = (
    "pcehr/registry/z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd\n"
    "2\n"
    "hUaPdj7pkqeaNpj0dNYrJiExICzFeoHmUpqkDi/xr7M=\n"
    "\n"
    "\N{EM DASH} pcehr/registry/z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd "
    "B2WiLKgDNGwt6OF5MDQCDC2nDKqrp7ieBEg0UhQXX5V82fkHOL2ak3vdqPaWtHFSlwGIBBuJdi4b4/4jontLO4uHDAc=\n"
)
"""Signed by a key of which the whole world knows the seed."""
EXAMPLE_COSIGNATURE = f"\N{EM DASH} {example('proxy_did')} NnugSz…\n"
_DATA = [sha256(f"label {number}".encode()) + sha256(f"statement {number}".encode()) for number in (1, 2)]
_FIRST, _SECOND = (b64url(sha256(b"\x00" + data)) for data in _DATA)

MAX_SIZE = 2**53 - 1
"""The largest integer that JSON holds everywhere (RFC 7493)."""

Size = Annotated[int, Field(ge=0, le=MAX_SIZE)]
Path = Annotated[list[wire.Hash], Field(max_length=MAX_PATH)]


class InclusionIn(Body):
    """Leaf hashes, and the size of the tree that the caller knows."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"leaves": [_FIRST], "size": 1}]})
    leaves: list[wire.Hash] = Field(
        min_length=1, max_length=MAX_LEAVES, description="SHA-256(00 || data) of each leaf, 32 bytes in base64url."
    )
    # A number and nothing that can be read as one: what the schema does not allow is refused.
    size: Size = Field(
        strict=True, description="The size of the last checkpoint that you accepted; 0 if there is none."
    )


class Inclusion(Body):
    """Where one leaf stands, and the proof."""

    index: Size = Field(description="The leaf's place in the tree, from 0.")
    path: Path = Field(description="The audit path (RFC 6962 section 2.1.1), from the leaf's sibling up.")


class InclusionOut(Body):
    """The published checkpoint, the proof that it extends the tree known, and a proof for each leaf, in order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "checkpoint": EXAMPLE_CHECKPOINT,
                    "consistency": [_SECOND],
                    "items": [{"index": 0, "path": [_SECOND]}],
                }
            ]
        }
    )
    checkpoint: str = Field(max_length=MAX_NOTE, description="A signed note (C2SP tlog-checkpoint).")
    consistency: Path = Field(description="RFC 6962 section 2.1.2; empty if you know nothing, or this very tree.")
    items: list[Inclusion] = Field(max_length=MAX_LEAVES)


class ConsistencyOut(Body):
    """The proof that the later tree begins with the earlier one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": [_SECOND]}]})
    path: Path = Field(description="RFC 6962 section 2.1.2; empty from size 0 and between equal sizes.")


class EntriesOut(Body):
    """Data of consecutive leaves."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"size": 2, "items": [b64url(data) for data in _DATA]}]})
    size: Size = Field(description="The size of the published tree; there are no entries from there on.")
    items: list[Annotated[wire.B64, Field(max_length=86)]] = Field(
        max_length=MAX_ENTRIES, description="`label || statement id`, 64 bytes each, in the order of the tree."
    )


class WitnessedCheckpoint(Body):
    """What a witness cosigned last of one log."""

    origin: str = Field(max_length=200, description="The log's name, which holds its key.")
    checkpoint: str = Field(max_length=MAX_NOTE, description="The checkpoint, with the log's signature.")


class WitnessedCheckpoints(Body):
    """The newest checkpoint that a witness has cosigned of each log; proof against a log that has another history."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {"origin": EXAMPLE_CHECKPOINT.partition("\n")[0], "checkpoint": EXAMPLE_CHECKPOINT},
                    ]
                }
            ]
        }
    )
    items: list[WitnessedCheckpoint] = Field(max_length=100)
