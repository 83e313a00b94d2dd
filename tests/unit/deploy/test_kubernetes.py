"""The manifests of deploy/kubernetes: valid, as restricted as they can be, and in agreement with the services."""

from __future__ import annotations

import asyncio
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from fastapi import FastAPI
from uvicorn.main import main as uvicorn_command

from services.records.blobs import ObjectBlobs, open_store
from shared.db.migrate import is_at_head
from tests.conftest import FreshDatabases
from tests.unit.deploy.apps import ADMITTED, SETTINGS, VALUES, app_of
from tests.unit.deploy.manifests import (
    KUBERNETES,
    REPOSITORY,
    SERVICES,
    SITES,
    Manifest,
    files,
    named,
    of_kind,
    pod_of,
    selects,
    site,
)

OLDEST = "1.30"
"""The first Kubernetes whose lifecycle hooks can sleep without asking the cluster for a feature."""
NEWEST = ".".join(kubernetes_validate.latest_version().split(".")[:2])

SECRETS = "/run/secrets/pcehr"
INSTALLED = [(where, service) for where in SITES for service in SERVICES[where]]
WORKLOADS = [
    pytest.param(where, kind, name, id=f"{where}-{name}")
    for where, service in INSTALLED
    for kind, name in (("Deployment", service), ("Job", f"migrate-{service}"))
]


def deployment(where: str, service: str) -> Manifest:
    return named(site(where), "Deployment", service)


def only_container(workload: Manifest) -> Manifest:
    [container] = pod_of(workload)["containers"]
    return dict(container)


# The schema.


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("where", SITES)
def test_every_manifest_fits_the_schema_of_kubernetes(where: str, version: str) -> None:
    manifests = site(where)
    assert len(manifests) > 10
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def _misspelt_field(manifest: Manifest) -> None:
    container = pod_of(manifest)["containers"][0]
    container["readinesProbe"] = container.pop("readinessProbe")


def _wrong_type(manifest: Manifest) -> None:
    manifest["spec"]["replicas"] = "two"


def _missing_field(manifest: Manifest) -> None:
    del manifest["spec"]["selector"]


def _field_in_the_wrong_place(manifest: Manifest) -> None:
    pod_of(manifest)["replicas"] = 2


@pytest.mark.parametrize("spoil", [_misspelt_field, _wrong_type, _missing_field, _field_in_the_wrong_place])
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_a_planted_fault_is_found_by_the_schema(spoil: Callable[[Manifest], None], version: str) -> None:
    manifest = deployment("platform", "records")
    spoil(manifest)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_every_file_is_deployed_by_an_example() -> None:
    deployed = {path for where in SITES for path in files(KUBERNETES / "examples" / where)}
    assert set(KUBERNETES.rglob("*.yaml")) <= deployed | {
        KUBERNETES / base / "kustomization.yaml" for base in ("platform", "proxy")
    }
    assert [path for path in KUBERNETES.rglob("*") if path.is_file() and path.suffix != ".yaml"] == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="compares with kubectl where there is one")
@pytest.mark.parametrize("where", SITES)
def test_kubectl_makes_the_same_of_them(where: str) -> None:
    folder = KUBERNETES / "examples" / where
    shown = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, check=True, text=True)

    def sorted_by_name(manifests: list[Manifest]) -> list[Manifest]:
        return sorted(manifests, key=lambda one: (one["kind"], one["metadata"]["name"]))

    assert sorted_by_name(list(yaml.safe_load_all(shown.stdout))) == sorted_by_name(site(where))


# What a container may do.


def freedoms(pod: Manifest) -> list[str]:
    """What the pod may do beyond the Pod Security Standard "restricted" and this project's own rules."""
    found = []
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") != 10001:
        found.append("user")
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("seccomp")
    if pod.get("automountServiceAccountToken") is not False:
        found.append("token")
    if pod.get("enableServiceLinks") is not False:
        found.append("links")
    if any(pod.get(namespace) for namespace in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("host")
    for volume in pod["volumes"]:
        if set(volume) - {"name"} not in ({"projected"}, {"emptyDir"}):
            found.append("volume")
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            found.append("unbounded volume")
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("escalation")
        if own.get("readOnlyRootFilesystem") is not True:
            found.append("root")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            found.append("capabilities")
        if set(own) - {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}:
            found.append("override")
        resources = container.get("resources", {})
        if any(set(resources.get(kind, ())) != {"cpu", "memory"} for kind in ("requests", "limits")):
            found.append("resources")
        if any(port.get("hostPort") for port in container.get("ports", ())):
            found.append("host")
        if any(not mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] != "tmp"):
            found.append("writable secrets")
    return found


@pytest.mark.parametrize(("where", "kind", "name"), WORKLOADS)
def test_no_container_may_do_more_than_it_needs(where: str, kind: str, name: str) -> None:
    assert freedoms(pod_of(named(site(where), kind, name))) == []


SPOILT: dict[str, Callable[[Manifest], object]] = {
    "user": lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    "seccomp": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "token": lambda pod: pod.pop("automountServiceAccountToken"),
    "links": lambda pod: pod.pop("enableServiceLinks"),
    "host": lambda pod: pod.update(hostNetwork=True),
    "volume": lambda pod: pod["volumes"].append({"name": "disk", "hostPath": {"path": "/"}}),
    "unbounded volume": lambda pod: pod["volumes"].append({"name": "more", "emptyDir": {}}),
    "escalation": lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "root": lambda pod: pod["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
    "capabilities": lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["CHOWN"]),
    "override": lambda pod: pod["containers"][0]["securityContext"].update(runAsUser=0),
    "resources": lambda pod: pod["containers"][0]["resources"]["limits"].pop("memory"),
    "writable secrets": lambda pod: pod["containers"][0]["volumeMounts"][0].pop("readOnly"),
}


@pytest.mark.parametrize("freedom", SPOILT)
def test_each_freedom_is_noticed(freedom: str) -> None:
    pod = pod_of(deployment("platform", "records"))
    SPOILT[freedom](pod)
    assert freedoms(pod) == [freedom]


@pytest.mark.parametrize("where", SITES)
def test_the_namespace_refuses_pods_that_are_not_restricted(where: str) -> None:
    manifests = site(where)
    [namespace] = of_kind(manifests, "Namespace")
    labels = namespace["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}
    placed = {one["metadata"].get("namespace") for one in manifests if one is not namespace}
    assert placed == {namespace["metadata"]["name"]}


@pytest.mark.parametrize(("where", "service"), INSTALLED)
def test_a_service_account_has_no_token(where: str, service: str) -> None:
    manifests = site(where)
    assert named(manifests, "ServiceAccount", service)["automountServiceAccountToken"] is False
    for workload in of_kind(manifests, "Deployment", "Job"):
        assert pod_of(workload)["serviceAccountName"] in SERVICES[where]


@pytest.mark.parametrize("where", SITES)
def test_no_secret_is_contained(where: str) -> None:
    manifests = site(where)
    assert of_kind(manifests, "Secret") == []
    for workload in of_kind(manifests, "Deployment", "Job"):
        container = only_container(workload)
        assert [one for one in container.get("env", ()) if "value" not in one] == []
        # The one exception is credentials that the object store's own tools read from the environment.
        secrets = [source["secretRef"]["name"] for source in container.get("envFrom", ()) if "secretRef" in source]
        assert secrets in ([], ["records-object-store"])


# Images and releases.


def test_images_are_of_the_release_that_they_belong_to() -> None:
    release = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    bases = [
        line.split("image:")[1].strip()
        for path in (KUBERNETES / "platform", KUBERNETES / "proxy")
        for file in path.glob("*.yaml")
        for line in file.read_text("utf-8").splitlines()
        if "image:" in line
    ]
    assert len(bases) == 6
    assert set(bases) == {f"pcehr:{release}"}
    for where in SITES:
        for workload in of_kind(site(where), "Deployment", "Job"):
            name, _, tag = only_container(workload)["image"].rpartition(":")
            assert (name, tag) == ("images.example.org/pcehr", release)


# The settings.


def variables(where: str, workload: Manifest) -> dict[str, str]:
    """The environment of the workload's container, as far as the manifests tell it."""
    container = only_container(workload)
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            found |= named(site(where), "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {one["name"]: one["value"] for one in container.get("env", ())}


def mounted(workload: Manifest) -> set[str]:
    """Names of the files in the container's folder of secrets."""
    [mount] = [one for one in only_container(workload)["volumeMounts"] if one["name"] == "secrets"]
    assert mount["mountPath"] == SECRETS
    [volume] = [one for one in pod_of(workload)["volumes"] if one["name"] == "secrets"]
    # Readable by the group that the pod's fsGroup is, and by nobody else.
    assert volume["projected"]["defaultMode"] == 0o440
    assert pod_of(workload)["securityContext"]["fsGroup"] == 10001
    return {item["path"] for source in volume["projected"]["sources"] for of in source.values() for item in of["items"]}


@pytest.mark.parametrize(("where", "service"), INSTALLED)
def test_every_variable_is_a_setting_of_that_service(where: str, service: str) -> None:
    found = variables(where, deployment(where, service))
    settings = {f"PCEHR_{name.upper()}" for name in SETTINGS[service].model_fields} | {"PCEHR_SECRETS_DIR"}
    server = {f"UVICORN_{parameter.name.upper()}" for parameter in uvicorn_command.params if parameter.name}
    assert len(found) > 3
    assert set(found) <= settings | server


@pytest.mark.parametrize(("where", "service"), INSTALLED)
def test_every_secret_file_is_a_setting_and_none_is_missing(where: str, service: str) -> None:
    workload = deployment(where, service)
    fields = SETTINGS[service].model_fields
    given = mounted(workload)
    assert given <= {f"pcehr_{name}" for name in fields}
    wanted = {f"pcehr_{name}" for name, field in fields.items() if field.is_required()}
    assert wanted - given <= {name.lower() for name in variables(where, workload)}
    assert variables(where, workload)["PCEHR_SECRETS_DIR"] == SECRETS


def as_kubelet(folder: Path, contents: dict[str, str]) -> Path:
    """Files as a projected volume shows them: links to links, so that all of them change at once."""
    (folder / "..2026_01_01").mkdir(parents=True)
    (folder / "..data").symlink_to("..2026_01_01")
    for name, text in contents.items():
        (folder / "..2026_01_01" / name).write_text(text, "utf-8")
        (folder / name).symlink_to(f"..data/{name}")
    return folder


def loaded(where: str, service: str, folder: Path, patch: pytest.MonkeyPatch) -> Any:
    workload = deployment(where, service)
    secrets = as_kubelet(folder / where / service, {name: VALUES[name] for name in mounted(workload)})
    with patch.context() as environment:
        for name, value in variables(where, workload).items():
            environment.setenv(name, value)
        environment.setenv("PCEHR_SECRETS_DIR", str(secrets))
        return SETTINGS[service]()


def test_the_services_start_with_these_settings_and_they_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = loaded("platform", "registry", tmp_path, monkeypatch)
    records = loaded("platform", "records", tmp_path, monkeypatch)
    proxies = [loaded(where, "proxy", tmp_path, monkeypatch) for where in SITES[1:]]
    assert registry.admitted_proxies == frozenset(ADMITTED)
    assert registry.threshold <= len(proxies)
    for other in (records, *proxies):
        assert other.issuer == registry.issuer == registry.public_url
        assert other.database_url.get_secret_value() == VALUES["pcehr_database_url"]
    assert len({proxy.endpoint for proxy in proxies}) == len({proxy.name for proxy in proxies}) == len(proxies)
    assert {proxy.registry_url for proxy in proxies} == {registry.public_url}
    service = named(site("platform"), "Service", "registry")
    assert records.registry_url == f"http://registry:{service['spec']['ports'][0]['port']}"


def test_large_bodies_are_where_all_replicas_see_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    records = loaded("platform", "records", tmp_path, monkeypatch)
    assert isinstance(open_store(tmp_path, records.blob_url), ObjectBlobs)


# How it runs.


@pytest.mark.parametrize(("where", "service"), INSTALLED)
def test_probes_and_scrapes_lead_to_routes_and_ports_that_are_there(
    where: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = deployment(where, service)
    container = only_container(workload)
    assert container["command"] == ["uvicorn", f"services.{service}.main:create"]
    assert callable(importlib.import_module(f"services.{service}.main").create)
    paths = app_of(service, monkeypatch).openapi()["paths"]
    [port] = container["ports"]
    assert variables(where, workload)["UVICORN_PORT"] == str(port["containerPort"])
    probes = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe: found["path"] for probe, found in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert all(found["path"] in paths and found["port"] == port["name"] for found in probes.values())
    annotations = workload["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert "get" in paths[annotations["prometheus.io/path"]]
    [service_port] = named(site(where), "Service", service)["spec"]["ports"]
    assert (service_port["port"], service_port["targetPort"]) == (port["containerPort"], port["name"])


@pytest.mark.parametrize(("where", "service"), INSTALLED)
def test_nothing_goes_away_before_something_else_is_ready(where: str, service: str) -> None:
    workload = deployment(where, service)
    assert workload["spec"]["replicas"] >= 2
    assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pause = only_container(workload)["lifecycle"]["preStop"]["sleep"]["seconds"]
    [finishing] = re.findall(r"UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN=(\d+)", (REPOSITORY / "Dockerfile").read_text("utf-8"))
    assert pod_of(workload)["terminationGracePeriodSeconds"] > pause + int(finishing)
    budget = named(site(where), "PodDisruptionBudget", service)["spec"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] < workload["spec"]["replicas"]
    assert selects(budget["selector"], labels)
    spread = pod_of(workload)["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert all(selects(one["labelSelector"], labels) for one in spread)


@pytest.mark.parametrize(("where", "service"), INSTALLED)
def test_a_migration_is_not_taken_for_the_service(where: str, service: str) -> None:
    manifests = site(where)
    migration = named(manifests, "Job", f"migrate-{service}")["spec"]["template"]["metadata"]["labels"]
    server = deployment(where, service)["spec"]["template"]["metadata"]["labels"]
    for selector in (
        {"matchLabels": named(manifests, "Service", service)["spec"]["selector"]},
        deployment(where, service)["spec"]["selector"],
        named(manifests, "PodDisruptionBudget", service)["spec"]["selector"],
    ):
        assert selects(selector, server)
        assert not selects(selector, migration)


@pytest.mark.parametrize(("where", "service"), INSTALLED)
async def test_the_migration_brings_an_empty_database_to_head(
    where: str, service: str, tmp_path: Path, fresh_database: FreshDatabases
) -> None:
    url = await fresh_database()
    job = named(site(where), "Job", f"migrate-{service}")
    assert mounted(job) == {"pcehr_database_url"}
    shell, options, script = only_container(job)["command"]
    secrets = as_kubelet(tmp_path / "secrets", {"pcehr_database_url": url})
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}

    def run(text: str) -> int:
        return subprocess.run([shell, options, text], env=environment, check=False, cwd="/").returncode

    for _ in range(2):
        assert await asyncio.to_thread(run, script.replace(SECRETS, str(secrets))) == 0
    assert await is_at_head(service, url)
    # Without its secret it fails, and says so to Kubernetes.
    assert await asyncio.to_thread(run, script.replace(SECRETS, str(tmp_path / "nowhere"))) != 0


# The way in.

DOCUMENTS = {"/docs", "/openapi.json"}
INSIDE = {"/metrics", "/healthz", "/readyz"}


@pytest.mark.parametrize(("where", "service"), INSTALLED)
def test_the_ingress_lets_every_public_route_in_and_no_other(
    where: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(service, monkeypatch)
    [rule] = named(site(where), "Ingress", service)["spec"]["rules"]
    prefixes = {path["path"] for path in rule["http"]["paths"]}

    def let_in(path: str) -> bool:
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)

    routes = set(app.openapi()["paths"]) | DOCUMENTS | {f"{static_files(app)}/swagger-ui.css"}
    assert routes >= INSIDE
    assert {path for path in routes if not let_in(path)} == INSIDE
    for path in rule["http"]["paths"]:
        assert path["pathType"] == "Prefix"
        assert path["backend"]["service"] == {"name": service, "port": {"name": "http"}}


def static_files(app: FastAPI) -> str:
    """Where Swagger UI's own files are."""
    [mount] = [route.path for route in app.routes if type(route).__name__ == "Mount"]
    return str(mount)


@pytest.mark.parametrize(("where", "service"), INSTALLED)
def test_the_ingress_ends_tls_under_the_address_that_is_told_to_clients(where: str, service: str) -> None:
    ingress = named(site(where), "Ingress", service)["spec"]
    [rule] = ingress["rules"]
    [tls] = ingress["tls"]
    assert tls["hosts"] == [rule["host"]]
    assert tls["secretName"]
    setting = {"registry": "PCEHR_PUBLIC_URL", "records": "PCEHR_RECORDS_URL", "proxy": "PCEHR_ENDPOINT"}[service]
    told = variables(where, deployment(where, "proxy" if service == "proxy" else "registry"))[setting]
    assert told == f"https://{rule['host']}"


# What is written about it.


def test_the_document_names_every_secret_that_has_to_be_made() -> None:
    document = (REPOSITORY / "docs" / "kubernetes.md").read_text("utf-8")
    wanted = set()
    for where in SITES:
        for workload in of_kind(site(where), "Deployment"):
            [volume] = [one for one in pod_of(workload)["volumes"] if one["name"] == "secrets"]
            for source in volume["projected"]["sources"]:
                for of in source.values():
                    wanted |= {f"`{of['name']}`"} | {f"`{item['key']}`" for item in of["items"]}
            optional = [
                one["secretRef"]["name"] for one in only_container(workload).get("envFrom", ()) if "secretRef" in one
            ]
            wanted |= {f"`{name}`" for name in optional}
    assert len(wanted) > 6
    assert {name for name in wanted if name not in document} == set()
