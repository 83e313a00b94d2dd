"""One stack of containers under a project name of its own, and what the tests do to it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from client.embedded.home import free_ports
from client.keyring import Keyring
from client.session import Session
from client.state import ClientState
from client.transport import Platform
from tests.e2e.actors import Actor, ActorMaker

REPOSITORY = Path(__file__).parents[2]
PROXIES = ("proxy-1", "proxy-2", "proxy-3")
SERVICES = ("registry", "records", *PROXIES)
START_SECONDS = 180


class CommandFailed(AssertionError):
    """A command of the engine ended with another status than 0."""


@cache
def _compose_command() -> tuple[str, ...]:
    """Compose is the client's plug-in or, beside a client without plug-ins, a program of its own."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ("docker", "compose")
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    raise CommandFailed("There is no Compose on this machine; .ci/engine installs it.")


class Stack:
    """Brought up by `up`, removed with everything in it by `down`."""

    def __init__(self, project: str) -> None:
        self.project = project
        registry, records, *proxies = free_ports(2 + len(PROXIES))
        self.registry_url = f"http://127.0.0.1:{registry}"
        self._variables = {
            "COMPOSE_PROJECT_NAME": project,
            "PCEHR_REGISTRY_PORT": str(registry),
            "PCEHR_RECORDS_PORT": str(records),
            **{f"PCEHR_PROXY_{number}_PORT": str(port) for number, port in enumerate(proxies, start=1)},
        }
        self.seconds_to_healthy = 0.0

    async def up(self) -> None:
        await self.compose("build", "--quiet")
        started = time.monotonic()
        try:
            await self.compose("up", "--detach", "--wait", "--wait-timeout", str(START_SECONDS))
        except CommandFailed as failure:
            raise CommandFailed(f"{failure}\n{await self.compose('logs', '--tail', '20')}") from None
        self.seconds_to_healthy = time.monotonic() - started

    async def down(self) -> None:
        await self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")

    async def compose(self, *arguments: str) -> str:
        """What the command prints; raises `CommandFailed`."""
        return await self._run(*_compose_command(), *arguments)

    async def docker(self, *arguments: str) -> str:
        return await self._run("docker", *arguments)

    async def _run(self, *command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=REPOSITORY,
            env={**os.environ, **self._variables},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        if process.returncode != 0:
            raise CommandFailed(f"{' '.join(command)}: {error.decode()[-2000:]}{out.decode()[-500:]}")
        return out.decode().strip()

    async def containers(self, service: str) -> list[str]:
        """Ids of the containers of a service, stopped ones too."""
        return (await self.compose("ps", "--all", "--quiet", service)).split()

    async def container(self, service: str) -> str:
        [container] = await self.containers(service)
        return container

    async def inspect(self, service: str) -> dict[str, Any]:
        [found] = json.loads(await self.docker("inspect", await self.container(service)))
        assert isinstance(found, dict)
        return found

    async def shell(self, service: str, script: str) -> str:
        """Run a script in the container as the service itself."""
        return await self.docker("exec", await self.container(service), "sh", "-c", script)

    async def kill(self, service: str) -> None:
        """End it at once, as a crash would; the engine leaves it away until `start`."""
        await self.docker("kill", "--signal", "KILL", await self.container(service))

    async def start(self, service: str) -> None:
        """Start it again, and wait until it is healthy."""
        container = await self.container(service)
        await self.docker("start", container)
        await self.healthy(container)

    async def healthy(self, container: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while await self.docker("inspect", "--format", "{{.State.Health.Status}}", container) != "healthy":
            if time.monotonic() > deadline:
                raise CommandFailed(f"{container} is not healthy:\n{await self.docker('logs', container)}")
            await asyncio.sleep(0.2)

    async def disconnect(self, service: str) -> None:
        """Take the container off the network where the services meet; its way to Postgres stays."""
        await self.docker("network", "disconnect", f"{self.project}_platform", await self.container(service))

    async def reconnect(self, service: str) -> None:
        aliases = ("--alias", service, "--alias", f"{service}.localhost")
        await self.docker("network", "connect", *aliases, f"{self.project}_platform", await self.container(service))


class LoopbackNames(httpx.AsyncHTTPTransport):
    """Names under .localhost mean the loopback interface (RFC 6761), which not every system's resolver knows."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host.endswith(".localhost"):
            request.url = request.url.copy_with(host="127.0.0.1")
        return await super().handle_async_request(request)


class OutsideActors(ActorMaker):
    """Parties outside the containers, who reach what is published on the loopback interface."""

    async def blank(self, keyring: Keyring | None = None) -> Actor:
        platform = Platform(self.registry_url, transport=LoopbackNames())
        await platform.__aenter__()
        self._platforms.append(platform)
        state = ClientState.load(self._folder / f"{len(self._platforms)}.json")
        keyring = keyring or Keyring.generate()
        return Actor(keyring, Session(keyring, platform, state))
