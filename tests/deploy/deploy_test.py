"""The manifests of deploy/: rendered, checked against the Kubernetes schemas and against our own
programs, and the overlay `tiny` run as processes with the arguments that its pods would have.

Run by `./mesh test deploy` with kubectl and kubernetes-validate from PyPI and Debian's promtool.
Ends with `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = {"tiny": 32, "1t": 512}  # overlay → experts of its model
CUSTOM = {"PodMonitor"}             # kinds without a published core schema
PATIENCE = 60.0                     # seconds until a local process must be ready
Manifest = dict[str, Any]


class Context:
    """What is rendered once for all checks."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.kubectl = Path(sys.executable).parent / "kubectl"
        self.rendered = {name: self.render(DEPLOY / "kustomize" / "overlays" / name)
                         for name in OVERLAYS}

    def render(self, folder: Path) -> list[Manifest]:
        """Objects of a kustomization."""
        done = subprocess.run([str(self.kubectl), "kustomize", str(folder)], capture_output=True,
                              text=True, check=False)
        assert done.returncode == 0, f"{folder}: {done.stderr}"
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    def objects(self) -> Iterator[tuple[str, Manifest]]:
        """Every object of every overlay, with its name for messages."""
        for overlay, manifests in self.rendered.items():
            for one in manifests:
                yield f"{overlay}: {one['kind']} {one['metadata']['name']}", one

    def workloads(self) -> Iterator[tuple[str, Manifest]]:
        """Deployments and StatefulSets."""
        for where, one in self.objects():
            if one["kind"] in ("Deployment", "StatefulSet"):
                yield where, one


def pod_of(workload: Manifest) -> Manifest:
    """The pod's spec."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def labels_of(workload: Manifest) -> dict[str, str]:
    """The pod's labels."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def schemas(context: Context) -> None:
    """Every object satisfies the strict schema of its kind."""
    for where, one in context.objects():
        if one["kind"] in CUSTOM:
            continue
        try:
            kubernetes_validate.validate(one, "1.37", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{where}: {error.message}") from error


def flags(context: Context) -> None:
    """Every command is a program of ours that knows every flag it is given."""
    for where, workload in context.workloads():
        pod = pod_of(workload)
        for container in pod["containers"] + pod.get("initContainers", []):
            words = container["command"] + container.get("args", [])
            program = context.binaries / words[0]
            assert program.exists(), f"{where}: no program {words[0]}"
            command = [word for word in words[1:] if not word.startswith("-")][:2]
            help_of = [str(program), *(command if words[0] == "expertmesh" else []), "--help"]
            text = subprocess.run(help_of, capture_output=True, text=True, check=True).stdout
            for word in words[1:]:
                if word.startswith("--"):
                    flag = word.split("=")[0]
                    assert re.search(rf"{re.escape(flag)}\b", text), f"{where}: {flag} is unknown"


def ports(context: Context) -> None:
    """Probes, Services and the scrape name ports that the containers have."""
    for where, workload in context.workloads():
        for container in pod_of(workload)["containers"]:
            named = {port["name"]: port["containerPort"] for port in container["ports"]}
            listens = {int(match[1]) for arg in container["args"]
                       if (match := re.search(r"=0\.0\.0\.0:(\d+)$", arg))}
            assert listens == set(named.values()), f"{where}: {listens} against {named}"
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                check = container[probe]
                if "grpc" in check:
                    assert check["grpc"]["port"] == named["grpc"], f"{where}: {probe}"
                else:
                    assert check["httpGet"]["port"] in named, f"{where}: {probe}"
    for where, one in context.objects():
        overlay = where.split(":")[0]
        pods = [w for o, w in context.workloads() if o.startswith(f"{overlay}:")]
        if one["kind"] == "Service":
            chosen = [w for w in pods
                      if one["spec"]["selector"].items() <= labels_of(w).items()]
            assert chosen, f"{where} selects nothing"
            for port in one["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                for workload in chosen:
                    known = {p for c in pod_of(workload)["containers"] for q in c["ports"]
                             for p in (q["name"], q["containerPort"])}
                    assert target in known, f"{where}: {target}"
        elif one["kind"] in ("PodMonitor", "PodDisruptionBudget"):
            wanted = one["spec"]["selector"]["matchLabels"]
            chosen = [w for w in pods if wanted.items() <= labels_of(w).items()]
            assert chosen, f"{where} selects nothing"
            if one["kind"] == "PodMonitor":
                assert len(chosen) == len(pods), f"{where} leaves pods out"


def selectors(context: Context) -> None:
    """A StatefulSet has its headless Service; no workload selects another's pods."""
    for overlay in OVERLAYS:
        mine = [w for o, w in context.workloads() if o.startswith(f"{overlay}:")]
        services = {one["metadata"]["name"]: one for one in context.rendered[overlay]
                    if one["kind"] == "Service"}
        for workload in mine:
            wanted = workload["spec"]["selector"]["matchLabels"]
            chosen = [w for w in mine if wanted.items() <= labels_of(w).items()]
            assert chosen == [workload], f"{overlay}: {workload['metadata']['name']}"
            if workload["kind"] == "StatefulSet":
                service = services[workload["spec"]["serviceName"]]
                assert service["spec"]["clusterIP"] == "None", service["metadata"]["name"]
                assert service["spec"]["selector"].items() <= labels_of(workload).items()


def settings_of(context: Context, overlay: str, container: Manifest) -> dict[str, str]:
    """The environment that the container takes from ConfigMaps."""
    maps = {one["metadata"]["name"]: one["data"] for one in context.rendered[overlay]
            if one["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= maps[source["configMapRef"]["name"]]
    return found


def slices(context: Context) -> None:
    """The pools of an overlay host every expert, none twice."""
    for overlay, experts in OVERLAYS.items():
        hosted: list[int] = []
        for where, workload in context.workloads():
            container = pod_of(workload)["containers"][0]
            if where.startswith(f"{overlay}:") and container["name"] == "expert-worker":
                for part in settings_of(context, overlay, container)["SLICE"].split(","):
                    first, last = part.split("-")
                    hosted += range(int(first), int(last) + 1)
        assert sorted(hosted) == list(range(experts)), f"{overlay}: {sorted(hosted)}"


def routers(context: Context) -> None:
    """ROUTERS names every router pod, by the name that its headless Service gives."""
    for overlay in OVERLAYS:
        for where, workload in context.workloads():
            if where == f"{overlay}: StatefulSet expertmesh-router":
                service = workload["spec"]["serviceName"]
                names = [f"{workload['metadata']['name']}-{i}.{service}:7000"
                         for i in range(workload["spec"]["replicas"])]
        for where, workload in context.workloads():
            container = pod_of(workload)["containers"][0]
            if where.startswith(f"{overlay}:") and container["name"] != "router":
                told = settings_of(context, overlay, container)["ROUTERS"].split(",")
                assert told == names, f"{where}: {told}"


def safety(context: Context) -> None:
    """No root, nothing writable, memory limits, images with a version, time to drain."""
    for where, workload in context.workloads():
        pod = pod_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["automountServiceAccountToken"] is False, where
        for container in pod["containers"] + pod.get("initContainers", []):
            assert re.fullmatch(r"\S+:\d+\.\d+\.\d+", container["image"]), where
            secure = container["securityContext"]
            assert secure["readOnlyRootFilesystem"] and not secure["allowPrivilegeEscalation"]
            assert secure["capabilities"] == {"drop": ["ALL"]}, where
            assert "memory" in container["resources"]["limits"], where
        drain = next(int(arg.split("=")[1]) for arg in pod["containers"][0]["args"]
                     if arg.startswith("--drain-seconds"))
        assert pod["terminationGracePeriodSeconds"] > drain, where


def catalogue() -> dict[str, set[str]]:
    """Metric → labels, from the page that is generated from the catalogue."""
    known: dict[str, set[str]] = {}
    shared: dict[str, set[str]] = {}
    component = ""
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if line.startswith("## "):
            component = line[3:].strip()
        row = re.match(r"\| `(\w+)` \| (\w+) \| ([^|]*) \|", line)
        if not row:
            continue
        labels = set(re.findall(r"`(\w+)`", row[3]))
        names = {row[1]: labels}
        if row[2] == "histogram":
            names = {f"{row[1]}_bucket": labels | {"le"}, f"{row[1]}_count": labels,
                     f"{row[1]}_sum": labels}
        if component == "Every process":
            shared |= names
        else:
            known |= {f"expertmesh_{component}_{name}": l for name, l in names.items()}
    for component in ("gateway", "router", "attention_worker", "expert_worker", "engram_store"):
        known |= {f"expertmesh_{component}_{name}": l for name, l in shared.items()}
    assert len(known) > 60, "the page of metrics was not understood"
    return known


def expressions() -> list[tuple[str, str]]:
    """PromQL of the dashboard and of the alerts, with where it stands."""
    dashboard = json.loads((DEPLOY / "observability" / "dashboard.json").read_text())
    found = [(panel["title"], target["expr"]) for panel in dashboard["panels"]
             for target in panel.get("targets", [])]
    rules = yaml.safe_load((DEPLOY / "observability" / "rules.yml").read_text())
    found += [(rule["alert"], rule["expr"]) for group in rules["groups"]
              for rule in group["rules"]]
    assert len(found) > 30
    return found


def metrics(_: Context) -> None:
    """Dashboard and alerts ask for metrics and labels of the catalogue only."""
    known = catalogue()
    for where, expr in expressions():
        names = re.findall(r"\bexpertmesh_\w+", expr)
        assert names, f"{where}: asks for nothing of ours: {expr}"
        labels = {"instance", "job"}
        for name in names:
            assert name in known, f"{where}: {name} is not in the catalogue"
            labels |= known[name]
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expr))
        for group in re.findall(r"\bby \(([^)]*)\)", expr):
            asked |= {label.strip() for label in group.split(",")}
        assert asked <= labels, f"{where}: labels {asked - labels}"


def alerts_explained(_: Context) -> None:
    """Every alert has its line in the README."""
    text = (DEPLOY / "README.md").read_text()
    rules = yaml.safe_load((DEPLOY / "observability" / "rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert f"`{rule['alert']}`" in text, rule["alert"]


def promtool(_: Context) -> None:
    """Prometheus itself takes the scrape configuration and the rules."""
    tool = shutil.which("promtool")
    assert tool, "promtool is missing: apt-get install prometheus"
    folder = DEPLOY / "observability"
    for check in (["config", "--syntax-only", "prometheus.yml"], ["rules", "rules.yml"]):
        done = subprocess.run([tool, "check", *check], cwd=folder, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stdout + done.stderr


class LocalPods:
    """The pods of overlay `tiny` as processes of this machine, each with an address of 127.0.0.0/8
    in place of its pod IP and a folder in place of its volumes."""

    def __init__(self, context: Context, folder: Path) -> None:
        self.context = context
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.addresses: dict[str, str] = {}
        self.initialised = False
        workloads = [w for where, w in context.workloads() if where.startswith("tiny:")]
        self.pods = [(f"{w['metadata']['name']}-{i}", w) for w in workloads
                     for i in range(w["spec"]["replicas"])]
        base = 2 + os.getpid() % 200
        for number, (pod, _) in enumerate(self.pods):
            self.addresses[pod] = f"127.{base}.0.{number + 1}"

    def start(self) -> None:
        """Init containers first, as the kubelet does, then all pods."""
        for pod, workload in self.pods:
            spec = pod_of(workload)
            if not self.initialised and spec.get("initContainers"):
                words = self.local(pod, spec["initContainers"][0]["command"])
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
                self.initialised = True  # one seed, the same bytes in every pod
        for pod, workload in self.pods:
            container = pod_of(workload)["containers"][0]
            words = container["command"] + container["args"]
            settings = settings_of(self.context, "tiny", container) | {"POD_NAME": pod}
            expanded = [re.sub(r"\$\((\w+)\)", lambda m: settings[m[1]], word) for word in words]
            environment = os.environ | {"EXPERTMESH_ADVERTISE_HOST": self.addresses[pod]}
            with (self.folder / f"{pod}.log").open("wb") as log:
                self.running.append(subprocess.Popen(self.local(pod, expanded), env=environment,
                                                     stdout=log, stderr=log))

    def local(self, pod: str, words: list[str]) -> list[str]:
        """The command on this machine."""
        out = [str(self.context.binaries / words[0])]
        for word in words[1:]:
            word = word.replace("0.0.0.0", self.addresses[pod])
            word = word.replace("/models", str(self.folder / "models"))
            word = word.replace("=/data", f"={self.folder / pod}")
            for name, address in self.addresses.items():
                word = re.sub(rf"\b{name}\.[\w-]+:", f"{address}:", word)
            out.append(word)
        return out

    def get(self, pod: str, port: int, path: str, body: Manifest | None = None) -> tuple[int, str]:
        """Status and text of a page of a pod."""
        request = urllib.request.Request(
            f"http://{self.addresses[pod]}:{port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (urllib.error.URLError, socket.timeout):
            return 0, ""

    def wait_ready(self) -> None:
        """By the readiness probe of every pod."""
        deadline = time.monotonic() + PATIENCE
        for pod, _ in self.pods:
            while (page := self.get(pod, 9100, "/readyz"))[0] != 200:
                assert time.monotonic() < deadline, (
                    f"{pod}: {page}\n" + (self.folder / f"{pod}.log").read_text()[-2000:])

    def stop(self) -> None:
        """SIGTERM, as at the end of a pod."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(PATIENCE)


def pods_answer(context: Context) -> None:
    """The overlay `tiny`, pod by pod as processes: ready by their probes, an answer through the
    gateway, and every metric of the dashboard exposed or still without a sample."""
    with tempfile.TemporaryDirectory(prefix="expertmesh-pods-") as name:
        folder = Path(name)
        (folder / "models").mkdir()
        pods = LocalPods(context, folder)
        try:
            pods.start()
            pods.wait_ready()
            gateway = next(pod for pod, _ in pods.pods if "gateway" in pod)
            status, text = pods.get(gateway, 8080, "/v1/chat/completions", {
                "model": "tiny", "max_tokens": 8,
                "messages": [{"role": "user", "content": "Explain MoE"}]})
            assert status == 200 and json.loads(text)["usage"]["completion_tokens"] > 0, text
            view = pods.get(gateway, 9100, "/statusz")[1]
            for pod, address in pods.addresses.items():
                if "gateway" not in pod:
                    assert address in view, f"{pod} is not a peer at {address}: {view}"
            exposed = "".join(pods.get(pod, 9100, "/metrics")[1] for pod, _ in pods.pods)
            known = catalogue()
            for where, expr in expressions():
                for metric in re.findall(r"\bexpertmesh_\w+", expr):
                    # Series with labels appear with their first sample.
                    labelled = known[metric] - {"le"}
                    assert labelled or re.search(rf"^{metric}\b", exposed, re.M), (where, metric)
        finally:
            pods.stop()
        codes = {pod: process.returncode for (pod, _), process in zip(pods.pods, pods.running)}
        assert set(codes.values()) == {0}, codes


CHECKS: list[Callable[[Context], None]] = [
    schemas, flags, ports, selectors, slices, routers, safety, metrics, alerts_explained, promtool,
    pods_answer,
]


def main() -> int:
    """Runs every check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--binaries", type=Path, required=True)
    context = Context(parser.parse_args().binaries)
    failed = 0
    for check in CHECKS:
        try:
            check(context)
            print(f"ok {check.__name__}", flush=True)
        except Exception:  # a check fails however it likes
            failed += 1
            print(f"FAILED {check.__name__}\n{traceback.format_exc(limit=-2)}", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
