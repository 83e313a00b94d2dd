"""README and docs tell the truth: every command, option, target, setting and link they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PROMISES = [ROOT / "SECURITY.md", ROOT / "docs" / "threat-model.md"]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "bench" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMANDS = sorted(set(re.findall(r"^(?:\.venv/bin/)?pcehr ([^#\n]+)", README, re.MULTILINE)))
GROUPS = ("records", "requests", "scopes")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_exists_with_its_options(command: str) -> None:
    words = command.split()
    path = words[:2] if words[0] in GROUPS else words[:1]
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    common = ("--profile", "--json", "--registry", "--passphrase-file")
    options = [word for word in words if word.startswith("-") and word not in common]
    assert [option for option in options if option not in shown.output] == []


def test_the_readme_names_commands() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))))
def test_a_target_of_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8"))
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert broken == []


def test_every_setting_of_the_readme_is_read_somewhere() -> None:
    sources = "\n".join(
        path.read_text("utf-8") for folder in ("client", "services", "shared") for path in (ROOT / folder).rglob("*.py")
    )
    named = set(re.findall(r"`PCEHR_([A-Z_]+)`", README))
    assert named
    missing = [name for name in named if f"PCEHR_{name}" not in sources and f"{name.lower()}:" not in sources]
    assert missing == []


@pytest.mark.parametrize("document", PROMISES, ids=lambda path: path.name)
def test_every_promise_names_tests_that_are_there(document: Path) -> None:
    rows = [line for line in document.read_text("utf-8").splitlines() if line.startswith("| ")]
    shown = [
        row.rstrip(" |").rpartition("|")[2] for row in rows if "shown in" not in row and "put to the test" not in row
    ]
    assert len(shown) > 10
    assert [cell for cell in shown if not re.search(r"`[a-z]", cell) and set(cell.strip()) - {"-"}] == []
    named = {name.removeprefix("tests/") for cell in shown for name in re.findall(r"`([a-z][\w/.]*)`", cell)}
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).exists()] == []


def test_every_dependency_is_justified() -> None:
    justified = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    block = project.split("dependencies = [", 1)[1].split("\n]", 1)[0]
    names = re.findall(r'^\s+"([a-z0-9-]+)', block, re.MULTILINE)
    assert len(names) > 10
    assert [name for name in names if name not in justified] == []
