"""The checked audit as FHIR R4: a Bundle of AuditEvent, and Consent for every grant; pure.

The events have the shape of IHE's Basic Audit Log Patterns (BALP): a disclosure is an *Export* with the subtype
*disclose*, its source, its recipient and its authorizer; reading is a RESTful operation. They claim no profile, since
these demand the network addresses of both ends, which no log here holds. Parties are known by their DIDs, services by
the origins of their logs. Everything is the patient's own to give away; nothing of it comes from a service unchecked.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from client.audit.chain import RECORDS
from client.audit.events import (
    DISCLOSED,
    DONE,
    ERASED,
    GRANTED,
    LOG_ERASED,
    REENCRYPTED,
    REVOKED,
    STORED,
)
from client.audit.report import Audit, Line
from client.audit.story import OwnGrant
from shared.statements import Grant
from shared.wire import Action

Resource = dict[str, Any]

_ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_SNOMED = "http://snomed.info/sct"
_LIFECYCLE = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
_EVENT_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_SOURCE_TYPE = "http://terminology.hl7.org/CodeSystem/security-source-type"
_CONSENT_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
_CONSENT_ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"
_LOINC = "http://loinc.org"

URI = "urn:ietf:rfc:3986"
"""The system of identifiers that are URIs, as DIDs are."""
GRANTS = "urn:pcehr:grant"
CAPSULES = "urn:pcehr:capsule"
SCOPES = "urn:pcehr:scope"
ORIGINS = "urn:pcehr:log"
COMMITMENTS = "commitment"

_REST = (_EVENT_TYPE, "rest", "RESTful Operation")
_EXPORT = (_DICOM, "110106", "Export")
_KINDS: dict[str, tuple[tuple[str, str, str], tuple[str, str, str] | None, str]] = {
    DISCLOSED: (_EXPORT, (_LIFECYCLE, "disclose", "Disclose Record Lifecycle Event"), "R"),
    REENCRYPTED: ((_LIFECYCLE, "transform", "Transform/Translate Record Lifecycle Event"), None, "E"),
    ERASED: ((_LIFECYCLE, "destroy", "Destroy/Delete Record Lifecycle Event"), None, "D"),
    LOG_ERASED: ((_LIFECYCLE, "destroy", "Destroy/Delete Record Lifecycle Event"), None, "D"),
    STORED: (_REST, (_INTERACTION, "create", "create"), "C"),
    GRANTED: (_REST, (_INTERACTION, "create", "create"), "C"),
    REVOKED: (_REST, (_INTERACTION, "update", "update"), "U"),
    "requested": (_REST, (_INTERACTION, "create", "create"), "C"),
    "denied": (_REST, (_INTERACTION, "update", "update"), "U"),
    "record_written": (_REST, (_INTERACTION, "create", "create"), "C"),
    "listed": (_REST, (_INTERACTION, "search-type", "search-type"), "E"),
}
_READ = (_REST, (_INTERACTION, "read", "read"), "R")
"""Whatever else there is looks at something."""

_ACTIONS = {
    Action.READ: ("access", "Access"),
    Action.APPEND: ("collect", "Collect"),
    Action.AMEND: ("correct", "Access and Correct"),
}
_REASONS = {
    "TREAT": "treatment",
    "ETREAT": "Emergency Treatment",
    "HPAYMT": "healthcare payment",
    "HOPERAT": "healthcare operations",
    "HRESCH": "healthcare research",
    "PUBHLTH": "public health",
    "PATRQT": "patient requested",
    "FAMRQT": "family requested",
}
"""What the code system itself calls the purposes of use."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:pcehr")


def bundle_of(audit: Audit) -> Resource:
    """A FHIR R4 Bundle of type `collection`: the patient, a Consent for each grant, an AuditEvent for each event."""
    gathered = audit.gathered
    patient = _url("patient", gathered.patient.did)
    entries = [_entry(patient, {"resourceType": "Patient", "identifier": [_identifier(URI, gathered.patient.did)]})]
    for grant_id, grant in gathered.grants.items():
        entries.append(_entry(_url("grant", grant_id), _consent(audit, grant, patient)))
    for line in audit.lines:
        entries.append(_entry(_url("event", f"{line.service} {line.n}"), _event(audit, line, patient)))
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": _instant(gathered.now),
        "entry": entries,
    }


# --- AuditEvent -----------------------------------------------------------------------------------------------------


def _event(audit: Audit, line: Line, patient: str) -> Resource:
    kind, subtype, action = _KINDS.get(line.event, _READ)
    event: Resource = {
        "resourceType": "AuditEvent",
        "type": _coding(*kind),
        "action": action,
        "recorded": _instant(line.at),
        "outcome": "0" if line.outcome == DONE else "4",
        "outcomeDesc": line.outcome,
        "agent": _agents(audit, line, patient),
        "source": {
            "observer": _service(audit, line.service),
            "type": [_coding(_SOURCE_TYPE, "4", "Application Server")],
        },
        "entity": _entities(audit, line, patient),
    }
    if subtype is not None:
        event["subtype"] = [_coding(*subtype)]
    if line.purpose is not None:
        event["purposeOfEvent"] = [_purpose(line.purpose)]
    return event


def _agents(audit: Audit, line: Line, patient: str) -> list[Resource]:
    """Source and recipient, as BALP has them, and for a disclosure the patient as who allowed it."""
    agents = [
        {
            "type": {"coding": [_coding(_DICOM, "110153", "Source Role ID")]},
            "who": _service(audit, line.service),
            "requestor": False,
        }
    ]
    if line.actor is not None and line.actor != line.service:
        actor: Resource = {
            "type": {"coding": [_coding(_DICOM, "110152", "Destination Role ID")]},
            "who": _who(audit, line.actor, patient),
            "requestor": True,
        }
        if line.purpose is not None:
            actor["purposeOfUse"] = [_purpose(line.purpose)]
        agents.append(actor)
    if line.event == DISCLOSED and line.grant in audit.gathered.grants:
        agents.append(
            {
                "type": {"coding": [_coding(_SNOMED, "429577009")]},
                "who": {"reference": patient},
                "requestor": False,
            }
        )
    return agents


def _entities(audit: Audit, line: Line, patient: str) -> list[Resource]:
    log = audit.gathered.logs[line.service]
    logged = log.event(line.n)
    entities: list[Resource] = [
        {
            "what": {"reference": patient},
            "type": _coding(_ENTITY_TYPE, "1", "Person"),
            "role": _coding(_OBJECT_ROLE, "1", "Patient"),
        }
    ]
    for capsule in line.capsules:
        data: Resource = {
            "what": {"identifier": _identifier(CAPSULES, capsule)},
            "type": _coding(_ENTITY_TYPE, "2", "System Object"),
            "role": _coding(_OBJECT_ROLE, "4", "Domain Resource"),
        }
        if capsule in audit.gathered.titles:
            data["name"] = audit.gathered.titles[capsule]
        entities.append(data)
    if line.grant in audit.gathered.grants:
        entities.append(
            {
                "what": {"reference": _url("grant", line.grant)},
                "type": _coding(_ENTITY_TYPE, "2", "System Object"),
                "role": _coding(_OBJECT_ROLE, "13", "Security Resource"),
            }
        )
    if logged is not None:
        # By it everybody who has the evidence file finds the event and its proof again.
        entities[0]["detail"] = [{"type": COMMITMENTS, "valueString": logged.commitment}]
    return entities


# --- Consent --------------------------------------------------------------------------------------------------------


def _consent(audit: Audit, own: OwnGrant, patient: str) -> Resource:
    grant = own.statement.payload
    ended = own.revocation is not None or grant.exp <= audit.gathered.now
    end = grant.exp if own.revocation is None else min(grant.exp, own.revocation.payload.iat)
    return {
        "resourceType": "Consent",
        "identifier": [_identifier(GRANTS, own.statement.id)],
        "status": "inactive" if ended else "active",
        "scope": {"coding": [_coding(_CONSENT_SCOPE, "patient-privacy", "Privacy Consent")]},
        "category": [{"coding": [_coding(_LOINC, "59284-0")]}],
        "patient": {"reference": patient},
        "dateTime": _instant(grant.iat),
        "performer": [{"reference": patient}],
        "policyRule": {"coding": [_coding(_ACT_CODE, "OPTIN", "opt-in")]},
        "provision": {
            "type": "permit",
            # One that was revoked before it began has a period of nothing.
            "period": {"start": _instant(min(grant.nbf, end)), "end": _instant(end)},
            "actor": [
                {
                    "role": {"coding": [_coding(_PARTICIPATION, "IRCP", "information recipient")]},
                    "reference": _who(audit, grant.aud, patient),
                }
            ],
            "action": [{"coding": [_coding(_CONSENT_ACTION, *_ACTIONS[action])]} for action in grant.actions],
            "purpose": [_coding(_ACT_REASON, grant.purpose.value, _REASONS.get(grant.purpose.value))],
            "data": _data(audit, grant),
        },
    }


def _data(audit: Audit, grant: Grant) -> list[Resource]:
    """Whole scopes with all that is filed under them, or the records that an entry is limited to."""
    data: list[Resource] = []
    for scope_id in dict.fromkeys(entry.scope for entry in grant.scopes if entry.capsules is None):
        reference: Resource = {"identifier": _identifier(SCOPES, scope_id)}
        if scope_id in audit.gathered.scopes:
            reference["display"] = audit.gathered.scopes[scope_id]
        data.append({"meaning": "related", "reference": reference})
    for capsule in dict.fromkeys(capsule for entry in grant.scopes for capsule in entry.capsules or ()):
        reference = {"identifier": _identifier(CAPSULES, capsule)}
        if capsule in audit.gathered.titles:
            reference["display"] = audit.gathered.titles[capsule]
        data.append({"meaning": "instance", "reference": reference})
    return data


# --- parts ----------------------------------------------------------------------------------------------------------


def _entry(url: str, resource: Resource) -> Resource:
    return {"fullUrl": url, "resource": {**resource, "id": url.removeprefix("urn:uuid:")}}


def _url(kind: str, name: str | None) -> str:
    """A URL that is the same each time for the same thing."""
    return f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{kind} {name}')}"


def _who(audit: Audit, did: str, patient: str) -> Resource:
    if did == audit.gathered.patient.did:
        return {"reference": patient}
    who: Resource = {"identifier": _identifier(URI, did)}
    name = audit.gathered.name_of(did)
    return who if name is None else {**who, "display": name}


def _service(audit: Audit, service: str) -> Resource:
    log = audit.gathered.logs[service]
    name = audit.name_of(service)
    if service == RECORDS:
        # It has no DID: it is known by the log that it signs.
        origin = log.proofs[-1].checkpoint.origin if log.proofs else None
        who: Resource = {} if origin is None else {"identifier": _identifier(ORIGINS, origin)}
    else:
        who = {"identifier": _identifier(URI, service)}
    return {**who, "display": name} if name is not None else who


def _purpose(code: str) -> Resource:
    return {"coding": [_coding(_ACT_REASON, code, _REASONS.get(code))]}


def _coding(system: str, code: str, display: str | None = None) -> Resource:
    coding = {"system": system, "code": code}
    return coding if display is None else {**coding, "display": display}


def _identifier(system: str, value: str) -> Resource:
    return {"system": system, "value": value}


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
