"""The `pcehr` command on a machine outside the containers: a FHIR bundle in, disclosed, compared, withdrawn."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from client.fhir.bundle import read_bundle, same_resource
from client.fhir.scopes import ScopeMap
from tests.compose.stack import REPOSITORY, Stack

pytestmark = pytest.mark.compose

PROGRAM = Path(sys.executable).with_name("pcehr")
BUNDLE = REPOSITORY / "client" / "fhir" / "demo_bundle.json"


async def test_a_bundle_is_disclosed_compared_and_withdrawn(stack: Stack, tmp_path: Path) -> None:
    async def pcehr(profile: str, *arguments: str, status: int = 0) -> Any:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *(*arguments, "--json", "--registry", stack.registry_url, "--profile", profile),
            env={
                **os.environ,
                "PCEHR_HOME": str(tmp_path / "home"),
                "PCEHR_PASSPHRASE": "correct horse battery staple",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        assert process.returncode == status, (arguments, out[-500:], error[-500:])
        return json.loads(out)

    await pcehr("patient", "init", "patient", "--yes")
    await pcehr("practice", "init", "recipient", "--name", "Demo Practice", "--yes")
    await pcehr("patient", "records", "add", str(BUNDLE))
    did = (await pcehr("patient", "card"))["did"]
    asked = ("--scope", "allergies", "--scope", "laboratory", "--scope", "medications", "--reason", "Planned treatment")
    await pcehr("practice", "requests", "new", did, *asked)
    [request] = (await pcehr("patient", "requests", "list"))["requests"]
    chosen = ("--scope", "allergies", "--scope", "medications")
    await pcehr("patient", "approve", request["id"], *chosen, "--expires", "30d")

    opened = tmp_path / "opened.json"
    await pcehr("practice", "fetch", "-o", str(opened))
    items = read_bundle(BUNDLE.read_bytes())
    filed = zip(items, ScopeMap.load().scopes_for_bundle(items), strict=True)
    originals = {item.resource["id"]: item.resource for item, scope in filed if scope in {"allergies", "medications"}}
    disclosed = {item.resource["id"]: item.resource for item in read_bundle(opened.read_bytes())}
    assert disclosed.keys() == originals.keys()
    assert {resource["resourceType"] for resource in disclosed.values()} == {"AllergyIntolerance", "MedicationRequest"}
    assert all(same_resource(resource, originals[key]) for key, resource in disclosed.items())

    [grant] = (await pcehr("patient", "grants"))["grants"]
    revoked = await pcehr("patient", "revoke", grant["id"])
    assert revoked["state"] == "sealed"
    refused = await pcehr("practice", "fetch", grant["id"], status=1)
    assert refused["error"]["code"] == "grant_revoked"
