"""Disclosures: re-encryptions and receipts that are false, missing, somebody else's, or another time's."""

from __future__ import annotations

import time
from typing import Any

from client.envelopes import Envelope, OpeningKeys, open_envelope
from client.verification import check_record
from shared.encoding import b64url, from_b64url, sha256
from shared.identity import verifying_key
from shared.schemas.records import RecordOut
from tests.attacks.keys import statement_id
from tests.attacks.lying import Asked, Json
from tests.attacks.stage import Stage
from tests.attacks.table import DISCLOSURES as GROUP
from tests.attacks.table import PROXY, RECIPIENT, RECORDS, attack

DISCLOSURES = "POST /v1/disclosures"
BOTH = f"{RECORDS} and a {PROXY}"


async def fetched(stage: Stage) -> list[str]:
    """The doctor fetches what one grant covers."""
    reader = await stage.machine(stage.cast.doctor)
    return await stage.fetch(reader, stage.cast.reading)


def change(stage: Stage, how: Any) -> None:
    stage.lie.change("records", DISCLOSURES, how)


def first_proxy(answer: Json) -> str:
    return str(answer["receipts"][0]["proxy"])


def with_receipt(answer: Json, proxy: str, receipt: str) -> Json:
    """The same answer with another receipt of this proxy's."""
    others = [one for one in answer["receipts"] if one["proxy"] != proxy]
    return {**answer, "receipts": [{"proxy": proxy, "receipt": receipt}, *others]}


def map_cfrags(answer: Json, how: Any) -> Json:
    """The same answer with the re-encryptions of each record changed."""
    return {**answer, "records": [{**one, "cfrags": how(one["cfrags"])} for one in answer["records"]]}


def hashes_of(answer: Json, proxy: str) -> list[str]:
    return [
        b64url(sha256(from_b64url(share["cfrag"])))
        for one in answer["records"]
        for share in one["cfrags"]
        if share["proxy"] == proxy
    ]


# --- receipts --------------------------------------------------------------------------------------------------------


@attack(GROUP, RECORDS, "serves records without any proxy's receipt", "receipt_invalid", by=RECIPIENT)
async def no_receipts(stage: Stage) -> list[str]:
    change(stage, lambda answer: {**answer, "receipts": []})
    return await fetched(stage)


@attack(GROUP, RECORDS, "withholds the receipt of one proxy", "receipt_invalid", by=RECIPIENT)
async def one_receipt_withheld(stage: Stage) -> list[str]:
    change(stage, lambda answer: {**answer, "receipts": answer["receipts"][1:]})
    return await fetched(stage)


@attack(GROUP, RECORDS, "signs a proxy's receipt with a key of its own", "receipt_invalid", by=RECIPIENT)
async def forged_receipt(stage: Stage) -> list[str]:
    async def forge(asked: Asked) -> Json:
        answer = await asked.said()
        proxy = first_proxy(answer)
        true = answer["receipts"][0]["receipt"]
        signed = true.rpartition(".")[0]
        key = stage.operators.log_key("records")
        return with_receipt(answer, proxy, f"{signed}.{b64url(key.sign(signed.encode()))}")

    stage.lie.answer("records", DISCLOSURES, forge)
    return await fetched(stage)


@attack(GROUP, RECORDS, "passes one proxy's receipt off as another's", "receipt_invalid", by=RECIPIENT)
async def receipt_of_another_proxy(stage: Stage) -> list[str]:
    def swap(answer: Json) -> Json:
        first, second, *rest = answer["receipts"]
        swapped = [{**first, "receipt": second["receipt"]}, {**second, "receipt": first["receipt"]}]
        return {**answer, "receipts": [*swapped, *rest]}

    change(stage, swap)
    return await fetched(stage)


@attack(GROUP, RECORDS, "hands over the receipts of an earlier disclosure", "receipt_invalid", by=RECIPIENT)
async def replayed_receipts(stage: Stage) -> list[str]:
    heard = stage.lie.hear("records", DISCLOSURES)
    await fetched(stage)
    earlier = {one["proxy"]: one["receipt"] for answer in heard for one in answer["receipts"]}

    def replay(answer: Json) -> Json:
        receipts = [{**one, "receipt": earlier.get(one["proxy"], one["receipt"])} for one in answer["receipts"]]
        return {**answer, "receipts": receipts}

    change(stage, replay)
    return await fetched(stage)


@attack(GROUP, PROXY, "signs a receipt that lists other re-encryptions than it made", "receipt_invalid", by=RECIPIENT)
async def receipt_of_other_cfrags(stage: Stage) -> list[str]:
    async def forge(asked: Asked) -> Json:
        answer = await asked.said()
        proxy = first_proxy(answer)
        hashes = [b64url(bytes(32)) for _ in hashes_of(answer, proxy)]
        return with_receipt(answer, proxy, receipt(stage, asked, proxy, hashes))

    stage.lie.answer("records", DISCLOSURES, forge)
    return await fetched(stage)


@attack(
    GROUP,
    PROXY,
    "signs a receipt for storing a share where it was asked to re-encrypt",
    "receipt_invalid",
    by=RECIPIENT,
)
async def receipt_of_another_act(stage: Stage) -> list[str]:
    async def forge(asked: Asked) -> Json:
        answer = await asked.said()
        proxy = first_proxy(answer)
        name = stage.operators.names[proxy]
        token = stage.operators.proxy(name).sign_receipt(
            audience=stage.cast.doctor.did,
            statement=statement_id(asked.json["request"]),
            grant=stage.cast.reading.id,
            act="stored",
            seq=1,
            now=int(time.time()),
        )
        return with_receipt(answer, proxy, token)

    stage.lie.answer("records", DISCLOSURES, forge)
    return await fetched(stage)


def receipt(stage: Stage, asked: Asked, proxy: str, hashes: list[str]) -> str:
    """A receipt that this proxy really signs."""
    return stage.operators.proxy(stage.operators.names[proxy]).sign_receipt(
        audience=stage.cast.doctor.did,
        statement=statement_id(asked.json["request"]),
        grant=stage.cast.reading.id,
        act="reencrypted",
        seq=1,
        now=int(time.time()),
        cfrags=hashes,
    )


# --- re-encryptions --------------------------------------------------------------------------------------------------


@attack(GROUP, PROXY, "returns a false re-encryption with a receipt that lists it", "cfrag_rejected", by=RECIPIENT)
async def false_cfrag(stage: Stage) -> list[str]:
    async def forge(asked: Asked) -> Json:
        answer = await asked.said()
        proxy = first_proxy(answer)
        false = map_cfrags(answer, lambda cfrags: [_broken(one, proxy) for one in cfrags])
        return with_receipt(false, proxy, receipt(stage, asked, proxy, hashes_of(false, proxy)))

    stage.lie.answer("records", DISCLOSURES, forge)
    return await fetched(stage)


@attack(GROUP, PROXY, "returns the re-encryption of another record's capsule", "cfrag_rejected", by=RECIPIENT)
async def cfrag_of_another_capsule(stage: Stage) -> list[str]:
    async def forge(asked: Asked) -> Json:
        answer = await asked.said()
        proxy = first_proxy(answer)
        own = [[share for share in one["cfrags"] if share["proxy"] == proxy] for one in answer["records"]]
        others = [[share for share in one["cfrags"] if share["proxy"] != proxy] for one in answer["records"]]
        turned = [*own[1:], own[0]]
        records = [
            {**one, "cfrags": [*mine, *rest]} for one, mine, rest in zip(answer["records"], turned, others, strict=True)
        ]
        false = {**answer, "records": records}
        return with_receipt(false, proxy, receipt(stage, asked, proxy, hashes_of(false, proxy)))

    stage.lie.answer("records", DISCLOSURES, forge)
    return await fetched(stage)


@attack(GROUP, BOTH, "pass one proxy's re-encryption off as a second proxy's", "receipt_invalid", by=RECIPIENT)
async def cfrag_duplicated(stage: Stage) -> list[str]:
    def duplicate(answer: Json) -> Json:
        return map_cfrags(answer, lambda cfrags: [{**one, "cfrag": cfrags[0]["cfrag"]} for one in cfrags])

    change(stage, duplicate)
    return await fetched(stage)


@attack(GROUP, RECORDS, "sends one proxy's re-encryption twice under one name", "wrong_answer", by=RECIPIENT)
async def proxy_named_twice(stage: Stage) -> list[str]:
    change(stage, lambda answer: map_cfrags(answer, lambda cfrags: [cfrags[0], cfrags[0]]))
    return await fetched(stage)


@attack(GROUP, RECORDS, "makes do with fewer proxies than the grant's threshold", "wrong_answer", by=RECIPIENT)
async def below_the_threshold(stage: Stage) -> list[str]:
    change(stage, lambda answer: map_cfrags(answer, lambda cfrags: cfrags[:1]))
    return await fetched(stage)


@attack(
    GROUP, RECORDS, "takes in a re-encryption by somebody whom the grant does not name", "wrong_answer", by=RECIPIENT
)
async def proxy_not_named(stage: Stage) -> list[str]:
    stranger = stage.cast.stranger.did
    change(stage, lambda answer: map_cfrags(answer, lambda cfrags: [{**cfrags[0], "proxy": stranger}, *cfrags[1:]]))
    return await fetched(stage)


@attack(GROUP, BOTH, "ask the lying proxy once more after it was told to be left out", "wrong_answer", by=RECIPIENT)
async def excluded_proxy_asked(stage: Stage) -> list[str]:
    liars: list[str] = []

    async def forge(asked: Asked) -> Json:
        body = asked.json
        if liars:
            honest = next(did for did in stage.operators.names if did != liars[0])
            body = {**body, "exclude": [honest]}
        answer = await asked.said(body)
        liars[:] = liars or [first_proxy(answer)]
        return map_cfrags(answer, lambda cfrags: [_broken(one, liars[0]) for one in cfrags])

    stage.lie.answer("records", DISCLOSURES, forge)
    return await fetched(stage)


@attack(GROUP, RECORDS, "answers with a disclosure under another grant", "wrong_answer", by=RECIPIENT)
async def another_grants_answer(stage: Stage) -> list[str]:
    change(stage, lambda answer: {**answer, "grant": stage.cast.ended.id})
    return await fetched(stage)


@attack(GROUP, RECORDS, "leaves a record out of the answer", "wrong_answer", by=RECIPIENT)
async def record_left_out(stage: Stage) -> list[str]:
    change(stage, lambda answer: {**answer, "records": answer["records"][1:]})
    return await fetched(stage)


# --- together --------------------------------------------------------------------------------------------------------


@attack(
    GROUP,
    f"recipient and fewer {PROXY}s than the threshold",
    "open a record with the re-encryptions of one proxy",
    "shares_do_not_combine",
    by="arithmetic",
)
async def too_few_together(stage: Stage) -> list[str]:
    return await _open_with(stage, stage.lie.instead(["proxy-1", "proxy-2"], ["proxy-1"]))


@attack(
    GROUP,
    f"recipient and fewer {PROXY}s than the threshold",
    "open a record with one proxy's re-encryption used twice",
    "shares_do_not_combine",
    by="arithmetic",
)
async def one_used_twice(stage: Stage) -> list[str]:
    return await _open_with(stage, stage.lie.instead(["proxy-1", "proxy-2"], ["proxy-1", "proxy-1"]))


@attack(
    GROUP,
    PROXY,
    "answers a recipient who asks it directly with the receipt of another statement",
    "receipt_invalid",
    by=RECIPIENT,
)
async def direct_receipt(stage: Stage) -> list[str]:
    reader = await stage.machine(stage.cast.doctor)
    grant = await reader.recipient.grant(stage.cast.nextdoor.id)
    records = await reader.recipient.listing(grant)
    heard = stage.lie.hear("proxy-1", "POST /v1/reencryptions")
    await reader.recipient.ask_proxy_directly(stage.operators.proxies["proxy-1"], grant, records)
    stage.lie.change("proxy-1", "POST /v1/reencryptions", lambda answer: {**answer, "receipt": heard[0]["receipt"]})
    await reader.recipient.ask_proxy_directly(stage.operators.proxies["proxy-1"], grant, records)
    return []


async def _open_with(stage: Stage, proxies: list[str]) -> list[str]:
    """The recipient goes past the records service and opens a record with what these proxies release to it."""
    reader = await stage.machine(stage.cast.doctor)
    session = reader.session
    grant = await reader.recipient.grant(stage.cast.nextdoor.id)
    heard = stage.lie.hear("records", "GET /v1/records")
    listed = await reader.recipient.listing(grant)
    wanted = next(one for one in listed if one.record_id == stage.cast.theirs.record_id)
    shown = next(RecordOut.model_validate(one) for one in heard[0]["items"] if one["manifest"] == wanted.manifest.token)
    record = check_record(shown, patient=grant.patient, author=grant.patient)
    released = [
        (await reader.recipient.ask_proxy_directly(stage.operators.proxies[name], grant, [wanted])).cfrags[0]
        for name in proxies
    ]
    keys = OpeningKeys(
        threshold=len(released),
        verifying_key=bytes(verifying_key(grant.patient_entry)),
        receiving_key=session.keyring.receiving(grant.recipient_entry.payload.seq),
    )
    envelope = Envelope(
        capsule=record.capsule,
        delegating_key=from_b64url(grant.statement.payload.scopes[wanted.entry].delegating_key, 33),
        wrapped_key=record.wrapped_key,
        cfrags=tuple(from_b64url(cfrag) for cfrag in released),
    )
    unwrapped = open_envelope(keys, envelope)
    return [] if unwrapped.fault is None else [unwrapped.fault.code]


def _broken(share: Json, proxy: str) -> Json:
    """One byte of the point in a re-encryption of this proxy's is another."""
    if share["proxy"] != proxy:
        return share
    data = bytearray(from_b64url(share["cfrag"]))
    data[-1] ^= 1
    return {**share, "cfrag": b64url(bytes(data))}
