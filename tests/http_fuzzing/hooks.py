"""What Schemathesis is told beside the documents: statements that are signed, and ids of things that are there.

Loaded by its process (`schemathesis.toml`). `PCEHR_FUZZ_STAGE` names the file with what the run knows, and
`PCEHR_FUZZ_STATUSES` the one that the statuses of all answers are counted in.
"""

from __future__ import annotations

import atexit
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as hs
from schemathesis import Case, HookContext, Response

from shared.encoding import b64url, sha256
from shared.errors import PcehrError
from shared.jose import parse
from shared.statements import KeyEntry
from tests.http_fuzzing.parties import Stage
from tests.http_fuzzing.statements import MAKERS, bodies

stage = Stage.load(Path(os.environ["PCEHR_FUZZ_STAGE"]))
statuses: Counter[str] = Counter()
"""By operation and status."""


def _operation(context: HookContext) -> str:
    assert context.operation is not None
    return f"{context.operation.method.upper()} {context.operation.path}"


@schemathesis.hook
def before_generate_body(context: HookContext, strategy: hs.SearchStrategy[Any]) -> hs.SearchStrategy[Any]:
    """Every other body holds what its issuer has signed."""
    operation = _operation(context)
    if operation == "POST /v1/witness/add-checkpoint":
        return hs.one_of(strategy, hs.just(stage.known.submission))
    make = MAKERS.get((stage.known.service, operation))
    return strategy if make is None else hs.one_of(strategy, bodies(stage, stage.speaker, make))


@schemathesis.hook
def flatmap_path_parameters(context: HookContext, path_parameters: dict[str, Any]) -> hs.SearchStrategy[Any]:
    """Every other path leads to something that is there."""
    if not path_parameters:
        return hs.just(path_parameters)
    known = stage.known
    there = {"did": stage.speaker.did, "record": known.record, "grant": known.grant, "sha256": known.body_hash}
    real = {name: there.get(name, value) for name, value in path_parameters.items()}
    return hs.sampled_from([path_parameters, real])


@schemathesis.hook
def flatmap_query(context: HookContext, query: dict[str, Any]) -> hs.SearchStrategy[Any]:
    """Every other grant that is asked about is there, and every other cursor is left out."""
    if not query or not {"grant", "cursor"} & query.keys():
        return hs.just(query)
    real = {name: value for name, value in query.items() if name != "cursor"}
    return hs.sampled_from([query, real | ({"grant": stage.known.grant} if "grant" in query else {})])


@schemathesis.hook
def map_case(context: HookContext, case: Case) -> Case:
    """Where the path has to fit the body, it does every other time."""
    operation, body = _operation(context), case.body
    if operation == "PUT /v1/blobs/{sha256}" and isinstance(body, bytes) and len(body) % 2:
        case.path_parameters["sha256"] = b64url(sha256(body))
    if operation == "POST /v1/parties/{did}/keys" and isinstance(body, dict):
        case.path_parameters["did"] = _issuer(body.get("key_entry")) or case.path_parameters["did"]
    return case


@schemathesis.hook
def after_call(context: HookContext, case: Case, response: Response) -> None:
    """Count what came back."""
    statuses[f"{case.operation.method.upper()} {case.operation.path} {response.status_code}"] += 1


def _issuer(token: object) -> str | None:
    try:
        claims = json.loads(parse(str(token), typ=KeyEntry.typ, max_size=KeyEntry.max_size).unverified_payload)
        return str(claims["iss"])
    except (PcehrError, ValueError, KeyError, TypeError):
        return None


@atexit.register
def _save() -> None:
    Path(os.environ["PCEHR_FUZZ_STATUSES"]).write_text(json.dumps(statuses), "utf-8")
