"""Who may reach whom in the cluster of the examples, worked out from the NetworkPolicies as Kubernetes defines them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.unit.deploy.manifests import SERVICES, SITES, Manifest, of_kind, selects, site

Labels = dict[str, str]


@dataclass(frozen=True)
class Pod:
    """Somebody who sends or receives; `None` as the namespace is an address outside the cluster."""

    namespace: str | None
    labels: tuple[tuple[str, str], ...] = ()


def pod(namespace: str | None, **labels: str) -> Pod:
    names = {"name": "app.kubernetes.io/name", "component": "app.kubernetes.io/component", "cluster": "cnpg.io/cluster"}
    return Pod(namespace, tuple((names[key], value) for key, value in labels.items()))


OTHER_NAMESPACES: dict[str, Labels] = {
    "ingress": {"pcehr-role": "ingress"},
    "monitoring": {"pcehr-role": "monitoring"},
    "cnpg-system": {},
    "kube-system": {},
    "somebody": {},
}
PARTIES = {
    "registry": pod("pcehr", name="registry", component="server"),
    "registry's migration": pod("pcehr", name="registry", component="migration"),
    "registry-db": pod("pcehr", cluster="registry-db"),
    "records": pod("pcehr", name="records", component="server"),
    "records' migration": pod("pcehr", name="records", component="migration"),
    "records-db": pod("pcehr", cluster="records-db"),
    **{f"proxy-{n}": pod(f"pcehr-proxy-{n}", name="proxy", component="server") for n in (1, 2, 3)},
    **{f"proxy-{n}'s migration": pod(f"pcehr-proxy-{n}", name="proxy", component="migration") for n in (1, 2, 3)},
    **{f"proxy-db-{n}": pod(f"pcehr-proxy-{n}", cluster="proxy-db") for n in (1, 2, 3)},
    "ingress": pod("ingress"),
    "monitoring": pod("monitoring"),
    "operator of databases": pod("cnpg-system"),
    "stranger": pod("somebody", name="records", component="server"),
    "neighbour": pod("pcehr"),
    "outside": pod(None),
}
PORTS = {"registry": 8400, "records": 8401} | {f"proxy-{n}": 8411 for n in (1, 2, 3)}
DATABASES = {"registry-db": "registry", "records-db": "records"} | {f"proxy-db-{n}": f"proxy-{n}" for n in (1, 2, 3)}


class Cluster:
    """Namespaces with their labels, and the policies that hold in them."""

    def __init__(self, namespaces: dict[str, Labels], policies: list[Manifest]) -> None:
        self.namespaces = {name: {**labels, "kubernetes.io/metadata.name": name} for name, labels in namespaces.items()}
        self.policies = policies

    def may_reach(self, source: str, target: str, port: int, protocol: str = "TCP") -> bool:
        a, b = PARTIES[source], PARTIES[target]
        return self.allows("Egress", a, b, port, protocol) and self.allows("Ingress", b, a, port, protocol)

    def who_may_reach(self, target: str, port: int) -> set[str]:
        return {source for source in PARTIES if source != target and self.may_reach(source, target, port)}

    def allows(self, direction: str, subject: Pod, other: Pod, port: int, protocol: str) -> bool:
        """One direction alone: whether the policies that select the subject let the other one in, or it out."""
        way, key = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        chosen = [
            policy
            for policy in self.policies
            if policy["metadata"]["namespace"] == subject.namespace
            and direction in policy["spec"]["policyTypes"]
            and selects(policy["spec"]["podSelector"], dict(subject.labels))
        ]
        if not chosen:
            return True
        for policy in chosen:
            for rule in policy["spec"].get(way, ()):
                ports = [(one.get("port"), one.get("protocol", "TCP")) for one in rule.get("ports", ())]
                peers = rule.get(key, ())
                if (not ports or (port, protocol) in ports) and (
                    not peers or any(self._is_peer(peer, policy, other) for peer in peers)
                ):
                    return True
        return False

    def _is_peer(self, peer: Manifest, policy: Manifest, other: Pod) -> bool:
        assert set(peer) <= {"namespaceSelector", "podSelector"}
        if other.namespace is None:
            return False
        if "namespaceSelector" in peer:
            if not selects(peer["namespaceSelector"], self.namespaces[other.namespace]):
                return False
        elif other.namespace != policy["metadata"]["namespace"]:
            return False
        return selects(peer.get("podSelector", {}), dict(other.labels))


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    namespaces = dict(OTHER_NAMESPACES)
    policies: list[Manifest] = []
    for where in SITES:
        manifests = site(where)
        for namespace in of_kind(manifests, "Namespace"):
            namespaces[namespace["metadata"]["name"]] = namespace["metadata"]["labels"]
        policies += of_kind(manifests, "NetworkPolicy")
    return Cluster(namespaces, policies)


def test_the_registry_is_reached_by_the_services_the_ingress_and_prometheus(cluster: Cluster) -> None:
    assert cluster.who_may_reach("registry", 8400) == {
        "records",
        "proxy-1",
        "proxy-2",
        "proxy-3",
        "ingress",
        "monitoring",
    }


def test_the_records_service_is_reached_by_the_ingress_and_prometheus(cluster: Cluster) -> None:
    assert cluster.who_may_reach("records", 8401) == {"ingress", "monitoring"}


@pytest.mark.parametrize("proxy", ["proxy-1", "proxy-2", "proxy-3"])
def test_a_proxy_is_reached_by_the_platform_the_ingress_and_prometheus_and_by_no_other_proxy(
    cluster: Cluster, proxy: str
) -> None:
    assert cluster.who_may_reach(proxy, 8411) == {"registry", "records", "ingress", "monitoring"}


@pytest.mark.parametrize("database", DATABASES)
def test_a_database_is_reached_by_its_own_service_only(cluster: Cluster, database: str) -> None:
    service = DATABASES[database]
    migration = f"{service}' migration" if service.endswith("s") else f"{service}'s migration"
    assert cluster.who_may_reach(database, 5432) == {service, migration, "operator of databases"}
    assert cluster.who_may_reach(database, 8000) == {"operator of databases"}


@pytest.mark.parametrize("target", [*PORTS, *DATABASES])
def test_every_other_port_is_shut(cluster: Cluster, target: str) -> None:
    for port in (22, 80, 443, 9090):
        assert cluster.who_may_reach(target, port) == set()


@pytest.mark.parametrize("source", [*PORTS, *(name for name in PARTIES if name.endswith("migration"))])
def test_out_of_the_cluster_only_by_https_and_no_migration_at_all(cluster: Cluster, source: str) -> None:
    out = {port for port in (22, 53, 80, 443, 5432, 8400, 8411) if cluster.may_reach(source, "outside", port)}
    assert out == (set() if source.endswith("migration") else {443})


def test_a_pod_that_nothing_is_said_about_reaches_nobody(cluster: Cluster) -> None:
    for target in PARTIES:
        for port in (80, 443, 5432, 8400, 8401, 8411):
            assert not cluster.may_reach("neighbour", target, port) or target == "neighbour"


@pytest.mark.parametrize("source", [*PORTS, *DATABASES, "neighbour"])
def test_names_can_be_looked_up(cluster: Cluster, source: str) -> None:
    names = Pod("kube-system", (("k8s-app", "kube-dns"),))
    assert cluster.allows("Egress", PARTIES[source], names, 53, "UDP")
    assert cluster.allows("Egress", PARTIES[source], names, 53, "TCP")
    assert not cluster.allows("Egress", PARTIES[source], Pod("kube-system"), 53, "UDP")


def test_every_service_of_the_examples_is_in_this_table() -> None:
    deployed = {where if where.startswith("proxy") else name for where in SITES for name in SERVICES[where]}
    assert deployed == set(PORTS)


def test_without_the_policies_this_would_be_noticed(cluster: Cluster) -> None:
    without = [one for one in cluster.policies if one["metadata"]["name"] != "registry-db"]
    # What remains is the default, which denies.
    assert Cluster(cluster.namespaces, without).who_may_reach("registry-db", 5432) == set()
    assert Cluster(cluster.namespaces, []).who_may_reach("registry-db", 5432) == set(PARTIES) - {"registry-db"}
