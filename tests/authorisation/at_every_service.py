"""Attempts at what every service has: health, figures, and the log that anybody may read."""

from __future__ import annotations

from tests.authorisation.attempts import Ask, Scene, attempt
from tests.services.loopback import SERVICES


def _enter(service: str) -> None:
    @attempt(service, "GET /healthz", "asks")
    async def healthz(_: Scene) -> Ask:
        return Ask("/healthz")

    @attempt(service, "GET /readyz", "asks")
    async def readyz(_: Scene) -> Ask:
        return Ask("/readyz")

    @attempt(service, "GET /metrics", "asks")
    async def metrics(_: Scene) -> Ask:
        return Ask("/metrics")

    @attempt(service, "GET /v1/log/checkpoint", "asks")
    async def checkpoint(_: Scene) -> Ask:
        return Ask("/v1/log/checkpoint")

    @attempt(service, "GET /v1/log/consistency", "asks")
    async def consistency(_: Scene) -> Ask:
        return Ask("/v1/log/consistency", params={"from": 0, "to": 1})

    @attempt(service, "POST /v1/log/inclusion", "asks for a leaf whose hash it knows")
    async def inclusion(scene: Scene) -> Ask:
        return Ask("/v1/log/inclusion", json={"leaves": [scene.cast.leaves[service]], "size": 0})


for _service in SERVICES:
    _enter(_service)
