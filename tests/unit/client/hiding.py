"""A records service that hides grants or revocations, for the tests of what clients remember."""

from __future__ import annotations

from typing import Any

from client.keyring import Keyring
from client.patient import Patient
from client.recipient import Recipient
from client.records import NewRecord
from client.reports import GrantReport
from client.state import ClientState
from shared.wire import Action, Purpose
from tests.unit.client.world import DAY, NOW, Problem, World

COMMON = ["allergies", "medications"]


def note(text: str, scope: str = "allergies") -> NewRecord:
    return NewRecord(body=text.encode(), media_type="text/plain", scope=scope, title=text)


async def share(owner: Patient, reader: Recipient, scope: str = "allergies", **options: Any) -> GrantReport:
    terms: dict[str, Any] = {"actions": [Action.READ], "purpose": Purpose.TREAT, "expires": NOW + 30 * DAY} | options
    return await owner.share(reader.session.did, scopes=[scope], **terms)


def again(world: World, owner: Patient, state: ClientState | None = None) -> Patient:
    """The same patient in another program or on another machine: with this state, or with nothing but the words."""
    keyring = Keyring.from_words(owner.session.keyring.words())
    return Patient(world.session(keyring, state), known_scopes=COMMON)


def hide_grants(world: World, *ids: str) -> None:
    """The records service says of these grants that they do not exist, and goes on using them."""
    answer = world._records

    def hiding(request: Any, parts: list[str], *rest: Any) -> Any:
        if request.method == "GET" and parts[1:2] == ["grants"]:
            if parts[2:] and parts[2] in ids:
                raise Problem("not_found", 404)
            found = answer(request, parts, *rest)
            if not parts[2:]:
                assert isinstance(found, dict)
                found["items"] = [shown for shown in found["items"] if shown["id"] not in ids]
            return found
        return answer(request, parts, *rest)

    world._records = hiding  # type: ignore[method-assign]


def hide_revocations(world: World, *ids: str) -> None:
    """The records service shows these grants as they were before they were revoked."""

    def before(shown: Any) -> None:
        if shown["id"] in ids:
            shown["revocation"] = None
            shown["proxies"] = [{**card, "erased": None} for card in shown["proxies"]]

    def tamper(line: str, answer: Any) -> Any:
        if line == "GET /v1/grants":
            for shown in answer["items"]:
                before(shown)
        elif line.startswith("GET /v1/grants/"):
            before(answer)
        return answer

    world.tamper = tamper


def sent(world: World, line: str) -> int:
    """How often a request has been made."""
    return world.log.count(line)
