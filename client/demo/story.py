"""The story: records are stored, disclosed, refused and withdrawn, while proxies fail.

Each chapter does something through the same client code that the command line uses, and claims what must follow.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from client.cli.documents import records_from_items
from client.demo.attempts import demand_disclosure, take_record
from client.demo.cast import Cast, assemble
from client.demo.compare import equal_count
from client.demo.ledger import Ledger
from client.demo.plan import Plan
from client.embedded.platform import EmbeddedPlatform
from client.fhir.bundle import BundleItem
from client.fhir.resource import Resource
from client.records import NewRecord
from client.reports import GrantReport, HeldGrant, ListedRecord, OpenedRecord, RevocationReport
from shared.clock import system_clock
from shared.schemas.records import RequestState
from shared.wire import Action, DenialReason, Purpose

DAY = 24 * 3600
SEALED_WITHIN = 60.0
"""Seconds after which a revocation that is still pending counts as failed."""

SAMPLE = 5
"""Records that are fetched again to see whether disclosure goes on."""


class Story:
    """What happens, chapter by chapter; `outcome` sums it up."""

    def __init__(self, ledger: Ledger, plan: Plan) -> None:
        self._ledger = ledger
        self._plan = plan
        self._stored: dict[str, str] = {}
        """Scope by id of each record of patient A."""
        self._opened: list[OpenedRecord] = []
        self._equal = 0
        self._own_equal = 0
        self._others = 0
        self._after: int = 0
        self._revocation: RevocationReport | None = None
        self._new_epoch: int | None = None

    async def tell(self, platform: EmbeddedPlatform) -> None:
        """Everything, from the start of the platform to the end of consent. The platform is stopped at the end."""
        async with AsyncExitStack() as stack:
            with self._ledger.step("platform", "The platform starts"):
                with self._ledger.output.working("Starting a database, a registry, a records service and 3 proxies…"):
                    await stack.enter_async_context(platform)
                self._ledger.tell(
                    "A registry knows public keys, a records service keeps ciphertexts, three independent proxies help"
                    " to disclose. None of them can read a record, and any two of the proxies must take part."
                )
            await self._chapters(platform, stack)

    async def _chapters(self, platform: EmbeddedPlatform, stack: AsyncExitStack) -> None:
        with self._ledger.step("sign_up", "Two patients, a hospital, a doctor's practice and an insurer sign up"):
            with self._ledger.output.working("Making keys…"):
                cast = await assemble(platform.registry_url, stack)
            self._ledger.tell("Each makes its keys on its own machine; the registry learns the public halves only.")
        await self._store(cast)
        grant = await self._consent(cast)
        held, listed = await self._disclose(cast, platform, grant)
        await self._refuse(cast, platform, held, listed)
        await self._fail(cast, platform, held, listed)
        await self._revoke(cast, held)
        await self._aftermath(cast, platform, held, listed)

    async def _store(self, cast: Cast) -> None:
        ledger, plan = self._ledger, self._plan
        with ledger.step("store", f"{len(plan.items)} records of patient A are encrypted and stored"):
            grant = await cast.patient.share(
                cast.hospital_did,
                scopes=plan.by_hospital,
                actions=[Action.APPEND],
                purpose=Purpose.TREAT,
                expires=system_clock() + 30 * DAY,
            )
            ledger.tell(f"Patient A lets the hospital write, not read: {', '.join(plan.by_hospital)}.")
            with ledger.output.progress("The hospital writes") as advance:
                written = await cast.hospital_author.append(
                    grant.id, records_from_items(*plan.share(plan.by_hospital)), advance
                )
            with ledger.output.progress("Patient A stores the rest") as advance:
                own = await cast.patient.add_records(records_from_items(*plan.share(plan.by_patient)), advance)
            ledger.tell(f"The hospital wrote {len(written)} records, the patient {len(own)}.")
            # Patient B's records are of the same kinds, so that only the keys keep them apart.
            items = list(plan.items[: min(SAMPLE, len(plan.items))])
            stored = await cast.other.add_records(records_from_items(items, list(plan.scopes[: len(items)])))
            ledger.tell(f"Patient B stores {len(stored)} of its own.")
            summaries = await cast.patient.records()
            self._stored = {summary.record_id: summary.scope or summary.scope_id for summary in summaries}
            ledger.claim("Every resource of the Bundle became one record", len(self._stored) == len(plan.items))
            with ledger.output.progress("Patient A reads everything back") as advance:
                back = await cast.patient.export(advance)
            self._own_equal = equal_count(back, plan.items)
            ledger.claim(
                f"Patient A reads back all {len(plan.items)}, each equal to the original",
                self._own_equal == len(back) == len(plan.items),
            )
            others = await cast.other.export()
            self._others = equal_count(others, items)
            ledger.claim(
                f"Patient B reads back its own {len(items)} and nothing else",
                self._others == len(others) == len(items),
            )
            own_record = next(summary for summary in summaries if summary.author == cast.patient_did)
            await ledger.refusal(
                "hospital_takes_a_record_of_the_patient",
                "the hospital, which may only write, asks for a record of the patient",
                take_record(cast.hospital.session, own_record.record_id),
                {"not_found"},
            )

    async def _consent(self, cast: Cast) -> GrantReport:
        ledger, plan = self._ledger, self._plan
        with ledger.step("consent", "The doctor asks; the patient gives less than was asked for"):
            reason = "First visit to the practice"
            request_id = await cast.doctor.request(
                cast.patient_did,
                scopes=plan.asked,
                actions=[Action.READ],
                purpose=Purpose.TREAT,
                reason=reason,
                expires=system_clock() + 30 * DAY,
            )
            ledger.tell(f"The doctor asks for: {', '.join(plan.asked)}.")
            inbox = [request for request in await cast.patient.inbox() if request.id == request_id]
            ledger.claim(
                "Patient A, and nobody else, reads what is asked for and why",
                len(inbox) == 1 and set(inbox[0].scopes) == set(plan.asked) and inbox[0].reason == reason,
            )
            with ledger.output.working("Making keys for the proxies…"):
                grant = await cast.patient.approve(request_id, scopes=plan.granted, expires=system_clock() + 90 * DAY)
            left_out = [name for name in plan.asked if name not in plan.granted]
            ledger.tell(f"The patient leaves out {', '.join(left_out)} and approves the rest for 90 days.")
            ledger.claim(
                f"{grant.stored} of {grant.shares} proxies have proved that they hold their share;"
                f" {grant.threshold} are needed",
                grant.stored >= grant.threshold >= 2,
            )
        return grant

    async def _disclose(
        self, cast: Cast, platform: EmbeddedPlatform, grant: GrantReport
    ) -> tuple[HeldGrant, list[ListedRecord]]:
        ledger, plan = self._ledger, self._plan
        with ledger.step("disclose", "The doctor opens what was granted"):
            held = await cast.doctor.grant(grant.id)
            listed = await cast.doctor.listing(held)
            with ledger.output.progress("The proxies re-encrypt, the doctor decrypts") as advance:
                report = await cast.doctor.fetch(grant.id, progress=advance)
            self._opened = report.opened
            expected = self._granted_ids()
            self._equal = equal_count(report.opened, plan.share(plan.granted)[0])
            ledger.claim(
                f"The doctor opened all {len(expected)} records granted, and no other",
                {record.record_id for record in report.opened} == expected and len(report.opened) == len(expected),
            )
            ledger.claim(
                f"All {self._equal} say exactly what the originals say",
                self._equal == len(report.opened) == len(plan.share(plan.granted)[0]),
            )
            ledger.claim(
                "Every signature, receipt and hash was verified", not report.problems and not report.lying_proxies
            )
            sample = listed[:SAMPLE]
            parts = [await cast.doctor.ask_proxy_directly(did, held, sample) for did in platform.proxy_dids.values()]
            ledger.claim(
                "Asked directly, each proxy re-encrypts its part for the doctor",
                all(len(part.cfrags) == len(sample) for part in parts),
            )
        return held, listed

    async def _refuse(
        self, cast: Cast, platform: EmbeddedPlatform, held: HeldGrant, listed: list[ListedRecord]
    ) -> None:
        ledger = self._ledger
        with ledger.step("refusals", "Everybody else is refused"):
            await ledger.refusal(
                "insurer_lists_the_doctors_records",
                "the insurer lists what the doctor was granted",
                cast.insurer.listing(held),
                {"not_found", "not_granted", "forbidden"},
            )
            await ledger.refusal(
                "insurer_demands_disclosure_under_the_doctors_grant",
                "the insurer demands re-encryption under the doctor's grant",
                demand_disclosure(cast.insurer.session, held, listed[:SAMPLE]),
                {"not_found", "not_granted"},
            )
            for name, did in platform.proxy_dids.items():
                await ledger.refusal(
                    f"insurer_asks_{name}_directly",
                    f"the insurer asks {name} to re-encrypt under the doctor's grant",
                    cast.insurer.ask_proxy_directly(did, held, listed[:SAMPLE]),
                    {"not_granted"},
                )
            record_id = listed[0].record_id
            await ledger.refusal(
                "patient_b_reads_a_record_of_patient_a",
                "patient B asks for a record of patient A",
                take_record(cast.other.session, record_id),
                {"not_found"},
            )
            outside = next((name for name in self._stored if name not in self._granted_ids()), None)
            if outside is not None:
                await ledger.refusal(
                    "doctor_takes_a_record_left_out",
                    "the doctor asks for a record that the patient left out",
                    take_record(cast.doctor.session, outside),
                    {"not_found"},
                )
            request_id = await cast.insurer.request(
                cast.patient_did,
                scopes=self._plan.granted,
                actions=[Action.READ],
                purpose=Purpose.HPAYMT,
                reason="Risk assessment",
                expires=system_clock() + 30 * DAY,
            )
            await cast.patient.deny(request_id, DenialReason.WRONG_PURPOSE)
            answer = next(request for request in await cast.insurer.requests() if request.id == request_id)
            ledger.claim(
                "The insurer asks, as it should have; patient A denies, and the insurer sees why",
                answer.state is RequestState.DENIED and answer.denial is DenialReason.WRONG_PURPOSE,
            )

    async def _fail(self, cast: Cast, platform: EmbeddedPlatform, held: HeldGrant, listed: list[ListedRecord]) -> None:
        ledger = self._ledger
        first, second, *_ = platform.proxy_dids
        sample = sorted(self._granted_ids())[:SAMPLE]
        with ledger.step("proxy_failures", "Proxies fail"):
            await platform.kill(first)
            report = await cast.doctor.fetch(held.id, record_ids=sample)
            ledger.claim(
                f"{first} crashes: the doctor still opens records, with the two that are left",
                {record.record_id for record in report.opened} == set(sample) and not report.problems,
            )
            await platform.kill(second)
            await ledger.refusal(
                "doctor_fetches_with_one_proxy_left",
                f"{second} crashes too, the doctor asks again, and nothing is disclosed",
                demand_disclosure(cast.doctor.session, held, listed[:SAMPLE]),
                {"not_enough_proxies"},
            )
            with ledger.output.working("The proxies come back…"):
                await platform.start(first)
                await platform.start(second)
            report = await cast.doctor.fetch(held.id, record_ids=sample)
            ledger.claim(
                "Both come back, with their shares: disclosure goes on",
                {record.record_id for record in report.opened} == set(sample) and not report.problems,
            )

    async def _revoke(self, cast: Cast, held: HeldGrant) -> None:
        ledger = self._ledger
        with ledger.step("revocation", "Patient A ends the doctor's access"):
            with ledger.output.working("Asking the proxies to erase their shares…"):
                report = await cast.patient.revoke(held.id)
            deadline = time.monotonic() + SEALED_WITHIN
            if report.state == "pending":
                ledger.tell(f"Pending at first: {report.receipts} of {report.needed} receipts are there. Waiting.")
            while report.state == "pending" and time.monotonic() < deadline:
                await asyncio.sleep(0.5)
                report = await cast.patient.revocation_status(held.id)
            self._revocation = report
            ledger.claim(
                f"Sealed: {report.receipts} of {report.shares} proxies have proved that they erased their share,"
                f" {report.needed} are needed",
                report.state == "sealed" and report.receipts >= report.needed,
            )
            ledger.claim(
                f"{report.already_disclosed} record versions had been disclosed; nothing can take these back,"
                " and the patient is told so",
                report.already_disclosed == len(self._opened),
            )

    async def _aftermath(
        self, cast: Cast, platform: EmbeddedPlatform, held: HeldGrant, listed: list[ListedRecord]
    ) -> None:
        ledger = self._ledger
        with ledger.step("after_revocation", "Afterwards"):
            await ledger.refusal(
                "doctor_lists_after_the_end",
                "the doctor lists the records again",
                cast.doctor.listing(held),
                {"not_found", "grant_revoked"},
            )
            await ledger.refusal(
                "doctor_demands_disclosure_after_the_end",
                "the doctor demands re-encryption once more",
                demand_disclosure(cast.doctor.session, held, listed[:SAMPLE]),
                {"grant_revoked", "not_found"},
            )
            for name, did in platform.proxy_dids.items():
                await ledger.refusal(
                    f"doctor_asks_{name}_directly_after_the_end",
                    f"the doctor asks {name} directly",
                    cast.doctor.ask_proxy_directly(did, held, listed[:SAMPLE]),
                    {"grant_revoked"},
                )
            scope = self._plan.granted[0]
            before = max(record.epoch for record in listed if record.scope == scope)
            added = await cast.patient.add_records([_late_record(scope)])
            self._new_epoch = added[0].epoch
            ledger.claim(
                f"What patient A writes from now on carries a new key: {scope}, epoch {before} → {self._new_epoch}",
                self._new_epoch > before,
            )
            with ledger.output.progress("Patient A reads everything back") as advance:
                back = await cast.patient.export(advance)
            self._after = len(back)
            ledger.claim(
                f"Patient A reads everything as before, all {self._after}",
                self._after == len(self._plan.items) + 1
                and equal_count(back, self._plan.items) == len(self._plan.items),
            )

    def outcome(self) -> dict[str, Any]:
        """The one document of `pcehr demo --json`."""
        revocation = self._revocation
        return {
            "bundle_resources": len(self._plan.items),
            "records_stored": len(self._stored),
            "granted_records": len(self._granted_ids()),
            "opened_records": len(self._opened),
            "opened_equal": self._equal,
            "refused": self._ledger.refused,
            "revocation_state": revocation.state if revocation else None,
            "receipts": revocation.receipts if revocation else 0,
            "receipts_needed": revocation.needed if revocation else 0,
            "already_disclosed": revocation.already_disclosed if revocation else 0,
            "new_epoch": self._new_epoch,
            "seconds": self._ledger.seconds,
            "checks": self._ledger.claims,
            "failed_checks": self._ledger.failed,
        }

    def readers(self) -> list[list[str]]:
        """Rows of the closing table: party, what it holds, what it could read before and after the end of consent."""
        total, granted = len(self._stored), len(self._opened)
        return [
            ["Patient A", "all its keys", f"{self._own_equal} of {total}", f"all {self._after}"],
            [
                "Doctor's practice",
                "consent",
                f"{granted} of {total}",
                f"nothing new; keeps the {granted} it read",
            ],
            ["Hospital", "leave to write", "only what it wrote itself", "the same"],
            ["Insurer", "nothing; was denied", "nothing", "nothing"],
            ["Patient B", "its own keys", f"nothing of A's; its own {self._others}", "the same"],
            ["Records service", "ciphertexts, no key", "nothing", "nothing"],
            ["Any one proxy", "one share of a grant", "nothing", "nothing; its share is erased"],
            ["Registry", "public keys", "nothing", "nothing"],
        ]

    def _granted_ids(self) -> set[str]:
        return {record_id for record_id, scope in self._stored.items() if scope in self._plan.granted}


def _late_record(scope: str) -> NewRecord:
    resource: Resource = {
        "resourceType": "Basic",
        "code": {"text": "Written after the doctor's access had ended"},
        "created": "2024-01-01",
    }
    return records_from_items([BundleItem(resource)], [scope])[0]
