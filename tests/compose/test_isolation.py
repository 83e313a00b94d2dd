"""What each container may do, see and reach."""

from __future__ import annotations

import pytest

from tests.compose.stack import PROXIES, SERVICES, CommandFailed, Stack

pytestmark = pytest.mark.compose

ROLES = tuple(service.replace("-", "_") for service in SERVICES)


@pytest.mark.parametrize("service", [*SERVICES, "postgres"])
async def test_runs_with_nothing_it_does_not_need(stack: Stack, service: str) -> None:
    found = await stack.inspect(service)
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Init"] is True
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["NanoCpus"] > 0
    assert set(host["LogConfig"]["Config"]) == {"max-size", "max-file"}
    # Not what was asked for, but what the kernel says of the process: nobody's uid but its own, and no capability.
    status = dict(line.split(":\t") for line in (await stack.shell(service, "cat /proc/1/status")).splitlines())
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert {int(status[kind], 16) for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("service", [*SERVICES, "postgres"])
@pytest.mark.parametrize("folder", ["/", "/etc", "/usr", "/run/secrets"])
async def test_cannot_write_where_it_has_nothing_to_write(stack: Stack, service: str, folder: str) -> None:
    with pytest.raises(CommandFailed, match=r"Read-only file system|Permission denied"):
        await stack.shell(service, f"touch {folder}/probe")


async def test_only_what_clients_need_is_published_and_on_loopback_only(stack: Stack) -> None:
    for service in SERVICES:
        [published] = (await stack.inspect(service))["NetworkSettings"]["Ports"].values()
        assert {binding["HostIp"] for binding in published} == {"127.0.0.1"}
    assert not any((await stack.inspect("postgres"))["NetworkSettings"]["Ports"].values())


async def test_postgres_is_on_the_internal_network_only(stack: Stack) -> None:
    networks = (await stack.inspect("postgres"))["NetworkSettings"]["Networks"]
    assert list(networks) == [f"{stack.project}_database"]
    assert await stack.docker("network", "inspect", "--format", "{{.Internal}}", f"{stack.project}_database") == "true"


@pytest.mark.parametrize("service", SERVICES)
async def test_sees_its_own_secrets_only_and_cannot_change_them(stack: Stack, service: str) -> None:
    expected = {"pcehr_database_url"}
    if service == "registry":
        expected |= {"pcehr_token_signing_key", "pcehr_log_signing_key", "pcehr_admitted_proxies", "pcehr_records_log"}
    if service == "records":
        expected |= {"pcehr_log_signing_key"}
    if service in PROXIES:
        expected |= {"pcehr_seed"}
    listed = await stack.shell(service, "cd /run/secrets && stat -c '%n %a %u' *")
    assert {line.split()[0] for line in listed.splitlines()} == expected
    assert {line.split(maxsplit=1)[1] for line in listed.splitlines()} == {"440 0"}
    environment = await stack.shell(service, "cat /proc/1/environ | tr '\\0' '\\n'")
    assert "postgresql://" not in environment


async def _psql(stack: Stack, role: str, database: str, query: str) -> str:
    file = "superuser" if role == "postgres" else f"{role}_password"
    psql = f"psql -X -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -U {role} -d {database}"
    return await stack.shell("postgres", f'PGPASSWORD=$(cat /run/secrets/{file}) {psql} -c "{query}"')


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_reaches_its_own_database_and_no_other(stack: Stack, role: str) -> None:
    assert await _psql(stack, role, role, "SELECT current_user || current_database()") == role * 2
    for other in {*ROLES, "postgres", "template1"} - {role}:
        with pytest.raises(CommandFailed, match="permission denied for database"):
            await _psql(stack, role, other, "SELECT 1")


async def test_no_role_has_a_privilege_in_the_server(stack: Stack) -> None:
    privileged = await _psql(
        stack,
        "postgres",
        "postgres",
        "SELECT rolname FROM pg_roles WHERE rolcanlogin"
        " AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)",
    )
    assert privileged.split() == ["postgres"]
    members = await _psql(stack, "postgres", "postgres", "SELECT count(*) FROM pg_auth_members WHERE member > 16383")
    assert members == "0"


async def test_public_may_connect_to_no_database(stack: Stack) -> None:
    # A database whose list of privileges is missing has the defaults, which let everybody connect.
    open_to_all = await _psql(
        stack,
        "postgres",
        "postgres",
        "SELECT datname FROM pg_database WHERE datallowconn AND EXISTS (SELECT FROM"
        " aclexplode(coalesce(datacl, acldefault('d', datdba))) AS acl WHERE acl.grantee = 0)",
    )
    assert open_to_all == ""


async def test_a_wrong_or_missing_password_lets_nobody_in_by_any_way(stack: Stack) -> None:
    for way in ("-h 127.0.0.1", ""):
        for role in ("postgres", "registry"):
            with pytest.raises(CommandFailed, match="password authentication failed"):
                await stack.shell("postgres", f"PGPASSWORD=guess psql -X {way} -U {role} -d {role} -c 'SELECT 1'")


async def test_making_secrets_and_databases_again_changes_nothing(stack: Stack) -> None:
    async def passwords() -> str:
        return await stack.shell("postgres", "cd /run/secrets && cat * | sha256sum")

    before = await passwords()
    await stack.compose("run", "--rm", "--no-deps", "secrets")
    await stack.shell("postgres", "/docker-entrypoint-initdb.d/10-databases.sh")
    assert await passwords() == before
    assert await _psql(stack, "records", "records", "SELECT 1") == "1"
