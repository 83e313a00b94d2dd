"""Every operation of every service under Schemathesis: no server error, no undocumented status, nothing that does not
fit its schema; for a patient, a recipient, a proxy, and whoever has no token.

Every run of the suite tries one example of each operation as the patient, besides those that Schemathesis derives from
the schemas; `make fuzz-http` says in `PCEHR_FUZZ_EXAMPLES` how many more, and tries all speakers.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.http_fuzzing.conftest import Prepared
from tests.http_fuzzing.fuzz import Run, fuzz

WHOLE = "PCEHR_FUZZ_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("PCEHR_FUZZ_EXAMPLES", "1"))
ENOUGH = 100
"""Examples of each operation from which on every one must have been carried out at least once."""
REPORT = os.environ.get("PCEHR_FUZZ_REPORT")
"""The file that figures are added to, if any."""
SPEAKERS = ("patient", "recipient", "second", None) if WHOLE else ("patient",)


@pytest.mark.timeout(0 if WHOLE else 900)
@pytest.mark.parametrize("service", ["registry", "records", "proxy"])
async def test_nothing_breaks(prepared: Prepared, tmp_path: Path, service: str) -> None:
    runs = [await _run(prepared, service, speaker, tmp_path) for speaker in SPEAKERS]
    if EXAMPLES >= ENOUGH:
        document = prepared.platform.apps[service].openapi()
        operations = {
            f"{method.upper()} {path}"
            for path, methods in document["paths"].items()
            for method in methods
            if path != "/v1/me/events"
        }
        assert operations - set[str]().union(*(run.succeeded() for run in runs)) == set()


async def _run(prepared: Prepared, service: str, speaker: str | None, folder: Path) -> Run:
    platform = prepared.platform
    known = await prepared.known(service, speaker or "patient")
    token = None if speaker is None else await platform.token(prepared.parties[speaker], service)
    run = await fuzz(platform.urls[service], known, token, examples=EXAMPLES, folder=folder)
    name = f"{service}, {speaker or 'no token'}"
    if REPORT is not None:
        _report(f"{name}: {run.requests} requests\n{run.table()}\n", Path(REPORT))
    assert run.clean, f"{name}\n{run.output}"
    return run


def _report(text: str, path: Path) -> None:
    with path.open("a", encoding="utf-8") as report:
        report.write(text)
