"""Which scope a resource is filed under. The vocabulary and the codes are data, in `scopes.toml`.

The rules, in this order; the first that applies decides:

1. The patient's own overrides, in the order given.
2. A sensitive code anywhere in the resource, contained resources and security labels included. Of several
   sensitive scopes the one that stands first in the vocabulary.
3. In `scopes_for_bundle` only: a resource that refers to one filed under a sensitive scope, in a field that
   carries a reason, a diagnosis or a result (`client.fhir.references`), is filed with it, and so is what refers
   to that one. The shortest way counts; of several equally short, rule 2's order.
4. The resource's `code`, `category` or `type`, for types that are too broad to file as a whole.
5. The resource's type.
6. `other`.

What this cannot do: read free text, or know a code that is not in the table. An unknown code of a sensitive
matter is filed as an ordinary one, which is why a patient can override.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Final, TypeVar

from client.fhir.bundle import BundleItem
from client.fhir.errors import InvalidOverride, InvalidScopeName, InvalidVocabulary
from client.fhir.references import revealed_by
from client.fhir.resource import Resource

LAST_RESORT: Final = "other"

MAX_SCOPE_NAME: Final = 64
"""Characters. A name is part of a label for key derivation and a line in a table, no place for a text."""

_SCOPE_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope of the common vocabulary; `title` and `description` are for the patient."""

    name: str
    title: str
    description: str
    sensitive: bool = False


@dataclass(frozen=True, slots=True)
class Override:
    """A patient's own rule: resources of this type, or with this coding anywhere, or both, go to that scope.

    `scope` may be one of the patient's own making. Raises `InvalidScopeName` and `InvalidOverride`.
    """

    scope: str
    resource_type: str | None = None
    system: str | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        check_scope_name(self.scope)
        given = [part for part in (self.resource_type, self.system, self.code) if part is not None]
        if not given or not all(given) or (self.system is None) != (self.code is None):
            raise InvalidOverride

    def applies_to(self, resource: Resource) -> bool:
        if self.resource_type is not None and resource.get("resourceType") != self.resource_type:
            return False
        return self.code is None or (self.system, self.code) in codings(resource)


@dataclass(frozen=True, slots=True)
class _Ordinary:
    """A rule for a type that is too broad: codes of one system, in one element."""

    scope: str
    element: str
    types: frozenset[str]
    codings: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Filing:
    """Where a resource goes, and whether what refers to it in a revealing field goes there too."""

    scope: str
    final: bool
    spreads: bool


@dataclass(frozen=True, slots=True)
class ScopeMap:
    """The vocabulary with its rules and one patient's overrides. Immutable; `load` gives the common one."""

    scopes: tuple[Scope, ...]
    overrides: tuple[Override, ...]
    _by_type: Mapping[str, str]
    _ordinary: tuple[_Ordinary, ...]
    _codes: Mapping[tuple[str, str], str]
    _prefixes: Mapping[str, tuple[tuple[str, str], ...]]

    @classmethod
    def load(cls) -> ScopeMap:
        """The vocabulary every client knows, without overrides."""
        return _common()

    def with_overrides(self, overrides: Sequence[Override]) -> ScopeMap:
        """The same map with these overrides instead of the ones it has; the first that applies decides."""
        return replace(self, overrides=tuple(overrides))

    def is_sensitive(self, scope: str) -> bool:
        """Whether the common vocabulary calls this scope sensitive; False for a scope of the patient's own."""
        return any(known.name == scope and known.sensitive for known in self.scopes)

    def scope_for(self, resource: Resource) -> str:
        """The scope of a resource seen on its own, without what it refers to."""
        return self._file(resource).scope

    def scopes_for_bundle(self, items: Sequence[BundleItem]) -> list[str]:
        """The scope of each item, references within the list considered; see the rules above.

        An override decides for the resource it applies to, and then counts for those that refer to it: one that
        takes a diagnosis out of a sensitive scope stops the spreading, and one that moves a coding into a scope
        of the patient's own making takes along what reveals it.
        """
        filings = [self._file(item.resource) for item in items]
        scopes = [filing.scope for filing in filings]
        settled = [filing.final for filing in filings]
        rank = {scope.name: at for at, scope in enumerate(self.scopes)}
        referrers = revealed_by(items)
        reached = [at for at, filing in enumerate(filings) if filing.spreads]
        while reached:
            found: dict[int, str] = {}
            for target in reached:
                for at in referrers[target]:
                    if not settled[at]:
                        found[at] = min(
                            found.get(at, scopes[target]),
                            scopes[target],
                            # A scope of the patient's own comes before the common ones, as the patient's rules do.
                            key=lambda name: (rank.get(name, -1), name),
                        )
            for at, scope in found.items():
                scopes[at], settled[at] = scope, True
            reached = sorted(found)
        return scopes

    def _file(self, resource: Resource) -> _Filing:
        for override in self.overrides:
            if override.applies_to(resource):
                custom = all(known.name != override.scope for known in self.scopes)
                spreads = (custom and override.code is not None) or self.is_sensitive(override.scope)
                return _Filing(override.scope, final=True, spreads=spreads)
        sensitive = self._sensitive_scope(resource)
        if sensitive is not None:
            return _Filing(sensitive, final=True, spreads=True)
        return _Filing(self._ordinary_scope(resource), final=False, spreads=False)

    def _sensitive_scope(self, resource: Resource) -> str | None:
        found = {scope for system, code in codings(resource) if (scope := self._sensitive_code(system, code))}
        by_type = {self._by_type.get(kind) for kind in _types_within(resource)}
        return next(
            (scope.name for scope in self.scopes if scope.sensitive and scope.name in found | by_type),
            None,
        )

    def _sensitive_code(self, system: str, code: str) -> str | None:
        exact = self._codes.get((system, code))
        if exact is not None:
            return exact
        plain = _without_dot(code)
        return next((scope for prefix, scope in self._prefixes.get(system, ()) if plain.startswith(prefix)), None)

    def _ordinary_scope(self, resource: Resource) -> str:
        kind = resource.get("resourceType")
        for rule in self._ordinary:
            if kind in rule.types and not rule.codings.isdisjoint(codings(resource.get(rule.element))):
                return rule.scope
        return self._by_type.get(kind, LAST_RESORT) if isinstance(kind, str) else LAST_RESORT


def check_scope_name(name: str) -> str:
    """Return the name of a scope, or raise `InvalidScopeName`."""
    if len(name) > MAX_SCOPE_NAME or not _SCOPE_NAME.fullmatch(name):
        raise InvalidScopeName
    return name


def codings(value: Any) -> set[tuple[str, str]]:
    """Every (system, code) anywhere within a value: Coding, and Quantity too, whose units do no harm here.

    The version of a code system behind a bar (`http://loinc.org|2.77`) is left out.
    """
    found = set()
    for item in _objects_within(value):
        system, code = item.get("system"), item.get("code")
        if isinstance(system, str) and isinstance(code, str):
            found.add((system.partition("|")[0].rstrip("/"), code.strip()))
    return found


def _types_within(resource: Resource) -> set[str]:
    kinds = (item.get("resourceType") for item in _objects_within(resource))
    return {kind for kind in kinds if isinstance(kind, str)}


def _objects_within(value: Any) -> Iterator[dict[str, Any]]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            yield item
            stack.extend(item.values())


def _without_dot(code: str) -> str:
    # Classifications are met with and without their dot (F32.1, F321), and in either case.
    return code.replace(".", "").upper()


@cache
def _common() -> ScopeMap:
    """Read `scopes.toml` once per process; it is part of the package and cannot change meanwhile."""
    return read_vocabulary((resources.files("client.fhir") / "scopes.toml").read_text("utf-8"))


def read_vocabulary(text: str) -> ScopeMap:
    """Build a map from the text of a table of scopes.

    Raises `InvalidVocabulary` when a rule names an unknown scope or system, or two rules contradict each other.
    """
    table = tomllib.loads(text)
    scopes = tuple(Scope(**entry) for entry in table["scope"])
    names = {check_scope_name(scope.name) for scope in scopes}
    sensitive = {scope.name for scope in scopes if scope.sensitive}
    if len(names) != len(scopes) or LAST_RESORT not in names:
        raise InvalidVocabulary("The names of scopes are not unique, or the last resort is missing.")
    systems: dict[str, list[str]] = table["systems"]
    by_type: dict[str, str] = {}
    for scope, kinds in table["types"].items():
        for kind in kinds:
            _put(by_type, kind, scope)
    ordinary = tuple(
        _Ordinary(
            rule["scope"],
            rule["element"],
            frozenset(rule["types"]),
            frozenset((uri, code) for uri in _uris(systems, rule) for code in rule["codes"]),
        )
        for rule in table["ordinary"]
    )
    codes: dict[tuple[str, str], str] = {}
    prefixes: dict[str, dict[str, str]] = {}
    for rule in table["sensitive"]:
        if rule["scope"] not in sensitive:
            raise InvalidVocabulary("A sensitive code leads to a scope that is not sensitive.")
        for uri in _uris(systems, rule):
            for code in rule.get("codes", []):
                _put(codes, (uri, code), rule["scope"])
            for prefix in rule.get("prefixes", []):
                _put(prefixes.setdefault(uri, {}), _without_dot(prefix), rule["scope"])
    if not {*by_type.values(), *(rule.scope for rule in ordinary)} <= names:
        raise InvalidVocabulary("A rule leads to a scope that is not in the vocabulary.")
    longest_first = {
        uri: tuple(sorted(table.items(), key=lambda entry: (-len(entry[0]), entry[0])))
        for uri, table in prefixes.items()
    }
    return ScopeMap(scopes, (), by_type, ordinary, codes, longest_first)


def _uris(systems: Mapping[str, list[str]], rule: Mapping[str, Any]) -> list[str]:
    uris = systems.get(rule["system"])
    if uris is None:
        raise InvalidVocabulary("A rule names a code system that the table does not.")
    return uris


def _put(table: dict[_Key, str], key: _Key, scope: str) -> None:
    if table.setdefault(key, scope) != scope:
        raise InvalidVocabulary("Two rules file the same thing under different scopes.")
