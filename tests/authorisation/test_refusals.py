"""Every refusal has a test: each code that an OpenAPI document declares, with its status, is asserted by one.

What tests assert is looked up in the data of the matrix and in the sources of the service's tests, in the two ways in
which these name a problem: `403, "not_granted"` and `"403 not_granted"`.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from services.proxy.main import build as build_proxy
from services.records.main import build as build_records
from services.registry.main import build as build_registry
from shared.errors import PcehrError
from tests.authorisation.matrix import FOLDER
from tests.services.loopback import SERVICES
from tests.services.proxy.world import World as ProxyWorld
from tests.services.records.world import World as RecordsWorld
from tests.services.registry.running import settings_for

TESTS = FOLDER.parents[1]
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
_DECLARED = re.compile(r"`([a-z_]+)`:")
_ASSERTED = re.compile(r"""\b(\d{3}),\s*"([a-z_]+)"|"(\d{3}) ([a-z_]+)\"""")

Refusal = tuple[int, str]


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    apps = {
        "registry": build_registry(settings_for(NOWHERE)),
        "records": build_records(RecordsWorld(NOWHERE, Path("blobs")).settings()),
        "proxy": build_proxy(ProxyWorld(NOWHERE).settings()),
    }
    return {service: app.openapi() for service, app in apps.items()}


def declared(document: dict[str, Any]) -> set[Refusal]:
    """Status and code of every problem in a document."""
    return {
        (int(status), code)
        for operations in document["paths"].values()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if status.isdigit() and status[0] in "45"
        for code in _DECLARED.findall(answer["description"])
    }


def asserted(*sources: str) -> set[Refusal]:
    """Status and code of every problem that these texts want."""
    found = [match for source in sources for match in _ASSERTED.findall(source)]
    return {(int(status or other), code or named) for status, code, other, named in found}


def sources_for(service: str) -> list[str]:
    """The sources of a service's tests, with those of what all services share."""
    folders = [TESTS / "services" / service, TESTS / "services" / "log", TESTS / "unit" / "web"]
    paths = [path for folder in folders for path in folder.rglob("test_*.py")]
    paths += [FOLDER / f"{service}.toml", TESTS / "services" / "test_rates.py"]
    return [path.read_text("utf-8") for path in paths]


@pytest.mark.parametrize("service", SERVICES)
def test_every_refusal_of_a_service_has_a_test(documents: dict[str, dict[str, Any]], service: str) -> None:
    assert declared(documents[service]) - asserted(*sources_for(service)) == set()


@pytest.mark.parametrize("service", SERVICES)
def test_every_error_of_a_service_is_declared(documents: dict[str, dict[str, Any]], service: str) -> None:
    """An error that is in no document would be refused without a word of it beforehand."""
    module = importlib.import_module(f"services.{service}.errors")
    own = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    errors = {(item.status, item.code) for item in own if issubclass(item, PcehrError)}
    assert errors
    assert errors - declared(documents[service]) == set()


def test_a_refusal_that_no_test_wants_is_noticed() -> None:
    document = {"paths": {"/": {"get": {"responses": {"403": {"description": "`made_up`: No."}}}}}}
    assert declared(document) - asserted('refused(answer, 403, "not_granted")', 'x = "404 made_up"') == {
        (403, "made_up")
    }
    assert declared(document) - asserted('refused(answer, 403, "made_up")') == set()
