"""Write `demo_bundle.json`: one fictitious patient, for demonstrations and tests.

Run as `python -m client.fhir.make_demo_bundle`. The output is committed beside this file, and the same program
gives the same bytes: no clock and no randomness, identifiers are UUIDv5 of names.

Nobody in it exists and every name says so. Codes are LOINC, SNOMED CT, RxNorm, CVX and HL7's own, as in
`scopes.toml`; required elements are those of FHIR R4 (v4.0.1).
"""

from __future__ import annotations

import base64
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from client.fhir.resource import Resource, dump_json, measure_depth

FILE_NAME: Final = "demo_bundle.json"

_HL7: Final = "http://terminology.hl7.org/CodeSystem/"
_LOINC: Final = "http://loinc.org"
_SNOMED: Final = "http://snomed.info/sct"
_RXNORM: Final = "http://www.nlm.nih.gov/research/umls/rxnorm"
_CVX: Final = "http://hl7.org/fhir/sid/cvx"
_UCUM: Final = "http://unitsofmeasure.org"

_YEARS: Final = (2018, 2019, 2020, 2021, 2022, 2023)

_VITALS: Final = (
    ("8302-2", "Body height", "cm", ("171.0", "171.0", "171.0", "171.5", "171.0", "171.0")),
    ("29463-7", "Body weight", "kg", ("70.20", "71.50", "72.05", "74.0", "73.10", "72.50")),
    ("39156-5", "Body mass index", "kg/m2", ("24.01", "24.45", "24.64", "25.16", "25.00", "24.79")),
    ("8867-4", "Heart rate", "/min", ("72", "68", "75", "80", "71", "70")),
    ("8310-5", "Body temperature", "Cel", ("36.6", "36.7", "36.50", "36.8", "36.6", "36.9")),
)

_LABS: Final = (
    ("2339-0", "Glucose", "mg/dL", ("98.0", "104.50", "101.0")),
    ("38483-4", "Creatinine", "mg/dL", ("0.90", "0.95", "0.910")),
    ("3016-3", "Thyrotropin", "m[IU]/L", ("1.50", "1.5", "2.10")),
    ("89579-7", "Troponin I, high sensitivity", "ng/mL", ("0.010", "0.012", "0.010")),
)


class _Builder:
    """Collects entries; the name given to each resource is what its identifier is made from."""

    def __init__(self) -> None:
        self.entries: list[Resource] = []

    def add(self, name: str, kind: str, /, **elements: Any) -> None:
        identifier = str(uuid5(NAMESPACE_URL, f"urn:pcehr:demo:{name}"))
        resource = {"resourceType": kind, "id": identifier, **elements}
        self.entries.append({"fullUrl": f"urn:uuid:{identifier}", "resource": resource})

    @staticmethod
    def ref(name: str) -> Resource:
        return {"reference": f"urn:uuid:{uuid5(NAMESPACE_URL, f'urn:pcehr:demo:{name}')}"}


def demo_bundle() -> bytes:
    """The Bundle as UTF-8 JSON, indented so that a change can be read in a diff."""
    builder = _Builder()
    for part in (_people, _check_ups, _laboratory, _everyday_care, _mind, _sexual_health, _pictures_and_papers, _money):
        part(builder)
    bundle = {
        "resourceType": "Bundle",
        "id": "demo",
        "type": "collection",
        "timestamp": "2023-12-31T12:00:00+00:00",
        "entry": builder.entries,
    }
    measure_depth(bundle)
    return dump_json(bundle, indent=" ") + b"\n"


def _people(builder: _Builder) -> None:
    builder.add(
        "patient",
        "Patient",
        identifier=[{"system": "urn:pcehr:demo:patients", "value": "DEMO-0001"}],
        name=[{"use": "official", "family": "Patient", "given": ["Demo"]}],
        gender="female",
        birthDate="1985-01-01",
        address=[{"line": ["1 Example Street"], "city": "Żółtawa-Beispielstadt", "country": "XX"}],
        communication=[{"language": _concept("urn:ietf:bcp:47", "en", "English")}],
    )
    builder.add("practice", "Organization", active=True, name="Demo Practice — Überall")
    builder.add("practitioner", "Practitioner", active=True, name=[{"family": "Practitioner", "given": ["Demo"]}])
    builder.add(
        "team",
        "CareTeam",
        status="active",
        name="Demo care team",
        subject=builder.ref("patient"),
        participant=[{"member": builder.ref("practitioner")}],
    )
    builder.add(
        "family",
        "FamilyMemberHistory",
        status="completed",
        patient=builder.ref("patient"),
        date="2018-05-14",
        relationship=_concept(f"{_HL7}v3-RoleCode", "MTH", "mother"),
        condition=[{"code": _concept(_SNOMED, "44054006", "Diabetes mellitus type 2")}],
    )


def _check_ups(builder: _Builder) -> None:
    for at, year in enumerate(_YEARS):
        day, visit = f"{year}-05-14", f"visit-{year}"
        _visit(builder, visit, day, _concept(_SNOMED, "185349003", "Encounter for check up"))
        for code, text, unit, values in _VITALS:
            name, concept = f"{code}-{year}", _concept(_LOINC, code, text)
            _observation(builder, name, "vital-signs", visit, day, code=concept, value=_quantity(values[at], unit))
        builder.add(
            f"pressure-{year}",
            "Observation",
            status="final",
            category=[_concept(f"{_HL7}observation-category", "vital-signs", "Vital signs")],
            code=_concept(_LOINC, "85354-9", "Blood pressure"),
            subject=builder.ref("patient"),
            encounter=builder.ref(visit),
            effectiveDateTime=f"{day}T09:10:00+02:00",
            component=[
                {"code": _concept(_LOINC, "8480-6", "Systolic"), "valueQuantity": _quantity(str(126 + at), "mm[Hg]")},
                {"code": _concept(_LOINC, "8462-4", "Diastolic"), "valueQuantity": _quantity(str(82 + at), "mm[Hg]")},
            ],
        )
        builder.add(
            f"influenza-{year}",
            "Immunization",
            status="completed",
            vaccineCode=_concept(_CVX, "140", "Influenza, seasonal, injectable, preservative free"),
            patient=builder.ref("patient"),
            encounter=builder.ref(visit),
            occurrenceDateTime=day,
            primarySource=True,
        )
    for year in (2018, 2022):
        builder.add(
            f"smoking-{year}",
            "Observation",
            status="final",
            category=[_concept(f"{_HL7}observation-category", "social-history", "Social history")],
            code=_concept(_LOINC, "72166-2", "Tobacco smoking status"),
            subject=builder.ref("patient"),
            effectiveDateTime=f"{year}-05-14",
            valueCodeableConcept=_concept(_SNOMED, "266919005", "Never smoked tobacco"),
        )


def _laboratory(builder: _Builder) -> None:
    for at, year in enumerate((2019, 2021, 2023)):
        day, visit = f"{year}-05-14", f"visit-{year}"
        for code, text, unit, values in _LABS:
            name, concept = f"{code}-{year}", _concept(_LOINC, code, text)
            _observation(builder, name, "laboratory", visit, day, code=concept, value=_quantity(values[at], unit))
        builder.add(
            f"panel-{year}",
            "DiagnosticReport",
            status="final",
            category=[_concept(f"{_HL7}v2-0074", "LAB", "Laboratory")],
            code=_concept(_LOINC, "51990-0", "Basic metabolic panel"),
            subject=builder.ref("patient"),
            effectiveDateTime=day,
            issued=f"{day}T16:00:00.000+02:00",
            result=[builder.ref(f"{code}-{year}") for code, *_ in _LABS],
        )


def _everyday_care(builder: _Builder) -> None:
    for name, code, text in (("peanut", "91935009", "Allergy to peanut"), ("mould", "419474003", "Allergy to mould")):
        builder.add(
            f"allergy-{name}",
            "AllergyIntolerance",
            clinicalStatus=_concept(f"{_HL7}allergyintolerance-clinical", "active", "Active"),
            verificationStatus=_concept(f"{_HL7}allergyintolerance-verification", "confirmed", "Confirmed"),
            code=_concept(_SNOMED, code, text),
            patient=builder.ref("patient"),
            recordedDate="2018-05-14",
        )
    _condition(builder, "hypertension", "59621000", "Essential hypertension", "2019-05-14")
    _condition(builder, "asthma", "195967001", "Asthma — saisonal, März bis Mai", "2020-05-14")
    _condition(builder, "sinusitis", "444814009", "Viral sinusitis", "2021-02-03")
    _prescription(
        builder,
        "amlodipine",
        "2019-05-14",
        "hypertension",
        product=_concept(_RXNORM, "197361", "Amlodipine 5 MG oral tablet"),
    )
    _prescription(
        builder,
        "salbutamol",
        "2020-05-14",
        "asthma",
        product=_concept(_RXNORM, "2123111", "Salbutamol inhaler, ½–1 puff (≤ 4 µg)"),
    )
    builder.add(
        "lung-function",
        "Procedure",
        status="completed",
        code=_concept(_SNOMED, "23426006", "Measurement of respiratory function"),
        subject=builder.ref("patient"),
        performedDateTime="2020-05-14",
        reasonReference=[builder.ref("asthma")],
    )
    builder.add(
        "goal",
        "Goal",
        lifecycleStatus="active",
        description={"text": "Blood pressure below 130/80 mm[Hg]"},
        subject=builder.ref("patient"),
        startDate="2019-05-14",
        addresses=[builder.ref("hypertension")],
    )
    builder.add(
        "plan",
        "CarePlan",
        status="active",
        intent="plan",
        title="Living with high blood pressure",
        category=[_concept(_SNOMED, "443402002", "Lifestyle education regarding hypertension")],
        subject=builder.ref("patient"),
        period={"start": "2019-05-14"},
        addresses=[builder.ref("hypertension")],
        goal=[builder.ref("goal")],
    )
    builder.add(
        "monitor",
        "Device",
        status="active",
        deviceName=[{"name": "Demo blood pressure monitor", "type": "user-friendly-name"}],
        patient=builder.ref("patient"),
        manufactureDate="2019-01-01",
    )


def _mind(builder: _Builder) -> None:
    day = "2022-03-08"
    _visit(builder, "interview", day, _concept(_SNOMED, "79094001", "Initial psychiatric interview"))
    _condition(builder, "depression", "370143000", "Major depressive disorder", day)
    phq = _concept(_LOINC, "44261-6", "PHQ-9 total score")
    _observation(builder, "phq-9", "survey", "interview", day, code=phq, value=_quantity("14", "{score}"))
    _prescription(
        builder, "sertraline", day, "depression", product=_concept(_RXNORM, "312938", "Sertraline 100 MG oral tablet")
    )
    # These two hold no sensitive code: what they reveal stands in what they refer to.
    builder.add(
        "therapy-plan",
        "CarePlan",
        status="active",
        intent="plan",
        title="Weekly talks",
        subject=builder.ref("patient"),
        period={"start": day},
        addresses=[builder.ref("depression")],
    )
    _claim(
        builder,
        "claim-therapy",
        day,
        "depression",
        service=_concept(_SNOMED, "185347001", "Encounter for problem"),
        amount="120.00",
    )


def _sexual_health(builder: _Builder) -> None:
    day = "2021-05-14"
    builder.add(
        "implant",
        "Procedure",
        status="completed",
        code=_concept(_SNOMED, "169553002", "Insertion of subcutaneous contraceptive"),
        subject=builder.ref("patient"),
        performedDateTime=day,
    )
    builder.add(
        "etonogestrel",
        "MedicationRequest",
        status="active",
        intent="order",
        medicationCodeableConcept=_concept(_RXNORM, "389221", "Etonogestrel 68 MG drug implant"),
        subject=builder.ref("patient"),
        authoredOn=day,
    )
    _observation(
        builder,
        "chlamydia",
        "laboratory",
        "visit-2021",
        day,
        code=_concept(_LOINC, "21613-5", "Chlamydia trachomatis DNA"),
        value=_concept(_SNOMED, "260385009", "Negative"),
    )


def _pictures_and_papers(builder: _Builder) -> None:
    letter = "Demo letter\n\nDear Demo Patient,\nyour X-ray shows nothing unusual. Alles in Ordnung – всё в порядке.\n"
    data = letter.encode("utf-8")
    builder.add(
        "letter",
        "DocumentReference",
        status="current",
        type=_concept(_LOINC, "34133-9", "Summarization of episode note"),
        description="Letter about the chest X-ray",
        subject=builder.ref("patient"),
        date="2021-02-05T08:00:00.000+01:00",
        content=[
            {
                "attachment": {
                    "contentType": "text/plain; charset=utf-8",
                    "language": "en",
                    "data": base64.b64encode(data).decode("ascii"),
                    "size": len(data),
                    "title": "Letter",
                }
            }
        ],
    )
    builder.add(
        "x-ray",
        "ImagingStudy",
        status="available",
        subject=builder.ref("patient"),
        started="2021-02-04T10:30:00+01:00",
        description="Chest X-ray, two views",
        numberOfSeries=1,
        numberOfInstances=1,
        series=[
            {
                # UIDs below 2.25 are made from a UUID, so they need no registration (DICOM PS3.5, annex B.2).
                "uid": "2.25.85000000000000000000000000000000001",
                "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DX"},
                "instance": [
                    {
                        "uid": "2.25.85000000000000000000000000000000002",
                        "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.1.1"},
                    }
                ],
            }
        ],
    )
    builder.add(
        "x-ray-report",
        "DiagnosticReport",
        status="final",
        category=[_concept(f"{_HL7}v2-0074", "RAD", "Radiology")],
        code=_concept(_LOINC, "36643-5", "Chest X-ray, two views"),
        subject=builder.ref("patient"),
        effectiveDateTime="2021-02-04",
        imagingStudy=[builder.ref("x-ray")],
        conclusion="No pathological finding.",
    )


def _money(builder: _Builder) -> None:
    builder.add(
        "coverage",
        "Coverage",
        status="active",
        beneficiary=builder.ref("patient"),
        payor=[{"display": "Demo Insurance"}],
        period={"start": "2018-01-01"},
    )
    _claim(
        builder,
        "claim-2019",
        "2019-05-14",
        "hypertension",
        service=_concept(_SNOMED, "185349003", "Encounter for check up"),
        amount="129.50",
    )
    _claim(
        builder,
        "claim-2021",
        "2021-02-03",
        "sinusitis",
        service=_concept(_SNOMED, "185345009", "Encounter for symptom"),
        amount="89.10",
    )
    for name, day in (("claim-2019", "2019-06-01"), ("claim-therapy", "2022-04-01")):
        builder.add(
            f"benefit-{name}",
            "ExplanationOfBenefit",
            status="active",
            type=_concept(f"{_HL7}claim-type", "professional", "Professional"),
            use="claim",
            patient=builder.ref("patient"),
            created=day,
            insurer={"display": "Demo Insurance"},
            provider=builder.ref("practitioner"),
            claim=builder.ref(name),
            outcome="complete",
            insurance=[{"focal": True, "coverage": builder.ref("coverage")}],
            payment={"amount": {"value": Decimal("100.00"), "currency": "EUR"}, "date": day},
        )


def _visit(builder: _Builder, name: str, day: str, kind: Resource) -> None:
    builder.add(
        name,
        "Encounter",
        status="finished",
        **{"class": {"system": f"{_HL7}v3-ActCode", "code": "AMB", "display": "ambulatory"}},
        type=[kind],
        subject=builder.ref("patient"),
        participant=[{"individual": builder.ref("practitioner")}],
        period={"start": f"{day}T09:00:00+02:00", "end": f"{day}T09:30:00+02:00"},
        serviceProvider=builder.ref("practice"),
    )


def _observation(
    builder: _Builder, name: str, category: str, visit: str, day: str, *, code: Resource, value: Resource
) -> None:
    builder.add(
        name,
        "Observation",
        status="final",
        category=[_concept(f"{_HL7}observation-category", category, category)],
        code=code,
        subject=builder.ref("patient"),
        encounter=builder.ref(visit),
        effectiveDateTime=f"{day}T09:10:00+02:00",
        **{"valueQuantity" if "unit" in value else "valueCodeableConcept": value},
    )


def _condition(builder: _Builder, name: str, code: str, text: str, day: str) -> None:
    builder.add(
        name,
        "Condition",
        clinicalStatus=_concept(f"{_HL7}condition-clinical", "active", "Active"),
        verificationStatus=_concept(f"{_HL7}condition-ver-status", "confirmed", "Confirmed"),
        category=[_concept(f"{_HL7}condition-category", "encounter-diagnosis", "Encounter diagnosis")],
        code=_concept(_SNOMED, code, text),
        subject=builder.ref("patient"),
        onsetDateTime=day,
    )


def _prescription(builder: _Builder, name: str, day: str, reason: str, *, product: Resource) -> None:
    builder.add(
        name,
        "MedicationRequest",
        status="active",
        intent="order",
        medicationCodeableConcept=product,
        subject=builder.ref("patient"),
        authoredOn=day,
        requester=builder.ref("practitioner"),
        reasonReference=[builder.ref(reason)],
        dosageInstruction=[
            {"text": "One in the morning", "doseAndRate": [{"doseQuantity": {"value": Decimal("1.0")}}]}
        ],
    )


def _claim(builder: _Builder, name: str, day: str, diagnosis: str, *, service: Resource, amount: str) -> None:
    money = {"value": Decimal(amount), "currency": "EUR"}
    builder.add(
        name,
        "Claim",
        status="active",
        type=_concept(f"{_HL7}claim-type", "professional", "Professional"),
        use="claim",
        patient=builder.ref("patient"),
        created=day,
        provider=builder.ref("practitioner"),
        priority=_concept(f"{_HL7}processpriority", "normal", "Normal"),
        diagnosis=[{"sequence": 1, "diagnosisReference": builder.ref(diagnosis)}],
        insurance=[{"sequence": 1, "focal": True, "coverage": builder.ref("coverage")}],
        item=[{"sequence": 1, "productOrService": service, "net": money}],
        total=money,
    )


def _concept(system: str, code: str, text: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": text}], "text": text}


def _quantity(value: str, unit: str) -> Resource:
    number = Decimal(value) if "." in value else int(value)
    return {"value": number, "unit": unit, "system": _UCUM, "code": unit}


def main() -> None:
    target = resources.files("client.fhir") / FILE_NAME
    Path(str(target)).write_bytes(demo_bundle())


if __name__ == "__main__":
    main()
