"""Which other services a service asks: those whose certificates it trusts, and none without TLS where that is set."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from services.records.settings import Settings
from shared.encoding import b64url
from shared.tls import CaFileUnreadable, HttpsRequired, is_private, trust
from shared.web.tracing import service_client

SEED = b64url(bytes(32))


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://registry.example", True),
        ("http://registry.example", False),
        ("http://127.0.0.1:8400", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8400", True),
        ("http://localhost", True),
        ("http://proxy-1.localhost:8411", True),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
        ("http://127.0.0.1.example", False),
        ("ftp://registry.example", False),
    ],
)
async def test_which_addresses_are_asked_where_https_is_required(url: str, private: bool) -> None:
    assert is_private(httpx.URL(url)) == private
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200)

    async with service_client(5, httpx.MockTransport(answer), require_https=True) as http:
        if private:
            await http.get(url)
        else:
            with pytest.raises(HttpsRequired):
                await http.get(url)
    assert bool(asked) == private


async def test_without_the_setting_http_is_asked_as_well() -> None:
    async with service_client(5, httpx.MockTransport(lambda _: httpx.Response(200))) as http:
        assert (await http.get("http://registry.example")).status_code == 200


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CaFileUnreadable):
        trust(path)


def test_roots_are_read_once_and_anew_when_others_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    context = trust(None)
    assert trust(None) is context
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert trust(None) is not context
    assert trust(None).cert_store_stats()["x509_ca"] == 0


def test_a_registry_by_http_does_not_go_with_https_required() -> None:
    values = {"PCEHR_DATABASE_URL": "postgresql://unused", "log_signing_key": SEED, "require_https": True}
    assert Settings(**values, registry_url="https://registry.example").require_https
    assert Settings(**values, registry_url="http://127.0.0.1:8400").require_https
    with pytest.raises(ValueError, match="PCEHR_REGISTRY_URL begins with http://"):
        Settings(**values, registry_url="http://registry.example")
