"""Finds what looks like a decoder, so that a new one is either in the registry or in a list with the reason why not.

By name: functions called from_…, parse…, decode…, decrypt…, verify…, read…, load…, open…, unwrap…, split…, unverified…,
accept…, with or without an underscore before it. By what they call: whoever parses JSON, a model, base64 or a URL
decodes something, whatever it is called.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "client", "services")

_NAME = re.compile(
    r"_{0,2}(from|parse|decode|decrypt|verify|verified|read|load|open|unwrap|unpad|split|unverified|accept)(_|$)"
    r"|.*_from_(bytes|multibase|did|jwks|lines|words|seed|b64|b64url|json)$"
)
_CALLS = frozenset({
    "model_validate", "model_validate_json", "validate_json", "validate_python", "validate_strings", "b64decode",
    "urlsafe_b64decode", "b58decode", "fromhex", "from_canonical_json", "strptime", "fromisoformat",
})  # fmt: skip
_CALLS_OF = frozenset({
    ("json", "loads"), ("json", "load"), ("simplejson", "loads"), ("tomllib", "loads"), ("int", "from_bytes"),
})  # fmt: skip
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def found() -> dict[str, Path]:
    """The qualified names of all functions that look like decoders, and where they stand."""
    return {
        f"{module}.{name}": path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "migrations" not in path.parts
        for module in [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")]
        for name in _in_source(path.read_text("utf-8"))
    }


def _in_source(source: str) -> Iterator[str]:
    yield from _within(ast.parse(source), "")


def _within(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _within(child, f"{prefix}{child.name}.")
        elif isinstance(child, _FUNCTION):
            if not _is_abstract(child) and (_NAME.match(child.name) or any(map(_decodes, _own_nodes(child)))):
                yield f"{prefix}{child.name}"
            yield from _within(child, f"{prefix}{child.name}.<locals>.")
        else:
            yield from _within(child, prefix)


def _is_abstract(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A method of a protocol, with nothing in it but its description."""
    return all(isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) for part in function.body)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a function but those of the functions in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _FUNCTION):
            yield child
            yield from _own_nodes(child)


def _decodes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Name):
        return called.id in _CALLS
    if isinstance(called, ast.Attribute):
        owner = called.value.id if isinstance(called.value, ast.Name) else None
        return called.attr in _CALLS or (owner, called.attr) in _CALLS_OF
    return False
