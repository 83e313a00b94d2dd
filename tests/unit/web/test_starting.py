"""A service as a real process: how it logs from the first line on, whoever starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.crypto.signing import SigningKey
from shared.encoding import b64url
from shared.transparency.checkpoints import origin_of

SECRET = "hunter2"
ROOT = Path(__file__).parents[3]
SETTINGS = {
    "PCEHR_DATABASE_URL": f"postgresql://registry:{SECRET}@127.0.0.1:1/registry",
    "PCEHR_TOKEN_SIGNING_KEY": b64url(bytes(range(32))),
    "PCEHR_LOG_SIGNING_KEY": b64url(bytes(range(1, 33))),
    "PCEHR_RECORDS_LOG": origin_of("records", SigningKey(bytes(32)).verify_key),
}
PATIENCE = 60.0
"""Seconds after which a process that should have started counts as broken."""


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PCEHR_", "UVICORN_"))}
    kept.pop("DATABASE_URL", None)
    return kept | {"PYTHONPATH": str(ROOT), "UVICORN_FACTORY": "true"} | SETTINGS | changes


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Running:
    """A registry that listens."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def stop(self) -> tuple[str, str]:
        """What it wrote to stdout and to stderr, after it has ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=PATIENCE)


@contextmanager
def running(*options: str, **changes: str) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "services.registry.main:create", "--port", str(port), *options]
    process = subprocess.Popen(
        command, env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{port}"
    with process:
        try:
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and not _answers(url):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield Running(process, url)
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 204
    except httpx.HTTPError:
        return False


def fails(**changes: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, lines and stderr of a start that does not succeed."""
    process = subprocess.run(
        [sys.executable, "-m", "uvicorn", "services.registry.main:create", "--port", str(free_port())],
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return process.returncode, [json.loads(line) for line in process.stdout.splitlines()], process.stderr


@pytest.mark.parametrize(
    "options",
    [[], ["--access-log", "--log-level", "trace"], ["--no-access-log", "--log-level", "critical"]],
    ids=["plain", "loudest", "quietest"],
)
def test_every_line_is_json_on_stdout_however_uvicorn_is_started(options: list[str]) -> None:
    with running(*options) as registry:
        httpx.get(f"{registry.url}/v1/parties/did:key:zNeedle", params={"q": "needle"}, trust_env=False)
        stdout, stderr = registry.stop()
    lines = [json.loads(line) for line in stdout.splitlines()]
    [request] = [line for line in lines if line["logger"] == "pcehr.access"]
    assert (request["method"], request["route"], request["status"]) == ("GET", "/v1/parties/{did}", 422)
    assert "Application startup complete." in [line["message"] for line in lines]
    assert {line["service"] for line in lines} == {"registry"}
    assert "needle" not in (stdout + stderr).lower()
    assert SECRET not in stdout + stderr
    # What uvicorn says before it asks for the app, where it was told to say a lot, is all that is not JSON.
    assert "GET" not in stderr


def test_the_form_and_the_level_are_settings() -> None:
    with running(PCEHR_LOG_FORMAT="text", PCEHR_LOG_LEVEL="debug") as registry:
        httpx.get(f"{registry.url}/readyz", trust_env=False)
        stdout, stderr = registry.stop()
    assert stderr == ""
    health = [line for line in stdout.splitlines() if "route=/healthz" in line]
    assert health
    assert " DEBUG   pcehr.access request method=GET route=/healthz status=204 duration_ms=" in health[0]
    assert [line for line in stdout.splitlines() if "route=/readyz status=503" in line]


def test_metrics_are_shown_while_the_database_is_away() -> None:
    with running() as registry:
        assert httpx.get(f"{registry.url}/readyz", trust_env=False).status_code == 503
        response = httpx.get(f"{registry.url}/metrics", trust_env=False)
    assert response.status_code == 200
    assert 'pcehr_http_requests_total{method="GET",route="/readyz",status="503"} 1.0' in response.text
    assert "pcehr_build_info{" in response.text


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"PCEHR_THRESHOLD": "hunter2"}, "PCEHR_THRESHOLD"),
        ({"PCEHR_TOKEN_SIGNING_KEY": "hunter2"}, "PCEHR_TOKEN_SIGNING_KEY"),
        ({"PCEHR_LOG_FORMAT": "hunter2"}, "PCEHR_LOG_FORMAT"),
        ({"PCEHR_LOG_LEVEL": "hunter2"}, "PCEHR_LOG_LEVEL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_does_not_fit_is_named_in_one_line_and_its_value_is_not_shown(
    changes: dict[str, str], setting: str
) -> None:
    status, lines, stderr = fails(**changes)
    assert status != 0
    assert [line["setting"] for line in lines if line["logger"] == "pcehr.settings"] == [setting]
    assert SECRET not in json.dumps(lines) + stderr


def test_a_secrets_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    status, lines, _ = fails(PCEHR_SECRETS_DIR=str(tmp_path / "nowhere"))
    assert status != 0
    [line] = [line for line in lines if line["logger"] == "pcehr.settings"]
    assert "PCEHR_SECRETS_DIR" in line["problem"]


def test_a_port_that_is_taken_is_said_without_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = subprocess.run(
            [
                *(sys.executable, "-m", "uvicorn", "services.registry.main:create"),
                *("--port", str(taken.getsockname()[1])),
            ],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert process.returncode != 0
    assert "Address already in use" in [json.loads(line)["message"] for line in process.stdout.splitlines()]
