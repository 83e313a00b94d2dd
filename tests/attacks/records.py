"""Swapping and rolling back records: what a records service tries on those who read."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client.records import Placement, seal_record
from shared.encoding import b64url, sha256
from shared.statements import Revocation
from shared.wire import Action, Role
from tests.attacks.disclosures import DISCLOSURES as DISCLOSED
from tests.attacks.lying import Asked, Json, Refusal
from tests.attacks.stage import Party, Stage
from tests.attacks.table import AUTHOR, PATIENT, RECIPIENT, RECORDS, RECORDS_AT_REST, attack
from tests.e2e.actors import Actor, note

VERSIONS = "GET /v1/records/{}"
HISTORY = "GET /v1/records/*/history"
LIST = "GET /v1/records"
MINE = "GET /v1/me/records"

WITH_AUTHOR = f"{RECORDS} and an author"


async def read(stage: Stage, record_id: str, *, memory: bool = True) -> list[str]:
    """The patient opens one of its records."""
    owner = await (stage.machine(stage.cast.owner) if memory else stage.new_machine(stage.cast.owner))
    opened = await owner.patient.read_record(record_id)
    assert opened.body in stage.cast.bodies
    return []


async def shown(stage: Stage, record_id: str) -> list[Json]:
    """All versions of a record as the service really has them."""
    owner = await stage.machine(stage.cast.owner)
    found = await owner.session.platform.record_versions(await owner.session.credentials(), record_id)
    return [one.model_dump(mode="json", exclude_none=True) for one in found]


def part_swapped(part: str) -> Callable[[Stage], Any]:
    """A part of the newest version is that of another record."""

    async def script(stage: Stage) -> list[str]:
        [other] = await shown(stage, stage.cast.pollen.record_id)

        def swap(page: Json) -> Json:
            return {**page, "items": [*page["items"][:-1], {**page["items"][-1], part: other[part]}]}

        stage.lie.change("records", VERSIONS.format(stage.cast.peanuts.record_id), swap)
        return await read(stage, stage.cast.peanuts.record_id)

    return script


for _part, _words in {
    "body": "the body",
    "header": "the header",
    "capsule": "the capsule",
    "wrapped_key": "the wrapped key",
}.items():
    attack(RECORDS_AT_REST, RECORDS, f"puts {_words} of another record into one", "record_swapped", by=PATIENT)(
        part_swapped(_part)
    )


@attack(RECORDS_AT_REST, RECORDS, "cuts the end of a body off", "record_swapped", by=PATIENT)
async def truncated(stage: Stage) -> list[str]:
    def cut(page: Json) -> Json:
        last = page["items"][-1]
        return {
            **page,
            "items": [*page["items"][:-1], {**last, "body": last["body"][: len(last["body"]) // 2 // 4 * 4]}],
        }

    stage.lie.change("records", VERSIONS.format(stage.cast.peanuts.record_id), cut)
    return await read(stage, stage.cast.peanuts.record_id)


@attack(RECORDS_AT_REST, RECORDS, "swaps a large body, which is fetched by itself", "record_swapped", by=PATIENT)
async def blob_swapped(stage: Stage) -> list[str]:
    async def flipped(asked: Asked) -> bytes:
        true = (await asked.truth()).content
        return true[:-1] + bytes([true[-1] ^ 1])

    stage.lie.answer("records", "GET /v1/blobs/*", flipped)
    return await read(stage, stage.cast.blood.record_id)


@attack(RECORDS_AT_REST, RECORDS, "answers with another record of the patient's", "unknown_record", by=PATIENT)
async def another_record(stage: Stage) -> list[str]:
    other = await shown(stage, stage.cast.pollen.record_id)
    stage.lie.answer("records", VERSIONS.format(stage.cast.peanuts.record_id), lambda asked: {"items": other})
    return await read(stage, stage.cast.peanuts.record_id)


@attack(RECORDS_AT_REST, RECORDS, "puts a record of another patient into the list", "record_swapped", by=PATIENT)
async def another_patients_record(stage: Stage) -> list[str]:
    other = await stage.machine(stage.cast.neighbour)
    heard = stage.lie.hear("records", MINE)
    await other.patient.records()
    false = heard[0]["items"]
    owner = await stage.machine(stage.cast.owner)
    stage.lie.change("records", MINE, lambda page: {**page, "items": [*page["items"], *false]})
    return [one.problem.code for one in await owner.patient.records() if one.problem]


@attack(RECORDS_AT_REST, RECORDS, "shows the version before the one that was seen", "record_rolled_back", by=PATIENT)
async def rolled_back(stage: Stage) -> list[str]:
    stage.lie.change(
        "records",
        VERSIONS.format(stage.cast.peanuts.record_id),
        lambda page: {**page, "items": page["items"][:-1]},
    )
    return await read(stage, stage.cast.peanuts.record_id)


@attack(RECORDS_AT_REST, RECORDS, "leaves the first version of a record out", "record_rolled_back", by=PATIENT)
async def first_version_missing(stage: Stage) -> list[str]:
    stage.lie.change(
        "records", VERSIONS.format(stage.cast.peanuts.record_id), lambda page: {**page, "items": page["items"][1:]}
    )
    return await read(stage, stage.cast.peanuts.record_id, memory=False)


@attack(RECORDS_AT_REST, RECORDS, "says that a record that was seen does not exist", "record_rolled_back", by=PATIENT)
async def record_hidden(stage: Stage) -> list[str]:
    def hidden(asked: Asked) -> Json:
        raise Refusal(404, "not_found")

    stage.lie.answer("records", VERSIONS.format(stage.cast.peanuts.record_id), hidden)
    return await read(stage, stage.cast.peanuts.record_id)


@attack(
    RECORDS_AT_REST,
    RECORDS,
    "writes a version itself and signs the manifest with its own key",
    "wrong_signer",
    by=PATIENT,
)
async def forged_manifest(stage: Stage) -> list[str]:
    forged = _sealed(stage, stage.cast.stranger, "a lie", version=3, grant=None, in_the_name_of=stage.cast.owner)
    _shows_also(stage, stage.cast.peanuts.record_id, forged)
    return await read(stage, stage.cast.peanuts.record_id)


# --- whose version it is ---------------------------------------------------------------------------------------------


@attack(
    RECORDS_AT_REST,
    WITH_AUTHOR,
    "show a version by a stranger, under a grant of somebody else's",
    "unauthorised_author",
    by=PATIENT,
)
async def foreign_authority(stage: Stage) -> list[str]:
    cast = stage.cast
    forged = _sealed(stage, cast.stranger, "a lie", version=2, grant=cast.writing.id)
    _shows_also(stage, cast.written.record_id, forged | {"authority": cast.writing.statement.token})
    return await read(stage, cast.written.record_id)


@attack(
    RECORDS_AT_REST,
    RECORDS,
    "shows a version without the grant that it was written under",
    "unauthorised_author",
    by=PATIENT,
)
async def authority_hidden(stage: Stage) -> list[str]:
    def hide(page: Json) -> Json:
        return {**page, "items": [{k: v for k, v in one.items() if k != "authority"} for one in page["items"]]}

    stage.lie.change("records", VERSIONS.format(stage.cast.written.record_id), hide)
    return await read(stage, stage.cast.written.record_id)


@attack(
    RECORDS_AT_REST,
    RECORDS,
    "shows another grant of the author's than the one that it wrote under",
    "unauthorised_author",
    by=PATIENT,
)
async def authority_swapped(stage: Stage) -> list[str]:
    other = stage.cast.reading.statement.token
    stage.lie.change(
        "records",
        VERSIONS.format(stage.cast.written.record_id),
        lambda page: {**page, "items": [{**one, "authority": other} for one in page["items"]]},
    )
    return await read(stage, stage.cast.written.record_id)


@attack(
    RECORDS_AT_REST,
    WITH_AUTHOR,
    "take in a version that was written after the grant was revoked",
    "unauthorised_author",
    by=PATIENT,
)
async def written_after_the_end(stage: Stage) -> list[str]:
    cast = stage.cast
    owner = await stage.machine(cast.owner)
    # The patient ends the grant on this machine; the revocation need not have arrived anywhere.
    revocation = await _revocation(owner, cast.writing.id, cast.clinic.did)
    forged = _sealed(stage, cast.clinic, "a lie", version=2, grant=cast.writing.id, now=int(time.time()) + 120)
    _shows_also(stage, cast.written.record_id, forged | {"authority": cast.writing.statement.token})
    owner.session.state.consents.remember_revocation(revocation)
    opened = await owner.patient.read_record(cast.written.record_id)
    assert opened.body in cast.bodies
    return []


@attack(
    RECORDS_AT_REST,
    WITH_AUTHOR,
    "write over a record of a scope that the author's grant does not cover",
    "unauthorised_author",
    by=PATIENT,
)
async def out_of_reach(stage: Stage) -> list[str]:
    cast = stage.cast
    forged = _sealed(
        stage,
        cast.clinic,
        "a lie",
        record=cast.pollen.record_id,
        version=2,
        prev=cast.pollen.manifest_id,
        grant=cast.writing.id,
    )
    _shows_also(stage, cast.pollen.record_id, forged | {"authority": cast.writing.statement.token})
    return await read(stage, cast.pollen.record_id)


@attack(
    RECORDS_AT_REST,
    WITH_AUTHOR,
    "show the patient another text of the version that was seen",
    "record_rolled_back",
    by=PATIENT,
)
async def version_forked(stage: Stage) -> list[str]:
    cast = stage.cast
    versions = await shown(stage, cast.pills.record_id)
    forged = _sealed(
        stage,
        cast.clinic,
        "amended",
        record=cast.pills.record_id,
        version=2,
        prev=cast.pills.manifest_id,
        grant=cast.writing.id,
    )
    false = [versions[0], forged | {"authority": cast.writing.statement.token}]
    stage.lie.answer("records", VERSIONS.format(cast.pills.record_id), lambda asked: {"items": false})
    return await read(stage, cast.pills.record_id)


@attack(
    RECORDS_AT_REST,
    RECORDS,
    "keeps the versions before an author's amendment from a reader",
    "record_rolled_back",
    by=RECIPIENT,
)
async def history_hidden(stage: Stage) -> list[str]:
    def hidden(asked: Asked) -> Json:
        raise Refusal(404, "not_found")

    stage.lie.answer("records", HISTORY, hidden)
    reader = await stage.new_machine(stage.cast.clinic)
    return await stage.fetch(reader, stage.cast.writing)


@attack(RECORDS_AT_REST, RECORDS, "shows the history of another record", "wrong_answer", by=RECIPIENT)
async def history_of_another(stage: Stage) -> list[str]:
    versions = await shown(stage, stage.cast.peanuts.record_id)
    false = {"items": [{"manifest": versions[0]["manifest"]}]}
    stage.lie.answer("records", HISTORY, lambda asked: false)
    reader = await stage.new_machine(stage.cast.clinic)
    return await stage.fetch(reader, stage.cast.writing)


@attack(RECORDS_AT_REST, RECORDS, "lists a record that the grant does not cover", "wrong_answer", by=RECIPIENT)
async def listed_beyond_the_grant(stage: Stage) -> list[str]:
    [other] = await shown(stage, stage.cast.blood.record_id)
    stage.lie.change("records", LIST, lambda page: {**page, "items": [*page["items"], other]})
    reader = await stage.machine(stage.cast.doctor)
    return await stage.fetch(reader, stage.cast.reading)


@attack(
    RECORDS_AT_REST,
    RECORDS,
    "lists an earlier version to a reader who has seen the newer one",
    "record_rolled_back",
    by=RECIPIENT,
)
async def reader_rolled_back(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    old = (await shown(stage, stage.cast.peanuts.record_id))[0]
    newest = stage.cast.peanuts.manifest_id

    def older(page: Json) -> Json:
        return {**page, "items": [old if _is(one, newest) else one for one in page["items"]]}

    stage.lie.change("records", LIST, older)
    return await stage.fetch(reader, stage.cast.reading)


@attack(RECORDS_AT_REST, RECORDS, "discloses another record than the one asked for", "wrong_answer", by=RECIPIENT)
async def another_disclosed(stage: Stage) -> list[str]:
    def swap(answer: Json) -> Json:
        first, second, *rest = answer["records"]
        swapped = [{**first, "record": second["record"]}, {**second, "record": first["record"]}]
        return {**answer, "records": [*swapped, *rest]}

    stage.lie.change("records", DISCLOSED, swap)
    reader = await stage.machine(stage.cast.doctor)
    return await stage.fetch(reader, stage.cast.reading)


@attack(RECORDS_AT_REST, RECORDS, "changes a body while it discloses it", "record_swapped", by=RECIPIENT)
async def body_changed(stage: Stage) -> list[str]:
    def change(answer: Json) -> Json:
        first, second, *rest = answer["records"]
        swapped = {**first, "record": {**first["record"], "body": second["record"]["body"]}}
        return {**answer, "records": [swapped, second, *rest]}

    stage.lie.change("records", DISCLOSED, change)
    reader = await stage.machine(stage.cast.doctor)
    return await stage.fetch(reader, stage.cast.reading)


@attack(
    RECORDS_AT_REST,
    RECORDS,
    "shows an author somebody else's grant, to have it write to that patient",
    "wrong_answer",
    by=AUTHOR,
)
async def written_to_another(stage: Stage) -> list[str]:
    writer, accomplice = await stage.machine(stage.cast.clinic), await stage.newcomer(Role.PATIENT)
    await accomplice.patient.add_scope("medications")
    other = await stage.give(accomplice, stage.cast.clinic.did, ["medications"], Action.APPEND)
    false = await writer.session.platform.grant(await writer.session.credentials(), other.id)
    stage.lie.answer("records", f"GET /v1/grants/{stage.cast.writing.id}", lambda asked: false.model_dump(mode="json"))
    await writer.author.append(stage.cast.writing.id, [note("written", "medications")])
    return []


# --- how -------------------------------------------------------------------------------------------------------------


def _shows_also(stage: Stage, record_id: str, forged: Json) -> None:
    stage.lie.change("records", VERSIONS.format(record_id), lambda page: {**page, "items": [*page["items"], forged]})


def _is(one: Json, manifest_id: str) -> bool:
    return b64url(sha256(one["manifest"].rpartition(".")[0].encode())) == manifest_id


async def _revocation(owner: Actor, grant_id: str, recipient: str) -> Any:
    return await owner.session.sign(Revocation, recipient, grant=grant_id, epochs=())


def _sealed(
    stage: Stage,
    author: Party,
    text: str,
    *,
    version: int,
    grant: str | None,
    record: str | None = None,
    prev: str | None = None,
    now: int | None = None,
    in_the_name_of: Party | None = None,
) -> Json:
    """A version that is well made but for who made it, as the service would show it."""
    cast = stage.cast
    own = cast.owner.keyring
    scope = "allergies" if grant is None else "medications"
    placement = Placement(
        patient=cast.owner.did,
        scope_id=own.scope_id(scope),
        epoch=0,
        delegating_key=own.delegating(scope, 0).public_key(),
        record_id=record or (cast.peanuts.record_id if grant is None else cast.written.record_id),
        version=version,
        prev=prev or (cast.peanuts.manifest_id if grant is None else cast.written.manifest_id),
        grant=grant,
    )
    sealed = seal_record(
        note(text, scope),
        placement,
        author=(in_the_name_of or author).did,
        key=author.keyring.identity(0),
        now=now or int(time.time()),
        folder=Path(),
    )
    return sealed.upload.model_dump(mode="json", exclude_none=True)
