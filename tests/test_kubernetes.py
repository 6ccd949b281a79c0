"""deploy/kubernetes: what kustomize makes of it agrees with Kubernetes and with the product."""

from __future__ import annotations

import copy
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from llcuda_net.server.app import AFTER_DRAIN
from tools import check_manifests
from tools.check_manifests import MANIFESTS, OVERLAYS, SECRETS, disagreements, render, validated

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed: make test-deploy does that"
)


@pytest.fixture(scope="module")
def rendered() -> dict[str, Any]:
    return {overlay: render(overlay) for overlay in OVERLAYS}


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_agrees_with_the_product(overlay: str, rendered: dict[str, Any]) -> None:
    assert list(disagreements(overlay, rendered[overlay])) == []
    kinds = {one["kind"] for one in rendered[overlay]}
    assert kinds >= {"StatefulSet", "Service", "ConfigMap", "Secret", "PodDisruptionBudget"}
    assert kinds >= {"NetworkPolicy", "ServiceMonitor"}
    assert ("HorizontalPodAutoscaler" in kinds) == (overlay == "postgres")


@needs_kubectl
@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None,
    reason="kubernetes-validate is not installed: make test-deploy does that",
)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_what_kubernetes_takes(overlay: str, rendered: dict[str, Any]) -> None:
    assert list(validated(rendered[overlay])) == []


def _container(objects: Any) -> Any:
    pod = next(one for one in objects if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    return pod["containers"][0]


def _config(objects: Any) -> Any:
    return next(one for one in objects if one["kind"] == "ConfigMap")["data"]


def _kind(objects: Any, kind: str) -> Any:
    return next(one for one in objects if one["kind"] == kind)


def _set(name: str, value: str) -> Callable[[Any], None]:
    def change(objects: Any) -> None:
        _container(objects)["env"].append({"name": name, "value": value})

    return change


BROKEN: dict[str, tuple[Callable[[Any], None], str]] = {
    "a drain that is cut": (
        lambda x: _config(x).update(
            {"llcuda.toml": _config(x)["llcuda.toml"].replace("seconds = 30", "seconds = 90")}
        ),
        "a drain needs 110 s, and gets 60",
    ),
    "a variable of no setting": (_set("LLCUDA_DRAIN", "1"), "nothing reads the variable"),
    "a setting that is wrong": (_set("LLCUDA_SLOTS", "x"), "the server refuses its settings"),
    "another port": (_set("LLCUDA_PORT", "9100"), "are not those of its settings"),
    "a probe that restarts what waits": (
        lambda x: _container(x)["livenessProbe"]["httpGet"].update(path="/readyz"),
        "the livenessProbe asks",
    ),
    "a probe that restarts what is busy": (
        lambda x: _container(x)["livenessProbe"].update(failureThreshold=1),
        "kills a server that is busy",
    ),
    "a root that can be written": (
        lambda x: _container(x)["securityContext"].update(readOnlyRootFilesystem=False),
        "may do more than it needs",
    ),
    "a metric that is none": (
        lambda x: _kind(x, "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"][
            "metric"
        ].update(name="llcuda_queue"),
        "there is no metric llcuda_queue",
    ),
    "a folder in no volume": (_set("LLCUDA_MODELS", "/models"), "/models is in no volume"),
    "an address that nobody reaches": (
        _set("LLCUDA_ADVERTISE", "llcuda-0.elsewhere:9000"),
        "the others do not reach it",
    ),
    "a monitor of nothing": (
        lambda x: _kind(x, "ServiceMonitor")["spec"]["selector"]["matchLabels"].update(a="b"),
        "Prometheus finds 0 services",
    ),
}


@needs_kubectl
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str, rendered: dict[str, Any]) -> None:
    change, says = BROKEN[name]
    objects = copy.deepcopy(rendered["postgres"])
    change(objects)
    assert any(says in line for line in disagreements("postgres", objects))


def test_the_end_takes_what_the_server_says() -> None:
    assert check_manifests.AFTER_DRAIN == AFTER_DRAIN


def test_files_of_each_kustomization_are_there() -> None:
    for path in sorted(MANIFESTS.rglob("kustomization.yaml")):
        found = yaml.safe_load(path.read_text("utf-8"))
        named = [*found.get("resources", []), *found.get("patchesStrategicMerge", [])]
        for key in ("configMapGenerator", "secretGenerator"):
            named += [name for one in found.get(key, []) for name in one["files"]]
        for name in named:
            there = path.parent / name
            secret = str(there.relative_to(MANIFESTS)) in SECRETS
            assert there.exists() or secret, there


def test_no_secret_is_in_the_repository() -> None:
    ignored = (MANIFESTS.parent.parent / ".gitignore").read_text("utf-8").splitlines()
    for name in SECRETS:
        assert f"deploy/kubernetes/{name}" in ignored
    comments = "".join(path.read_text("utf-8") for path in MANIFESTS.rglob("kustomization.yaml"))
    assert all(f"> deploy/kubernetes/{name}" in comments for name in SECRETS)
