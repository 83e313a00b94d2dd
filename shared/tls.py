"""Whom an HTTPS connection is made to, and that it is one, where the settings ask for it; for services and clients."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

import httpx

from shared.errors import PcehrError


class CaFileUnreadable(PcehrError):
    code = "ca_file_unreadable"
    title = "PCEHR_TLS_CA_FILE does not name a file with certificates in PEM."


class HttpsRequired(httpx.UnsupportedProtocol):
    """A peer is to be reached without TLS, which the settings forbid."""


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """What peers' certificates are checked with: the certificates of this file and no others; without one, what httpx
    trusts by itself (certifi's, or what SSL_CERT_FILE and SSL_CERT_DIR name).

    Raises `CaFileUnreadable`.
    """
    if ca_file is None:
        return _public(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError):
        raise CaFileUnreadable from None


@lru_cache(maxsize=4)
def _public(*_named: str | None) -> ssl.SSLContext:
    # Reading all the roots takes longer than a request, and nobody changes a context after that: all clients share it.
    return httpx.create_ssl_context()


def is_private(url: httpx.URL) -> bool:
    """Whether what is sent there can be read by nobody in between: by TLS, or since it does not leave this machine."""
    if url.scheme == "https":
        return True
    if url.host == "localhost" or url.host.endswith(".localhost"):
        return True
    try:
        return ip_address(url.host).is_loopback
    except ValueError:
        return False


async def only_in_private(request: httpx.Request) -> None:
    """For httpx's event hooks: raises `HttpsRequired` before anything is sent to a peer that is reached without TLS."""
    if not is_private(request.url):
        raise HttpsRequired("HTTPS is required of this peer.", request=request)
