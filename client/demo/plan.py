"""Who writes, asks for and gets what, from what a Bundle holds; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from client.fhir.bundle import BundleItem
from client.fhir.scopes import ScopeMap

_HOSPITAL_WRITES = ("laboratory", "imaging", "procedures")
_DOCTOR_NEEDS = (
    "allergies",
    "medications",
    "conditions",
    "immunizations",
    "laboratory",
    "vital-signs",
    "imaging",
    "procedures",
)
_ASKED_IN_VAIN = "billing"
"""A doctor has no need of it, so that there is always something for the patient to leave out."""


@dataclass(frozen=True)
class Plan:
    """Scopes by name. `granted` is a proper part of `asked`."""

    items: tuple[BundleItem, ...]
    scopes: tuple[str, ...]
    """The scope of each item."""
    by_hospital: tuple[str, ...]
    asked: tuple[str, ...]
    granted: tuple[str, ...]

    def share(self, names: Sequence[str]) -> tuple[list[BundleItem], list[str]]:
        """The items filed under these names, and the scope of each."""
        chosen = [(item, scope) for item, scope in zip(self.items, self.scopes, strict=True) if scope in names]
        return [item for item, _ in chosen], [scope for _, scope in chosen]

    @property
    def by_patient(self) -> tuple[str, ...]:
        """What the hospital does not write."""
        return tuple(dict.fromkeys(scope for scope in self.scopes if scope not in self.by_hospital))


def plan_for(items: Sequence[BundleItem], rules: ScopeMap) -> Plan:
    """A plan in which the doctor asks for one sensitive matter too, where there is one, and does not get it."""
    scopes = rules.scopes_for_bundle(items)
    present = Counter(scopes)
    ordinary = [name for name, _ in present.most_common() if not rules.is_sensitive(name)]
    sensitive = [name for name, _ in present.most_common() if rules.is_sensitive(name)]
    hospital = [name for name in _HOSPITAL_WRITES if name in present] or ordinary[-1:]
    granted = [name for name in _DOCTOR_NEEDS if name in present] or ordinary[:1] or sensitive[:1]
    asked = [*granted, *(name for name in [*sensitive[:1], _ASKED_IN_VAIN] if name not in granted)]
    if len(asked) == len(granted):
        # Only for a Bundle of nothing but bills.
        asked.append("allergies")
    return Plan(tuple(items), tuple(scopes), tuple(hospital), tuple(asked), tuple(granted))
