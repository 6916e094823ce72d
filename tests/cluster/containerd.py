"""A real containerd of our own: its own root, state, socket and CNI directories, in a network namespace of its own.

Pods are made as a kubelet makes them, over the Container Runtime Interface. The image is busybox, packed here; this
machine's libraries, its Python and this project are mounted read-only in each container, so that it can run ours.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.polling import eventually

from ackward.kernel import grpc, protobuf
from ackward.kernel.namespaces import Namespace, command_inside, temporary

IMAGE = "localhost/busybox:1"
CONTAINER_EXITED = 2  # ContainerState
PLUGINS = Path("/usr/lib/cni")
PROJECT = Path(__file__).parents[2]
#: What a container shows of this machine, so that PYTHON and ACKWARD run in it as they do here.
SHOWN = ("/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix, str(PROJECT))
PYTHON = sys.executable
ACKWARD = str(Path(sys.executable).with_name("ackward"))

CONFIG = """\
version = 2
root = "{root}/root"
state = "{root}/state"
# Plugins for file systems that this machine may lack; they would only warn.
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{root}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true  # lowering it needs CAP_SYS_RESOURCE
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{root}/bin"
    conf_dir = "{root}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{root}/runc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
"""


def conflist(bridge: str, *, version: str = "1.0.0", subnet: str = "198.18.64.0/24") -> dict:
    """What a primary CNI writes: Debian's bridge with host-local, and loopback for the ordinary rest of a node."""
    ranges = [[{"subnet": subnet}], [{"subnet": "fdac:64::/64"}]]
    return {
        "cniVersion": version,
        "name": "podnet",
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isDefaultGateway": True,
                "hairpinMode": True,
                "ipam": {"type": "host-local", "ranges": ranges, "dataDir": "DATA"},
            }
        ],
    }


@dataclass(frozen=True)
class Sandboxed:
    """A pod that runs: its sandbox and the configuration that it was made with."""

    id: str
    namespace: str
    name: str
    config: bytes


class Containerd:
    """A running containerd. Messages and field numbers are those of kubernetes/cri-api (runtime.v1)."""

    def __init__(self, root: Path, place: Namespace, *, api: str = "runtime.v1") -> None:
        self.root = root
        self.socket = root / "c.sock"
        self.net_d = root / "net.d"
        self.bin = root / "bin"
        self.addresses = root / "addresses"
        #: Everything below is in this namespace: the bridge, and what the plugins change of the host.
        self.host = place
        self.cgroup = f"/{place.name}"
        self._api = api

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; returns when it answers and its network is ready."""
        with (self.root / "log").open("ab") as log:
            command = command_inside(self.host, ["containerd", "--config", str(self.root / "config.toml")])
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.until(lambda: self._answers(process), "containerd answers")
        return process

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self.root / "log").read_text()[-3000:]
        try:
            self.call("Version", {1: "v1"})
        except (OSError, grpc.CallFailed):
            return False
        return True

    def until(self, condition, what: str, within: float = 20.0) -> None:
        """Poll; fails the test with containerd's log if the time is over."""
        assert eventually(condition, within=within), f"not within {within} s: {what}\n{self.log()}"

    def log(self) -> str:
        """The end of containerd's own log."""
        return (self.root / "log").read_text(errors="replace")[-3000:]

    def call(self, method: str, request: Mapping[int, object]) -> protobuf.Fields:
        """One call of RuntimeService, on a connection of its own (so that threads may call)."""
        with grpc.Channel(self.socket, seconds=60) as channel:
            return protobuf.decode(
                channel.call(f"/{self._api}.RuntimeService/{method}", protobuf.encode(request))
            )

    def network_ready(self) -> bool:
        """Whether containerd has taken a network configuration up (StatusResponse.status.conditions)."""
        status = protobuf.message(self.call("Status", {}), 1)
        return any(
            protobuf.text(condition, 1) == "NetworkReady" and protobuf.number(condition, 2)
            for condition in protobuf.messages(status, 1)
        )

    def write_conflist(self, content: dict, name: str = "10-podnet.conflist") -> Path:
        """Put a network configuration where containerd looks, whole, as a primary CNI does."""
        text = json.dumps(content, indent=2).replace('"DATA"', json.dumps(str(self.addresses)))
        partial = self.net_d / ".partial"
        partial.write_text(text)
        return partial.replace(self.net_d / name)

    def run_pod(
        self,
        name: str,
        *,
        namespace: str = "default",
        annotations: Mapping[str, str] = {},
        host: bool = False,
    ) -> Sandboxed:
        """RunPodSandbox, with the labels that a kubelet sets."""
        uid = f"uid-{name}"
        labels = {
            "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.uid": uid,
        }
        network = protobuf.encode({1: 2 if host else 0})
        group = hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:12]  # names may hold anything
        linux = {1: f"{self.cgroup}/pod-{group}", 2: protobuf.encode({1: network})}
        config = protobuf.encode(
            {
                1: protobuf.encode({1: name, 2: uid, 3: namespace, 4: 0}),
                2: "" if host else "pod",
                3: str(self.root / "logs"),
                6: labels,
                7: annotations,
                8: protobuf.encode(linux),
            }
        )
        answer = self.call("RunPodSandbox", {1: config})
        return Sandboxed(protobuf.text(answer, 1), namespace, name, config)

    def remove_pod(self, sandbox_id: str) -> None:
        """StopPodSandbox and RemovePodSandbox; both may be asked again, as kubelet does when a shim ends in between."""
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            try:
                self.call(method, {1: sandbox_id})
            except grpc.CallFailed:
                self.call(method, {1: sandbox_id})

    def pods(self) -> list[str]:
        """The ids of all sandboxes, running or not."""
        return [protobuf.text(item, 1) for item in protobuf.messages(self.call("ListPodSandbox", {}), 1)]

    def run_container(
        self,
        pod: Sandboxed,
        name: str,
        command: list[str],
        *,
        writable: Mapping[str, Path] = {},
        only: Sequence[str] | None = None,
    ) -> str:
        """CreateContainer and StartContainer.

        ``writable``: directories of the container, and what is mounted there. ``only``: all capabilities that it gets
        (without "CAP_"), with no_new_privs and a read-only root, else a runtime's usual ones.
        """
        shown = [protobuf.encode({1: path, 2: path, 3: True}) for path in dict.fromkeys(SHOWN)]
        volumes = [protobuf.encode({1: path, 2: str(volume)}) for path, volume in writable.items()]
        security: dict[int, object] = {5: protobuf.encode({1: 0})}
        if only is not None:
            capabilities = protobuf.encode({1: list(only), 2: "ALL"})
            security = {1: capabilities, 5: protobuf.encode({1: 0}), 7: True, 11: True}
        config = protobuf.encode(
            {
                1: protobuf.encode({1: name, 2: 0}),
                2: protobuf.encode({1: IMAGE}),
                3: command,
                7: [*shown, *volumes],
                11: f"{name}.log",
                15: protobuf.encode({2: protobuf.encode(security)}),
            }
        )
        answer = self.call("CreateContainer", {1: pod.id, 2: config, 3: pod.config})
        container_id = protobuf.text(answer, 1)
        self.call("StartContainer", {1: container_id})
        return container_id

    def exited(self, container_id: str) -> tuple[int, str]:
        """Wait until a container ends: its exit code, and what it said (ContainerStatus; the CRI log format)."""

        def status() -> protobuf.Fields:
            return protobuf.message(self.call("ContainerStatus", {1: container_id}), 1)

        self.until(lambda: protobuf.number(status(), 3) == CONTAINER_EXITED, "the container ends")
        log = Path(protobuf.text(status(), 15)).read_text()
        return protobuf.number(status(), 7), "\n".join(line.split(" ", 3)[3] for line in log.splitlines())

    def pid(self, pod: Sandboxed) -> int:
        """The sandbox's own process, from its verbose status."""
        answer = self.call("PodSandboxStatus", {1: pod.id, 2: True})
        return json.loads(protobuf.mapping(answer, 2)["info"])["pid"]

    def address(self, pod: Sandboxed) -> str:
        """The pod's first address (PodSandboxStatus.network.ip)."""
        status = protobuf.message(self.call("PodSandboxStatus", {1: pod.id}), 1)
        return protobuf.text(protobuf.message(status, 5), 1)

    def namespace(self, pod: Sandboxed) -> Namespace:
        """The pod's network namespace."""
        path = Path(f"/proc/{self.pid(pod)}/ns/net")
        return Namespace(f"{pod.namespace}/{pod.name}", path, path.stat().st_ino)

    def netns_mounts(self) -> list[str]:
        """The namespaces that containerd keeps for pods: none may be left when they are gone."""
        directory = self.root / "state/io.containerd.grpc.v1.cri/netns"
        mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [path for path in mounted if path.startswith(str(directory))]

    def reserved(self) -> list[str]:
        """The addresses that host-local has given out."""
        return sorted(
            path.name
            for path in self.addresses.glob("podnet/*")
            if not path.name.startswith(("last_reserved", "lock"))
        )


@contextmanager
def containerd() -> Iterator[Containerd]:
    """A containerd with the image in it and no network configuration yet; nothing of it is left behind."""
    with ExitStack() as stack:
        place = stack.enter_context(temporary("containerd"))
        root = Path(tempfile.mkdtemp(prefix="ackward-containerd-", dir="/var/tmp"))
        had = {path: path.exists() for path in (Path("/run/containerd"), Path("/run/containerd/s"))}
        for name in ("net.d", "bin", "logs"):
            (root / name).mkdir()
        for plugin in PLUGINS.iterdir():
            (root / "bin" / plugin.name).symlink_to(plugin)
        (root / "config.toml").write_text(CONFIG.format(root=root, image=IMAGE))
        made = Containerd(root, place)
        stack.callback(_remove, made, had)
        process = made.start()
        stack.callback(_stop, made, process)
        _import_image(made)
        yield made


def _import_image(made: Containerd) -> None:
    archive = made.root / "image.tar"
    archive.write_bytes(image(IMAGE))
    ctr = ["ctr", "-a", str(made.socket), "-n", "k8s.io", "images", "import", str(archive)]
    subprocess.run(ctr, check=True, capture_output=True)


def _stop(made: Containerd, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        for sandbox in made.pods():
            made.remove_pod(sandbox)
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def _remove(made: Containerd, had: Mapping[Path, bool]) -> None:
    for pid in _of_ours(made.root):
        os.kill(pid, signal.SIGKILL)
    # Deepest first: a mount may lie in another.
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(f"{made.root}/"):
            subprocess.run(["umount", "--lazy", line.split()[4]], check=False)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup" in line:
            for directory, _, _ in os.walk(f"{line.split()[4]}{made.cgroup}", topdown=False):
                Path(directory).rmdir()
    shutil.rmtree(made.root)
    for path in (path for path in reversed(had) if not had[path] and path.exists()):
        if not any(path.iterdir()):
            path.rmdir()


def _of_ours(root: Path) -> list[int]:
    """Shims that lost their containerd name its socket on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(root / "c.sock") in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def image(name: str) -> bytes:
    """An OCI image archive with busybox (OCI image-layout 1.0.0)."""
    busybox = Path("/bin/busybox").read_bytes()
    directories = ("bin", "etc", "proc", "sys", "dev", "tmp", "run")
    links = {f"bin/{applet}": "busybox" for applet in ("sh", "sleep")}
    layer = _tar({"bin/busybox": busybox, "etc/passwd": b"root:x:0:0:root:/:/bin/sh\n"}, directories, links)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    platform = {"architecture": architecture, "os": "linux"}
    rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
    process = {"Cmd": ["/bin/busybox", "sleep", "1000000"], "Env": ["PATH=/bin"]}
    config = json.dumps({**platform, "config": process, "rootfs": rootfs}).encode()
    oci = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{oci}.manifest.v1+json",
            "config": _descriptor(f"{oci}.config.v1+json", config),
            "layers": [_descriptor(f"{oci}.layer.v1.tar", layer)],
        }
    ).encode()
    entry = {
        **_descriptor(f"{oci}.manifest.v1+json", manifest),
        "annotations": {"io.containerd.image.name": name},
        "platform": platform,
    }
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
    }
    blobs = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (layer, config, manifest)}
    return _tar(files | blobs)


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _descriptor(media_type: str, blob: bytes) -> dict:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _tar(files: Mapping[str, bytes], directories=(), links: Mapping[str, str] = {}) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in directories:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return out.getvalue()
