"""The manifests: rendered by the real kubectl, valid for the oldest and the newest API there is a schema of."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from ackward.cli import node as command
from ackward.node.places import Places

DEPLOY = Path(__file__).parents[2] / "deploy"
KUSTOMIZATIONS = sorted(path.parent.name for path in DEPLOY.glob("*/kustomization.yaml"))
SCHEMAS = sorted(
    (
        match[1]
        for path in (Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema").iterdir()
        if (match := re.fullmatch(r"v(\d+\.\d+)\.\d+-local-strict", path.name))
    ),
    key=lambda version: tuple(map(int, version.split("."))),
)


def rendered(name: str) -> list[dict]:
    assert shutil.which("kubectl"), "scripts/setup.sh tests installs it"
    done = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: list[dict], kind: str) -> dict:
    (found,) = (one for one in objects if one["kind"] == kind)
    return found


def pod_specs(objects: list[dict]) -> list[dict]:
    return [
        one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] in ("Pod", "Deployment", "DaemonSet")
    ]


def settings(objects: list[dict], container: dict) -> dict[str, str]:
    """The variables of a container, as `kubectl exec` passes them on too."""
    maps = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    return found | {one["name"]: one.get("value", "") for one in container.get("env", [])}


def hosts_path(spec: dict, container: dict, path: Path) -> Path:
    """Where on the node a path in a container is."""
    node = {volume["name"]: Path(volume["hostPath"]["path"]) for volume in spec["volumes"]}
    mounted = {Path(mount["mountPath"]): node[mount["name"]] for mount in container["volumeMounts"]}
    place = max((one for one in mounted if path.is_relative_to(one)), key=lambda one: len(one.parts))
    return mounted[place] / path.relative_to(place)


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_it_is_valid_from_the_oldest_to_the_newest_schema(name: str) -> None:
    assert len(SCHEMAS) > 5
    objects = rendered(name)
    assert objects
    for version in (SCHEMAS[0], SCHEMAS[-1]):
        for one in objects:
            kubernetes_validate.validate(one, version, strict=True)


def test_the_validator_would_complain() -> None:
    pod = of_kind(rendered("testpod"), "Pod")
    pod["spec"]["containers"][0]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, SCHEMAS[-1], strict=True)


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_every_container_has_limits_and_no_more_rights_than_it_names(name: str) -> None:
    for spec in pod_specs(rendered(name)):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["image"] == "ackward:0.1.0"
            assert {"cpu", "memory"} == set(container["resources"]["limits"])
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"]["drop"] == ["ALL"]
            profile = rights.get("seccompProfile") or spec["securityContext"]["seccompProfile"]
            assert profile == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_its_command_lines_are_ones_that_ackward_takes(name: str) -> None:
    parameters = [p for one in get_command(command.app).commands.values() for p in one.params]
    options = {option for parameter in parameters for option in parameter.opts}
    variables = {parameter.envvar for parameter in parameters}
    objects = rendered(name)
    for spec in pod_specs(objects):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            words = [*container["command"], *container.get("args", [])]
            if words[:2] == ["ackward", "node"]:
                assert words[2] in ("agent", "uninstall")
                assert {word.partition("=")[0] for word in words[3:]} <= options
                assert settings(objects, container).keys() <= variables


def test_only_the_daemon_form_may_ask_the_api_server_and_only_for_pods() -> None:
    assert {one["kind"] for one in rendered("base")} == {
        "Namespace",
        "ServiceAccount",
        "ConfigMap",
        "DaemonSet",
    }
    assert not any(spec["automountServiceAccountToken"] for spec in pod_specs(rendered("base")))
    daemon = rendered("daemon")
    assert of_kind(daemon, "ClusterRole")["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    ]
    (spec,) = pod_specs(daemon)
    mounts = {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert not {"/etc/cni/net.d", "/opt/cni/bin"} & mounts
    assert {volume["name"] for volume in spec["volumes"]} == {
        mount["name"] for mount in spec["containers"][0]["volumeMounts"]
    }


def test_paths_are_those_of_the_program() -> None:
    places = Places()
    base = rendered("base")
    (spec,) = pod_specs(base)
    (agent,) = spec["containers"]
    variables = settings(base, agent)
    # What the stub and the runtime look for lies at the same path inside and outside.
    for path in (places.configuration, places.binaries, places.run, Path("/run/netns")):
        assert hosts_path(spec, agent, path) == path
    marker = hosts_path(spec, agent, Path(variables["ACKWARD_MARKER"]))
    assert marker == Path("/run") / places.marker.relative_to("/var/run")
    pod = of_kind(rendered("testpod"), "Pod")
    assert pod["spec"]["volumes"][0]["hostPath"] == {"path": str(places.marker), "type": "File"}
    port = int(variables["ACKWARD_LISTEN"].rpartition(":")[2])
    assert agent["livenessProbe"]["httpGet"]["port"] == agent["readinessProbe"]["httpGet"]["port"] == port


def test_uninstall_takes_the_agents_place_and_looks_where_they_looked() -> None:
    """Whoever edits the node's directories in deploy/base has edited them there too."""
    base, uninstall = rendered("base"), rendered("uninstall")
    (agents,), (spec,) = pod_specs(base), pod_specs(uninstall)
    (agent,), (container,) = agents["containers"], spec["initContainers"]
    names = {of_kind(one, "DaemonSet")["metadata"]["name"] for one in (base, uninstall)}
    assert names == {"ackward-node"}
    assert [one["name"] for one in spec["containers"]] == ["done"]
    told = dict(word.removeprefix("--").split("=") for word in container["command"][3:])
    places = Places(run=Path(told["run-dir"]), marker=Path(told["marker"]))
    agents_marker = Path(settings(base, agent)["ACKWARD_MARKER"])
    for ours, theirs in (
        (places.configuration, Places().configuration),
        (places.binaries, Places().binaries),
        (places.run, Places().run),
        (places.marker, agents_marker),
    ):
        assert hosts_path(spec, container, ours) == hosts_path(agents, agent, theirs)
    shared = {"cni-conf", "cni-bin"}
    assert [v for v in spec["volumes"] if v["name"] in shared] == [
        v for v in agents["volumes"] if v["name"] in shared
    ]
    assert "cni-conf" not in (Path(DEPLOY) / "uninstall/daemonset.yaml").read_text().partition("volumes:")[2]


@pytest.mark.parametrize(
    ("form", "rights"),
    [
        ("base", {"SYS_ADMIN", "NET_ADMIN", "CHOWN", "DAC_OVERRIDE"}),
        ("daemon", {"SYS_ADMIN", "NET_ADMIN"}),  # it writes no list
    ],
)
def test_each_form_of_the_agent_has_the_rights_that_it_needs(form: str, rights: set[str]) -> None:
    (spec,) = pod_specs(rendered(form))
    assert set(spec["containers"][0]["securityContext"]["capabilities"]["add"]) == rights


def test_a_node_pool_is_chosen_on_aks() -> None:
    (spec,) = pod_specs(rendered("aks"))
    assert spec["nodeSelector"] == {
        "kubernetes.io/os": "linux",
        "kubernetes.azure.com/agentpool": "nodepool1",
    }


def test_the_init_container_has_one_capability() -> None:
    specs = pod_specs(rendered("init-container"))
    (container,) = (one for spec in specs for one in spec.get("initContainers", []))
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert container["command"] == ["ackward", "fix", "quickack", "--netns", "self", "--to", "all"]
