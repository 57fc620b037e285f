"""What deploy/ says is valid for those who will read it, and agrees with itself and with the package."""

import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser
from jsonschema import Draft202012Validator, validate

from tests.deploy.manifests import (
    DEPLOY,
    KUBERAY,
    SHARED_VOLUME,
    Document,
    Pod,
    documents,
    kustomization,
    pods,
    with_shared_volume,
)

ROOT = DEPLOY.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
README = (DEPLOY / "README.md").read_text()

BASE = [document for _, document in documents()]
ALL = [*BASE, *with_shared_volume()]
PODS = pods(ALL)

KUBERNETES = "1.36.0"


def _one(kind: str, found: list[Document] | None = None) -> Document:
    [document] = [d for d in (BASE if found is None else found) if d["kind"] == kind]
    return document


def _ids(items: list[Any]) -> list[str]:
    return [f"{i}" for i in range(len(items))]


# --- formats ---


@pytest.mark.parametrize("document", ALL, ids=_ids(ALL))
def test_a_manifest_fits_its_schema(document: Document) -> None:
    group = document["apiVersion"].partition("/")[0]
    if group == "ray.io":
        schema = json.loads((Path(__file__).parent / "ray.io-v1.json").read_text())
        Draft202012Validator(schema).validate(document)
    elif group == "monitoring.coreos.com":
        from cloudcoil.models.prometheus_operator import v1

        read = v1.PodMonitor.model_validate(document)
        # a field that the operator does not know would be missing in what was read
        assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == document
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("pod", PODS, ids=[pod.name for pod in PODS])
def test_a_pod_template_makes_a_valid_pod(pod: Pod) -> None:
    metadata = {"name": "x", "labels": pod.labels}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec}
    kubernetes_validate.validate(made, KUBERNETES, strict=True)


def test_the_cluster_without_kubernetes_is_one_that_ray_up_takes() -> None:
    import ray
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((DEPLOY / "ray-up.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    validate(config, schema)
    # as ray up does
    validate_config(prepare_config(config))


def test_the_image_has_no_fault_that_a_linter_finds() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run(
        [hadolint, "--failure-threshold", "style", DEPLOY / "Dockerfile"], capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "")


# --- the image ---


def _stages() -> list[list[dict[str, str]]]:
    stages: list[list[dict[str, str]]] = []
    parser = DockerfileParser(fileobj=io.BytesIO((DEPLOY / "Dockerfile").read_bytes()))
    for line in parser.structure:
        if line["instruction"] == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(line)
    return stages


def test_the_image_is_built_of_the_packages_and_of_nothing_else() -> None:
    copied = [word for s in _stages()[0] if s["instruction"] == "COPY" for word in s["value"].split()[:-1]]
    packages = {name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    assert sorted(copied) == sorted([*packages, "pyproject.toml", "README.md", "LICENSE"])
    assert all((ROOT / name).exists() for name in copied)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    assert "*" in ignored
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied)


def test_the_image_runs_as_nobody_special_and_has_no_tools_to_build() -> None:
    _, final = _stages()
    [user] = [line["value"] for line in final if line["instruction"] == "USER"]
    assert user == "1000:1000"
    installed = " ".join(line["value"] for line in final if line["instruction"] == "RUN")
    assert "apt-get install --yes --no-install-recommends wget &&" in " ".join(installed.split())
    assert not re.search(r"\b(gcc|g\+\+|build-essential|make|git|cargo)\b", installed)
    assert "pip uninstall --yes pip setuptools" in installed


def test_every_place_names_the_same_versions() -> None:
    images = {container["image"] for pod in PODS for container in pod.containers}
    assert images == {f"page-pool-farm:{VERSION}"}
    text = (DEPLOY / "Dockerfile").read_text()
    [ray_version] = re.findall(r"ARG RAY_VERSION=(\S+)", text)
    assert f"-t page-pool-farm:{VERSION} ." in text
    clusters = [_one("RayCluster")["spec"], _one("RayJob")["spec"]["rayClusterSpec"]]
    assert {cluster["rayVersion"] for cluster in clusters} == {ray_version}
    ray_up = (DEPLOY / "ray-up.yaml").read_text()
    assert set(re.findall(r"ray\[default\]==([0-9.]+)", ray_up)) == {ray_version}
    assert set(re.findall(r"page_pool_farm-([0-9.]+)-py3-none-any\.whl", ray_up)) == {VERSION}
    # tokens came with 2.52
    assert tuple(map(int, ray_version.split(".")[:2])) >= (2, 52)
    [python] = re.findall(r"ARG PYTHON_VERSION=(\S+)", text)
    assert PROJECT["project"]["requires-python"] == f">={python}"


# --- commands ---


def _check_command(words: list[str]) -> None:
    """Parse a command line of the farm as the command does, without running it."""
    import typer

    from farm.cli import app

    assert words[0] == "farm"
    command = typer.main.get_command(app)
    context = command.make_context("farm", list(words[1:]))
    rest = words[1:]
    while isinstance(command, typer.core.TyperGroup):
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None
        # parsing takes the words out of the list that it is given
        context = command.make_context(name, list(rest), parent=context)


def test_commands_of_pods_and_jobs_are_ones_that_the_farm_has() -> None:
    commands = [c["command"] for pod in PODS for c in pod.containers if "command" in c]
    commands.append(shlex.split(_one("RayJob")["spec"]["entrypoint"]))
    [cmd] = [line["value"] for line in _stages()[1] if line["instruction"] == "CMD"]
    assert json.loads(cmd) == ["farm", "--help"]
    assert len(commands) == 3
    for command in commands:
        _check_command(command)


def test_commands_in_the_page_are_ones_that_the_farm_has(monkeypatch: pytest.MonkeyPatch) -> None:
    # which the page exports before them
    monkeypatch.setenv("FARM_ADDRESS", "http://127.0.0.1:8265")
    lines = re.findall(r"^(?:export \S+ )?(farm [^#\n]*)", README, flags=re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        _check_command(shlex.split(line))


def test_ray_is_started_with_options_that_it_has() -> None:
    from ray.scripts.scripts import start

    options = {name for parameter in start.params for name in parameter.opts}
    clusters = [_one("RayCluster")["spec"], _one("RayJob")["spec"]["rayClusterSpec"]]
    groups = [g for c in clusters for g in (c["headGroupSpec"], *c["workerGroupSpecs"])]
    used = {f"--{name}" for group in groups for name in group["rayStartParams"]}
    used |= set(re.findall(r"(--[a-z-]+)(?:=|\s)", " ".join(_ray_starts())))
    assert used <= options


def _ray_starts() -> list[str]:
    config = yaml.safe_load((DEPLOY / "ray-up.yaml").read_text())
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    return [command for command in commands if "ray start" in command]


# --- selectors and ports ---


def _matches(selector: Document, labels: dict[str, str]) -> bool:
    assert set(selector) == {"matchLabels"}
    return all(labels.get(key) == value for key, value in selector["matchLabels"].items())


def test_each_monitor_selects_one_kind_of_pod_and_ports_that_it_has() -> None:
    monitors = [document for document in BASE if document["kind"] == "PodMonitor"]
    seen: list[str] = []
    for monitor in monitors:
        chosen = [pod for pod in PODS if _matches(monitor["spec"]["selector"], pod.labels)]
        [kind] = {pod.labels["app.kubernetes.io/component"] for pod in chosen}
        seen.append(kind)
        scraped = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
        assert all(scraped == {name for name in pod.ports if "metrics" in name} for pod in chosen)
    assert sorted(seen) == ["head", "metrics", "worker"]


def test_ports_of_metrics_are_those_on_which_they_are_served() -> None:
    clusters = [_one("RayCluster")["spec"], _one("RayJob")["spec"]["rayClusterSpec"]]
    for cluster in clusters:
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            [pod] = pods([_cluster_of(group)])
            assert pod.ports["metrics"] == int(group["rayStartParams"]["metrics-export-port"])
    from ray._private import ray_constants
    from ray.dashboard import consts

    head = pods([_one("RayCluster")])[0]
    assert head.ports["dash-metrics"] == consts.DASHBOARD_METRIC_PORT
    assert head.ports["gcs-server"] == ray_constants.DEFAULT_PORT
    assert head.ports["dashboard"] == ray_constants.DEFAULT_DASHBOARD_PORT
    [metrics] = [pod for pod in pods(BASE) if pod.name.startswith("Deployment")]
    [container] = metrics.containers
    assert container["command"][-2:] == ["--port", str(metrics.ports["farm-metrics"])]


def _cluster_of(group: Document) -> Document:
    """A document with this group alone."""
    spec = {"headGroupSpec": group, "workerGroupSpecs": []}
    return {"kind": "RayCluster", "metadata": {"name": "x"}, "spec": spec}


def test_the_network_policy_covers_every_pod_and_names_ports_that_exist() -> None:
    spec = _one("NetworkPolicy")["spec"]
    assert all(_matches(spec["podSelector"], pod.labels) for pod in PODS)
    known = {name for pod in PODS for name in pod.ports}
    for rule in spec["ingress"]:
        assert {port["port"] for port in rule.get("ports", [])} <= known
    assert spec["policyTypes"] == ["Ingress", "Egress"]


def test_nobody_but_the_operator_reaches_the_job_server_from_outside() -> None:
    admitted = []
    for rule in _one("NetworkPolicy")["spec"]["ingress"]:
        ports = {port["port"] for port in rule.get("ports", [])}
        if not ports or ports & {"dashboard", 8265}:
            admitted += rule["from"]
    assert admitted == [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "page-pool-farm"}}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-operator"}}},
    ]
    assert not {"Service", "Ingress", "Route", "HTTPRoute"} & {document["kind"] for document in ALL}
    for cluster in (_one("RayCluster")["spec"], _one("RayJob")["spec"]["rayClusterSpec"]):
        head = cluster["headGroupSpec"]
        assert (head["serviceType"], head["enableIngress"]) == ("ClusterIP", False)
        assert cluster["authOptions"]["mode"] == "token"
    starts = _ray_starts()
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


# --- secrets, stores, safety ---


def test_secrets_are_named_and_not_written_down() -> None:
    assert "Secret" not in {document["kind"] for document in ALL}
    named = {cluster["authOptions"]["secretName"] for cluster in (_one("RayCluster")["spec"],)}
    for pod in PODS:
        for container in pod.containers:
            named |= {e["secretRef"]["name"] for e in container.get("envFrom", []) if "secretRef" in e}
            for variable in container.get("env", []):
                assert not re.search("TOKEN|KEY|SECRET|PASSWORD", variable["name"]) or "value" not in variable
    created = set(re.findall(r"kubectl create secret generic (\S+)", README))
    assert named == created == {"farm-ray-token", "farm-s3"}
    # the key that KubeRay reads
    assert "--from-literal=auth_token=" in README


def test_every_pod_gives_up_privileges() -> None:
    for pod in PODS:
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == "1000:1000"
        assert pod.spec["automountServiceAccountToken"] is False
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_pod_has_the_store() -> None:
    config = _one("ConfigMap")
    for pod in PODS:
        for container in pod.containers:
            assert {"configMapRef": {"name": config["metadata"]["name"]}} in container["envFrom"]
    assert config["data"]["FARM_STORE"].startswith("s3://")


def test_the_overlay_mounts_the_volume_where_the_store_is() -> None:
    changed = with_shared_volume()
    root = _one("ConfigMap", changed)["data"]["FARM_STORE"]
    claim = _one("PersistentVolumeClaim", changed)["metadata"]["name"]
    found = pods(changed)
    assert len(found) == 3
    for pod in found:
        [volume] = pod.spec["volumes"]
        assert volume["persistentVolumeClaim"] == {"claimName": claim}
        for container in pod.containers:
            [mount] = container["volumeMounts"]
            assert (mount["mountPath"], mount["name"]) == (root, volume["name"])
    assert _one("PersistentVolumeClaim", changed)["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_job_has_the_cluster_that_stays() -> None:
    assert _one("RayJob")["spec"]["rayClusterSpec"] == _one("RayCluster")["spec"]


def test_kustomizations_name_files_that_are_there() -> None:
    files = {path.name for path in KUBERAY.glob("*.yaml")} - {"kustomization.yaml", "rayjob.yaml"}
    assert set(kustomization(KUBERAY)["resources"]) == files
    for name in kustomization(SHARED_VOLUME)["resources"]:
        assert (SHARED_VOLUME / name).exists()


def test_the_job_is_stopped_as_submitted_runs_are() -> None:
    from farm.jobs.server import STOP

    assert yaml.safe_load(_one("RayJob")["spec"]["runtimeEnvYAML"]) == {"env_vars": STOP}
