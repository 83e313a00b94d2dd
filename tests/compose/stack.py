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

from client.embedded.home import free_ports

REPOSITORY = Path(__file__).parents[2]
PROXIES = ("proxy-1", "proxy-2", "proxy-3")
SERVICES = ("registry", "records", *PROXIES)
START_SECONDS = 420


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
    """Brought up by `up`, removed with everything in it by `down`.

    With `doors` there are two replicas of the registry and of the records service, each kind behind a door.
    """

    def __init__(self, project: str, *, doors: bool = False) -> None:
        self.project = project
        self._scale = ("--scale", "registry=2", "--scale", "records=2") if doors else ()
        registry, records, *proxies = free_ports(2 + len(PROXIES))
        self.registry_url = f"http://127.0.0.1:{registry}"
        self._variables = {
            "COMPOSE_PROJECT_NAME": project,
            "COMPOSE_FILE": "docker-compose.yml" + (":deploy/compose/scaled.yml" if doors else ""),
            "PCEHR_REGISTRY_PORT": str(registry),
            "PCEHR_RECORDS_PORT": str(records),
            **{f"PCEHR_PROXY_{number}_PORT": str(port) for number, port in enumerate(proxies, start=1)},
        }
        self.seconds_to_healthy = 0.0
        # Not the name that people use, so that nobody's image is replaced and nobody replaces this one.
        self.image = f"{project}:this"
        self._images = [self.image]

    async def up(self) -> None:
        await self.compose("build", "--quiet")
        started = time.monotonic()
        try:
            await self.compose("up", "--detach", "--wait", "--wait-timeout", str(START_SECONDS), *self._scale)
        except CommandFailed as failure:
            raise CommandFailed(f"{failure}\n{await self.compose('logs', '--tail', '20')}") from None
        self.seconds_to_healthy = time.monotonic() - started

    async def down(self) -> None:
        await self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")
        for image in self._images:
            await self.docker("image", "rm", "--force", image)

    async def build(self, context: Path) -> str:
        """The name of an image, which goes with the stack."""
        image = f"{self.project}:{context.name}"
        await self.docker("build", "--quiet", "--tag", image, str(context))
        self._images.append(image)
        return image

    async def compose(self, *arguments: str, image: str | None = None) -> str:
        """What the command prints; raises `CommandFailed`. `image` is of another release than this one."""
        return await self._run(*_compose_command(), *arguments, image=image)

    async def docker(self, *arguments: str) -> str:
        return await self._run("docker", *arguments)

    async def upgrade(self, image: str) -> None:
        """Bring it to another release, as an operator does."""
        await self._run("deploy/compose/upgrade", image=image)

    async def _run(self, *command: str, image: str | None = None) -> str:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=REPOSITORY,
            env={**os.environ, **self._variables, "PCEHR_IMAGE": image or self.image},
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
        while await self.health(container) != "healthy":
            if time.monotonic() > deadline:
                raise CommandFailed(f"{container} is not healthy:\n{await self.docker('logs', container)}")
            await asyncio.sleep(0.2)

    async def health(self, container: str) -> str:
        """What its health check says."""
        return await self.docker("inspect", "--format", "{{.State.Health.Status}}", container)

    async def disconnect(self, service: str) -> None:
        """Take the container off the network where the services meet; its way to Postgres stays."""
        await self.docker("network", "disconnect", f"{self.project}_platform", await self.container(service))

    async def reconnect(self, service: str) -> None:
        aliases = ("--alias", service, "--alias", f"{service}.localhost")
        await self.docker("network", "connect", *aliases, f"{self.project}_platform", await self.container(service))
