"""The benchmarks run as people run them. What they measure is not looked at: machines differ."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_chapter_runs_and_writes_its_figures(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench", "proxy", "--quick", "--output", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(results.read_text())
    figures = document["chapters"]["proxy"]["figures"]
    assert document["quick"] is True
    assert len(figures) == 2
    assert all(figure["ratio"] > 0 and figure["low"] <= figure["high"] for figure in figures)
    assert all(figure["name"][:20] in done.stdout for figure in figures)


def test_a_chapter_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "nothing", "--output", str(tmp_path / "results.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "nothing" in done.stderr
    assert "proxy" in done.stderr
