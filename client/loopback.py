"""Names under `.localhost` mean this machine, whatever its resolver knows (RFC 6761, section 6.3)."""

from __future__ import annotations

import httpx


class Loopback(httpx.AsyncBaseTransport):
    """Takes every request to the IPv4 loopback interface, at the port it was for.

    The request still says which name it was for, in its Host header and in the TLS handshake.
    """

    def __init__(self, network: httpx.AsyncBaseTransport) -> None:
        self._network = network

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._network.handle_async_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1"),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": request.url.host},
            )
        )

    async def aclose(self) -> None:
        await self._network.aclose()
