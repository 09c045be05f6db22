"""Files of deploy/ against linters and schemas: Dockerfile, compose file, manifests, action, dashboard.

No registry and no cluster is asked: docs/containers.md says what was tried by hand.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools.conftest import PROGRAMS, ROOT

pytestmark = pytest.mark.tools
DEPLOY = ROOT / "deploy"
OVERLAYS = ("base", "restricted")


def program(name: str, *words: str | Path) -> str:
    said = subprocess.run([PROGRAMS / name, *words], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout + said.stderr


def manifests(overlay: str) -> list[dict[str, Any]]:
    """As `kubectl apply -k` would send them, by kubectl's own kustomize."""
    assert shutil.which("kubectl"), "kubectl is needed, of 1.27 or newer"
    made = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes" / overlay], capture_output=True, text=True, check=True
    )
    return [each for each in yaml.safe_load_all(made.stdout) if each]


@pytest.mark.parametrize("file", ["ci/guard", "turnbench-here"])
def test_scripts_pass_shellcheck(file: str) -> None:
    program("shellcheck", DEPLOY / file)


def test_the_dockerfile_passes_hadolint() -> None:
    program("hadolint", DEPLOY / "Dockerfile")


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", "compose.yaml"),
        ("vendor.github-actions", "ci/action.yml"),
        ("vendor.github-workflows", "ci/example-workflow.yml"),
    ],
)
def test_files_fit_their_schemas(schema: str, file: str) -> None:
    program("check-jsonschema", "--builtin-schema", schema, DEPLOY / file)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_fit_kubernetes_schema(overlay: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(manifests(overlay)))
    said = program("kubernetes-validate", "--strict", tmp_path / "all.yaml")
    assert said.count("passed for resource") == 7


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_is_root_and_one_capability_is_all_that_is_added(overlay: str) -> None:
    kinds = ("Job", "Deployment")
    pods = [each["spec"]["template"]["spec"] for each in manifests(overlay) if each["kind"] in kinds]
    assert len(pods) == 2
    added = []
    for pod in pods:
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        assert security["readOnlyRootFilesystem"] is True
        added += security["capabilities"].get("add", [])
        # A file capability needs what no-new-privileges takes away.
        assert security["allowPrivilegeEscalation"] == ("add" in security["capabilities"])
    assert added == (["NET_RAW"] if overlay == "base" else [])


def test_every_selector_chooses_a_pod() -> None:
    """Of the service, the deployment, and the policy with those that it lets in."""
    found = {each["kind"]: each["spec"] for each in manifests("base") if "spec" in each}
    master, worker = (found[kind]["template"]["metadata"]["labels"].items() for kind in ("Job", "Deployment"))
    ((allowed,),) = [rule["from"] for rule in found["NetworkPolicy"]["ingress"] if "from" in rule]
    for selector, pod in (
        (found["Service"]["selector"], master),
        (found["NetworkPolicy"]["podSelector"]["matchLabels"], master),
        (found["Deployment"]["selector"]["matchLabels"], worker),
        (allowed["podSelector"]["matchLabels"], worker),
    ):
        assert selector.items() <= pod


def test_the_master_waits_for_as_many_workers_as_there_are() -> None:
    found = {each["kind"]: each["spec"] for each in manifests("base") if "spec" in each}
    args = found["Job"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--expect-workers") + 1] == str(found["Deployment"]["replicas"])


def test_grafanas_own_model_of_a_dashboard_takes_ours_whole() -> None:
    """Read by Grafana's SDK and written again: what it did not know would be gone."""
    code = (
        "import json, sys; from grafana_foundation_sdk.models.dashboard import Dashboard;"
        "from grafana_foundation_sdk.cog.encoder import JSONEncoder;"
        "from grafana_foundation_sdk.cog import plugins;"
        "plugins.register_default_plugins(); board = Dashboard.from_json(json.load(sys.stdin));"
        "print(JSONEncoder().encode(board))"
    )
    text = (DEPLOY / "grafana" / "turnbench.json").read_text()
    said = subprocess.run([PROGRAMS / "python", "-c", code], input=text, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert gone(json.loads(text), json.loads(said.stdout)) == []


def gone(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """What of ours is not in theirs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        lost = [
            f"{where}.{key}"
            for key, value in ours.items()
            if key not in theirs and value not in (None, [], {})
        ]
        return lost + [
            e for key in ours if key in theirs for e in gone(ours[key], theirs[key], f"{where}.{key}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list):
        short = [] if len(ours) == len(theirs) else [f"{where}: {len(ours)} became {len(theirs)}"]
        return short + [e for a, b in zip(ours, theirs, strict=False) for e in gone(a, b, f"{where}[]")]
    return [] if ours == theirs else [f"{where}: {ours!r} became {theirs!r}"]
