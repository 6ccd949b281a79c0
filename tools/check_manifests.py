#!/usr/bin/env python3
"""Makes the manifests of each overlay of deploy/kubernetes, and checks them.

`kubectl kustomize` makes them (Debian's kubectl 1.20 is enough, and is installed where that can be
done without asking), kubernetes-validate holds them against Kubernetes' schemas, and then every
name in them is held against the product: options, variables, ports, paths, metrics, and whether
the time for the end is enough. Whatever does not hold is a line; any line is exit code 1.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

import yaml

from llcuda_net.cli.common import Exit, Parser, fail, run_command
from llcuda_net.cli.server import make_parser as server_parser
from llcuda_net.config.settings import Settings, load, unknown_variables
from llcuda_net.errors import ConfigError
from llcuda_net.util.terminal import echo

PROG = "check_manifests"
MANIFESTS = ROOT / "deploy/kubernetes"
OVERLAYS = ("one-gpu", "postgres")
#: Files that are made of secrets, each with what stands in it.
SECRETS = {
    "base/tokens": f"{secrets.token_hex(16)} name=check role=admin\n",
    "overlays/postgres/password": "check",
}
#: Of operators: Kubernetes itself has no schema of them.
OPERATORS = ("ServiceMonitor",)
UID = 10001
#: Seconds that the end may take beyond the drain, as the server tells systemd.
AFTER_DRAIN = 15

Manifest = dict[str, Any]


def render(overlay: str, kubectl: str = "kubectl") -> list[Manifest]:
    """All objects of an overlay.

    Raises:
        CommandError: kubectl does not make them; one line.
    """
    with tempfile.TemporaryDirectory(prefix="llcuda-manifests-") as name:
        folder = Path(name) / "kubernetes"
        shutil.copytree(MANIFESTS, folder)
        for path, text in SECRETS.items():
            (folder / path).write_text(text, "utf-8")
        done = subprocess.run(
            [kubectl, "kustomize", str(folder / "overlays" / overlay)],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        fail(f"kubectl kustomize {overlay}: {' '.join(done.stderr.split())}", Exit.REFUSED)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def validated(objects: Sequence[Manifest]) -> Iterator[str]:
    """What Kubernetes' own schemas have against them."""
    import kubernetes_validate

    for one in objects:
        if one["kind"] in OPERATORS:
            continue
        try:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
        except Exception as error:  # of several kinds, all of which say what is wrong
            yield f"{one['kind']}: {' '.join(str(error).split())[:300]}"


def disagreements(overlay: str, objects: Sequence[Manifest]) -> Iterator[str]:
    """Where the manifests and the product, or two manifests, do not agree."""
    by_kind: dict[str, list[Manifest]] = {}
    for one in objects:
        by_kind.setdefault(one["kind"], []).append(one)
    (stateful,) = by_kind["StatefulSet"]
    pod = stateful["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = _variables(container)
    for name, near in unknown_variables(variables).items():
        yield f"{overlay}: nothing reads the variable {name} (meant: {near})"
    config = next(one for one in by_kind["ConfigMap"] if "llcuda.toml" in one["data"])
    try:
        settings = _settings(container["args"], config["data"]["llcuda.toml"], variables)
    except ConfigError as error:
        yield f"{overlay}: the server refuses its settings: {error}"
        return
    yield from _ports(container, settings, by_kind)
    yield from _ending(pod, container, settings)
    yield from _probes(container)
    yield from _hardened(pod, container)
    yield from _names(stateful, by_kind, settings)
    yield from _metrics(by_kind)


def _variables(container: Manifest) -> dict[str, str]:
    """Those that the server has: the image's, and the container's, which come before them."""
    text = (ROOT / "deploy/Dockerfile").read_text("utf-8")
    out = dict(re.findall(r"(LLCUDA_\w+)=(\S+)", text.split("FROM base AS cuda")[0]))
    if container["image"].endswith(":cuda"):
        out |= dict(re.findall(r"ENV (LLCUDA_\w+)=(\S+)", text))
    for one in container.get("env", []):
        out[one["name"]] = re.sub(r"\$\((\w+)\)", lambda m: out[m[1]], one.get("value", "llcuda-0"))
    return out


def _settings(words: Sequence[str], text: str, variables: dict[str, str]) -> Settings:
    """Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="llcuda-manifests-") as folder:
        file = Path(folder) / "llcuda.toml"
        file.write_text(text, "utf-8")
        given = [str(file) if word == "/etc/llcuda/llcuda.toml" else word for word in words]
        return load(server_parser().parse_args(given), variables)


def _ports(
    container: Manifest, settings: Settings, by_kind: dict[str, list[Manifest]]
) -> Iterator[str]:
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    if ports != {"llcuda": settings.port, "metrics": settings.metrics_port}:
        yield f"the container's ports {ports} are not those of its settings"
    for service in by_kind["Service"]:
        for port in service["spec"]["ports"]:
            if ports.get(port["targetPort"]) != port["port"]:
                yield f"the service {service['metadata']['name']} has another port: {port}"
    (policy,) = by_kind["NetworkPolicy"]
    let_in = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    if sorted(let_in) != sorted(ports.values()):
        yield f"the network policy lets in {let_in}"
    if settings.host != "0.0.0.0" or settings.metrics_host != "0.0.0.0":
        yield "it listens where the cluster does not reach it"
    store = re.search(r"@[^/]*?(?::(\d+))?/", settings.store)
    going = [p["port"] for rule in policy["spec"]["egress"] for p in rule.get("ports", [])]
    if store is not None:
        needed = {int(store[1] or 5432), settings.port}
        if not needed <= set(going):
            yield f"the network policy does not let it out to {sorted(needed - set(going))}"


def _ending(pod: Manifest, container: Manifest, settings: Settings) -> Iterator[str]:
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    needed = pause + settings.drain_seconds + AFTER_DRAIN
    if pod["terminationGracePeriodSeconds"] < needed:
        yield f"a drain needs {needed:.0f} s, and gets {pod['terminationGracePeriodSeconds']}"


def _probes(container: Manifest) -> Iterator[str]:
    paths = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for name, path in paths.items():
        asked = container[name]["httpGet"]
        # On the port of their own: the other one takes nobody during a drain, or when it is full.
        if asked != {"path": path, "port": "metrics"}:
            yield f"the {name} asks {asked}"
    live, start = container["livenessProbe"], container["startupProbe"]
    if live["failureThreshold"] * live["periodSeconds"] < 60:
        yield "the livenessProbe kills a server that is busy"
    if start["failureThreshold"] * start["periodSeconds"] < 900:
        yield "the startupProbe kills a server that pulls its model"


def _hardened(pod: Manifest, container: Manifest) -> Iterator[str]:
    outer, inner = pod["securityContext"], container["securityContext"]
    wanted = {"runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID}
    if {key: outer.get(key) for key in wanted} != wanted:
        yield "the pod runs as another user than the image is made for"
    if outer.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "the pod has no seccomp profile"
    if inner != {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }:
        yield f"the container may do more than it needs: {inner}"
    if pod.get("automountServiceAccountToken") is not False:
        yield "the pod gets a token of Kubernetes, which it has no use for"


def _names(
    stateful: Manifest, by_kind: dict[str, list[Manifest]], settings: Settings
) -> Iterator[str]:
    """What one object calls another."""
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    services = {one["metadata"]["name"]: one for one in by_kind["Service"]}
    if stateful["spec"]["serviceName"] not in services:
        yield f"there is no service {stateful['spec']['serviceName']}"
    for one in (*by_kind["Service"], *by_kind["PodDisruptionBudget"], *by_kind["NetworkPolicy"]):
        selected = one["spec"].get("selector") or one["spec"]["podSelector"]
        if selected.get("matchLabels", selected).items() - labels.items():
            yield f"the {one['kind']} {one['metadata']['name']} selects other pods: {selected}"
    pod = stateful["spec"]["template"]["spec"]
    there = {
        *(("configMap", one["metadata"]["name"]) for one in by_kind["ConfigMap"]),
        *(("secret", one["metadata"]["name"]) for one in by_kind["Secret"]),
    }
    used = {("configMap", v["configMap"]["name"]) for v in pod["volumes"] if "configMap" in v}
    used |= {("secret", v["secret"]["secretName"]) for v in pod["volumes"] if "secret" in v}
    for one in pod["containers"][0].get("env", []):
        if reference := one.get("valueFrom", {}).get("secretKeyRef"):
            used.add(("secret", reference["name"]))
    if there != used:
        yield f"of {sorted(there)} the pod uses {sorted(used)}"
    mounts = [one["mountPath"] for one in pod["containers"][0]["volumeMounts"]]
    for path in filter(None, (settings.data_dir, settings.models, settings.auth_token_file)):
        if not any(path.startswith(f"{mount}/") for mount in mounts):
            yield f"{path} is in no volume"
    if settings.advertise is not None:
        host, _, port = settings.advertise.rpartition(":")
        if host.partition(".")[2] != stateful["spec"]["serviceName"] or int(port) != settings.port:
            yield f"the others do not reach it at {settings.advertise}"
    for scaler in by_kind.get("HorizontalPodAutoscaler", []):
        target = scaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) != ("StatefulSet", stateful["metadata"]["name"]):
            yield f"the autoscaler scales {target}"
        if "replicas" in stateful["spec"]:
            yield "each apply would set the autoscaler's number back"


def _metrics(by_kind: dict[str, list[Manifest]]) -> Iterator[str]:
    known = (ROOT / "llcuda_net/telemetry/metrics.py").read_text("utf-8")
    adapter = (MANIFESTS / "overlays/postgres/prometheus-adapter.yaml").read_text("utf-8")
    for scaler in by_kind.get("HorizontalPodAutoscaler", []):
        for metric in scaler["spec"]["metrics"]:
            name = metric["pods"]["metric"]["name"]
            if f'"{name}"' not in known:
                yield f"there is no metric {name}"
            if f"{name}{{" not in adapter:
                yield f"the adapter has no rule for {name}"
    (monitor,) = by_kind["ServiceMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    found = [
        one for one in by_kind["Service"] if wanted.items() <= one["metadata"]["labels"].items()
    ]
    if len(found) != 1:
        yield f"Prometheus finds {len(found)} services by {wanted}"
    else:
        (job,) = re.findall(r'up\{job="(\w+)"\}', (ROOT / "deploy/alerts.yml").read_text("utf-8"))
        if found[0]["metadata"]["labels"].get(monitor["spec"]["jobLabel"]) != job:
            yield "Prometheus calls its job other than the alert rules do"
        ports = [port["name"] for port in found[0]["spec"]["ports"]]
        if any(one["port"] not in ports for one in monitor["spec"]["endpoints"]):
            yield "Prometheus asks at a port that the service has not"


def install() -> None:
    """See to it that kubectl is there."""
    if shutil.which("kubectl") is not None:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail("kubectl is missing: on Debian, apt install kubernetes-client")
    echo("installing kubernetes-client", flush=True)
    apt = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", "kubernetes-client"]
    for command in (["apt-get", "update", "-qq"], apt):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run() -> int:
    """Check all overlays; returns the exit code."""
    install()
    try:
        import kubernetes_validate  # noqa: F401
    except ImportError:
        fail("kubernetes-validate is missing: pip install kubernetes-validate")
    wrong = 0
    for overlay in OVERLAYS:
        objects = render(overlay)
        lines = [*validated(objects), *disagreements(overlay, objects)]
        for line in lines:
            echo(f"{overlay}: {line}")
        wrong += len(lines)
        echo(f"{overlay}: {len(objects)} objects, {len(lines)} wrong", flush=True)
    return Exit.REFUSED if wrong else Exit.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog=PROG,
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="example: make test-deploy",
    )
    parser.parse_args(argv)
    return run_command(PROG, run)


if __name__ == "__main__":
    sys.exit(main())
