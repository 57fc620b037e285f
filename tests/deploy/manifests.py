"""The manifests of deploy/, and the pods that come of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonpatch
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERAY = DEPLOY / "kuberay"
SHARED_VOLUME = KUBERAY / "shared-volume"

Document = dict[str, Any]


class Pod(NamedTuple):
    """A pod template of some manifest."""

    name: str
    labels: dict[str, str]
    spec: Document

    @property
    def containers(self) -> list[Document]:
        return list(self.spec["containers"])

    @property
    def ports(self) -> dict[str, int]:
        """Named ports of its containers."""
        return {p["name"]: p["containerPort"] for c in self.containers for p in c.get("ports", [])}


def documents(directory: Path = KUBERAY) -> Iterator[tuple[str, Document]]:
    """Every document under a directory with the name of its file, without kustomizations."""
    for path in sorted(directory.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                yield path.name, document


def kustomization(directory: Path) -> Document:
    """The kustomization of a directory."""
    return dict(yaml.safe_load((directory / "kustomization.yaml").read_text()))


def with_shared_volume() -> list[Document]:
    """What the overlay makes of the base."""
    found = [document for name, document in documents() if name in kustomization(KUBERAY)["resources"]]
    for patch in kustomization(SHARED_VOLUME)["patches"]:
        target = patch["target"]
        [index] = [
            i for i, d in enumerate(found) if (d["kind"], d["metadata"]["name"]) == tuple(target.values())
        ]
        found[index] = jsonpatch.apply_patch(found[index], yaml.safe_load(patch["patch"]))
    return found + [document for _, document in documents(SHARED_VOLUME)]


def pods(found: list[Document]) -> list[Pod]:
    """The pod templates of these documents."""
    made = []
    for document in found:
        spec = document["spec"] if document["kind"] != "ConfigMap" else {}
        name = f"{document['kind']} {document['metadata']['name']}"
        cluster = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec", {})}.get(document["kind"])
        if cluster is not None:
            groups = [("head", cluster["headGroupSpec"])]
            groups += [(group["groupName"], group) for group in cluster["workerGroupSpecs"]]
            made += [_pod(f"{name} {part}", group["template"]) for part, group in groups]
        elif "template" in spec:
            made.append(_pod(name, spec["template"]))
    return made


def _pod(name: str, template: Document) -> Pod:
    return Pod(name, template["metadata"]["labels"], template["spec"])
