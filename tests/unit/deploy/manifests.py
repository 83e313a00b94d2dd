"""Reads deploy/kubernetes as `kubectl kustomize` does, so that its tests need no program but Python."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

REPOSITORY = Path(__file__).parents[3]
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
SITES = ("platform", "proxy-1", "proxy-2", "proxy-3")
SERVICES = {"platform": ("registry", "records"), "proxy-1": ("proxy",), "proxy-2": ("proxy",), "proxy-3": ("proxy",)}
_UNDERSTOOD = {"apiVersion", "kind", "namespace", "resources", "images"}


@cache
def _rendered(folder: Path) -> list[Manifest]:
    return list(_render(folder))


def site(name: str) -> list[Manifest]:
    """All that an example deploys; a copy, so that a test may spoil it."""
    return deepcopy(_rendered(KUBERNETES / "examples" / name))


def files(folder: Path) -> Iterator[Path]:
    """The files that a kustomization is made of, itself included."""
    kustomization = folder / "kustomization.yaml"
    yield kustomization
    for resource in yaml.safe_load(kustomization.read_text("utf-8"))["resources"]:
        path = (folder / resource).resolve()
        yield from files(path) if path.is_dir() else [path]


def _render(folder: Path) -> Iterator[Manifest]:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    assert set(kustomization) <= _UNDERSTOOD, "kustomize has been told something that this reader does not know"
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization.get("images", ())}
    for resource in kustomization["resources"]:
        path = (folder / resource).resolve()
        found = _render(path) if path.is_dir() else yaml.safe_load_all(path.read_text("utf-8"))
        for manifest in found:
            if "namespace" in kustomization and manifest["kind"] != "Namespace":
                manifest["metadata"]["namespace"] = kustomization["namespace"]
            for container in pod_of(manifest).get("containers", ()):
                container["image"] = images.get(container["image"].partition(":")[0], container["image"])
            yield manifest


def pod_of(manifest: Manifest) -> Manifest:
    """The pod's spec within a Deployment or a Job, else nothing."""
    spec = manifest.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    return template["spec"] if template else {}


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]
    return found


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector matches; the manifests use none but matchLabels."""
    assert set(selector) <= {"matchLabels"}
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
