"""The pods of this node, asked of its container runtime (Container Runtime Interface, over the runtime's own socket).

Field numbers are those of kubernetes/cri-api, pkg/apis/runtime/v1/api.proto. runtime.v1alpha2 has the same ones for all
that is read here; it is asked where v1 is not served (containerd before 1.6, CRI-O before 1.20). Which process a
sandbox has is no field: containerd and CRI-O tell it in the JSON of a verbose status.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ackward.errors import AckwardError, PrivilegeMissing, Unavailable, UnknownName, UsageError
from ackward.kernel import grpc, protobuf
from ackward.kernel.processes import cgroup_of_process, cgroups_of_process
from ackward.model.pods import Container, Pod, Sandbox

#: crictl's name for the same setting: a path, or unix://PATH.
ENVIRONMENT = "CONTAINER_RUNTIME_ENDPOINT"
#: Where runtimes listen: containerd, CRI-O, k3s and RKE2, k0s, MicroK8s, cri-dockerd.
ENDPOINTS = tuple(
    map(
        Path,
        (
            "/run/containerd/containerd.sock",
            "/run/crio/crio.sock",
            "/run/k3s/containerd/containerd.sock",
            "/run/k0s/containerd.sock",
            "/var/snap/microk8s/common/run/containerd.sock",
            "/run/cri-dockerd.sock",
        ),
    )
)
_VERSIONS = ("runtime.v1", "runtime.v1alpha2")
_NODE = 2  # NamespaceMode: the namespace is the node's
_READY = 0  # PodSandboxState
#: How many pods an error names.
_MOST_NAMES = 8


class _Request:
    """Requests. The filter of containers is a message inside."""

    ID = 1  # PodSandboxStatusRequest.pod_sandbox_id, ContainerStatusRequest.container_id
    VERBOSE = 2
    FILTER = 1  # ListContainersRequest
    FILTER_SANDBOX = 3  # ContainerFilter


class _PodSandbox:
    """An item (field 1) of ListPodSandboxResponse."""

    ID = 1
    METADATA = 2
    STATE = 3
    CREATED_AT = 4
    ANNOTATIONS = 6


class _Metadata:
    """PodSandboxMetadata; ContainerMetadata has the first field alone."""

    NAME = 1
    UID = 2
    NAMESPACE = 3
    ATTEMPT = 4


class _Status:
    """PodSandboxStatusResponse, and in it status.linux.namespaces.options.network."""

    STATUS = 1
    INFO = 2
    LINUX = 6
    NAMESPACES = 1
    OPTIONS = 2
    NETWORK = 1


class _Container:
    """An item (field 1) of ListContainersResponse."""

    ID = 1
    METADATA = 3


def endpoints() -> list[Path]:
    """The sockets to ask: the one that the environment names, else those of the usual ones that are there."""
    if named := os.environ.get(ENVIRONMENT):
        return [Path(named.removeprefix("unix://"))]
    return [path for path in ENDPOINTS if path.exists()]


class Runtime:
    """A connection to one runtime. Raises :class:`PrivilegeMissing` or :class:`Unavailable` if it cannot be asked."""

    def __init__(self, endpoint: Path) -> None:
        self.endpoint = endpoint
        self._version = ""
        try:
            self._channel = grpc.Channel(endpoint)
        except PermissionError as error:
            raise PrivilegeMissing.for_this_command(
                f"the container runtime at {endpoint} may not be asked", consequence="its pods are not known"
            ) from error
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def sandboxes(self) -> list[Sandbox]:
        """All pods that run. One question, whatever their number."""
        with self._reading():
            answer = self._ask("ListPodSandbox", b"")
            found = [self._sandbox(fields) for fields in protobuf.messages(answer, 1)]
        return [sandbox for sandbox in found if sandbox.ready]

    def inspect(self, sandbox: Sandbox) -> Pod:
        """Where a pod is on this machine. Raises :class:`UnknownName` if it has ended."""
        with self._reading():
            netns, pid = self._place(sandbox)
            containers = tuple(self._containers(sandbox))
        cgroups = [container.cgroup for container in containers if container.pid]
        return Pod(sandbox, pid, netns, _common([_cgroup(pid, sandbox.id), *cgroups]), containers)

    def network_namespace(self, sandbox: Sandbox) -> Path | None:
        """Where a pod's network namespace can be entered; None for a pod on the node's own network.

        Raises :class:`UnknownName` if it has ended, :class:`Unavailable` if its namespace cannot be seen from here.
        """
        with self._reading():
            return self._place(sandbox)[0]

    def _place(self, sandbox: Sandbox) -> tuple[Path | None, int]:
        """Network namespace and process of a pod."""
        answer = self._ask("PodSandboxStatus", _verbose(sandbox.id))
        info = _info(answer)
        pid = _pid(info)
        if pid is None:
            raise UnknownName(
                f"the pod {sandbox.pod!r} has ended", consequence="nothing was done", next_step="try again"
            )
        options = protobuf.message(answer, _Status.STATUS)
        for number in (_Status.LINUX, _Status.NAMESPACES, _Status.OPTIONS):
            options = protobuf.message(options, number)
        if protobuf.number(options, _Status.NETWORK) == _NODE:
            return None, pid
        return _network_namespace(info, pid, sandbox), pid

    def _containers(self, sandbox: Sandbox) -> Iterable[Container]:
        mine = protobuf.encode({_Request.FILTER_SANDBOX: sandbox.id})
        answer = self._ask("ListContainers", protobuf.encode({_Request.FILTER: mine}))
        for fields in protobuf.messages(answer, 1):
            container_id = protobuf.text(fields, _Container.ID)
            name = protobuf.text(protobuf.message(fields, _Container.METADATA), _Metadata.NAME)
            try:
                pid = _pid(_info(self._ask("ContainerStatus", _verbose(container_id))))
            except UnknownName:
                continue  # it ended meanwhile
            yield Container(container_id, name, pid, _cgroup(pid, container_id) if pid else None)

    def _sandbox(self, fields: protobuf.Fields) -> Sandbox:
        metadata = protobuf.message(fields, _PodSandbox.METADATA)
        return Sandbox(
            id=protobuf.text(fields, _PodSandbox.ID),
            namespace=protobuf.text(metadata, _Metadata.NAMESPACE),
            name=protobuf.text(metadata, _Metadata.NAME),
            uid=protobuf.text(metadata, _Metadata.UID),
            attempt=protobuf.number(metadata, _Metadata.ATTEMPT),
            ready=protobuf.number(fields, _PodSandbox.STATE) == _READY,
            created_ns=protobuf.number(fields, _PodSandbox.CREATED_AT),
            annotations=protobuf.mapping(fields, _PodSandbox.ANNOTATIONS),
            endpoint=self.endpoint,
        )

    def _ask(self, method: str, request: bytes) -> protobuf.Fields:
        """Ask in the version of the interface that this runtime serves, found out with the first question."""
        for version in (self._version,) if self._version else _VERSIONS:
            try:
                answer = self._channel.call(f"/{version}.RuntimeService/{method}", request)
            except grpc.CallFailed as error:
                if error.status == grpc.UNIMPLEMENTED and not self._version:
                    continue
                if error.status == grpc.NOT_FOUND:
                    raise UnknownName(
                        f"the container runtime at {self.endpoint} knows it no more",
                        consequence="it ended meanwhile, and nothing is known of it",
                        next_step="`crictl pods` lists those that run",
                    ) from error
                raise self._unavailable(str(error)) from error
            except OSError as error:
                raise self._unavailable(error.strerror or str(error)) from error
            self._version = version
            return protobuf.decode(answer)
        raise self._unavailable(
            "it serves no Container Runtime Interface (containerd of Docker has it disabled)"
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What is no message, at any depth of an answer, is the runtime's fault and is told as such."""
        try:
            yield
        except ValueError as error:
            raise self._unavailable(f"its answer is broken: {error}") from error

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(
            f"the container runtime at {self.endpoint} cannot be asked: {why}",
            consequence="its pods are not known",
            next_step=f"name the socket of the runtime that has them in {ENVIRONMENT}",
        )


@dataclass(frozen=True)
class Running:
    """The pods that run on this node, of all runtimes that answered, and why others did not."""

    sandboxes: tuple[Sandbox, ...]
    unanswered: tuple[AckwardError, ...] = ()


def running() -> Running:
    """Ask all runtimes of this node; raises :class:`Unavailable` where none answers."""
    found: list[Sandbox] = []
    failures: list[AckwardError] = []
    asked = endpoints()
    for endpoint in asked:
        try:
            with Runtime(endpoint) as runtime:
                found += runtime.sandboxes()
        except Unavailable as error:
            failures.append(error)
    if len(failures) < len(asked):
        return Running(tuple(found), tuple(failures))
    if failures:
        raise failures[0]
    raise Unavailable(
        "no container runtime was found on this machine",
        consequence="pods cannot be resolved",
        next_step=f"run it on the pod's node, or name the runtime's socket in {ENVIRONMENT}",
    )


def pod(spec: str) -> Pod:
    """The running pod ``NAMESPACE/NAME``, or ``NAME`` in the namespace default.

    Raises :class:`UnknownName` if it does not run here, and what :func:`running` raises.
    """
    namespace, slash, name = spec.partition("/")
    if not slash:
        namespace, name = "default", spec
    if not (namespace and name):
        raise UsageError(
            f"{spec!r} names no pod",
            consequence="no pod was looked up",
            next_step="name it as NAMESPACE/NAME",
        )
    wanted = f"{namespace}/{name}"
    here = running()
    mine = [sandbox for sandbox in here.sandboxes if sandbox.pod == wanted]
    if not mine:
        raise _unknown(wanted, here)
    newest = max(mine, key=lambda sandbox: sandbox.created_ns)
    with Runtime(newest.endpoint) as runtime:
        return runtime.inspect(newest)


def _unknown(wanted: str, here: Running) -> UnknownName:
    names = sorted({sandbox.pod for sandbox in here.sandboxes})
    shown = ", ".join(map(repr, names[:_MOST_NAMES])) + (", ..." if len(names) > _MOST_NAMES else "")
    silent = "".join(f"; {error.missing}" for error in here.unanswered)
    return UnknownName(
        f"the pod {wanted!r} does not run on this node{silent}",
        consequence="nothing was done",
        next_step=f"`kubectl get pod -o wide` says on which node it runs; here run {shown or 'none'}",
    )


def _verbose(which: str) -> bytes:
    return protobuf.encode({_Request.ID: which, _Request.VERBOSE: True})


def _info(answer: protobuf.Fields) -> dict[str, Any]:
    """What a runtime tells beyond the interface; both containerd and CRI-O tell ``pid`` and ``runtimeSpec``."""
    try:
        info = json.loads(protobuf.mapping(answer, _Status.INFO).get("info", "{}"))
    except ValueError:
        return {}
    return info if isinstance(info, dict) else {}


def _pid(info: dict[str, Any]) -> int | None:
    pid = info.get("pid")
    return pid if isinstance(pid, int) and pid > 0 else None


def _network_namespace(info: dict[str, Any], pid: int, sandbox: Sandbox) -> Path:
    """The path that the runtime made, which lives as long as the pod, if it is seen here; else that of its process."""
    of_process = Path(f"/proc/{pid}/ns/net")
    try:
        namespaces = info["runtimeSpec"]["linux"]["namespaces"]
        made = Path(next(entry["path"] for entry in namespaces if entry["type"] == "network"))
    except (LookupError, TypeError, StopIteration):
        made = of_process  # a runtime that does not tell
    try:
        # A namespace's file is on nsfs; what lies at that path in a container of ours may be an empty file.
        if made != of_process and made.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev:
            return made
    except OSError:
        pass  # our mount namespace does not show it
    # In another PID namespace the process that has this PID here is somebody else.
    if sandbox.id in cgroups_of_process(pid):
        return of_process
    raise Unavailable(
        f"the network namespace of the pod {sandbox.pod!r} cannot be seen from here ({made}, process {pid})",
        consequence="it cannot be entered",
        next_step="run on the node itself; in a container mount /run/netns of the host, or set hostPID",
    )


def _cgroup(pid: int, container_id: str) -> str | None:
    """The v2 cgroup that a container has for itself, below the mount point."""
    path = cgroup_of_process(pid) or ""
    return path.strip("/") if container_id in path else None


def _common(cgroups: Iterable[str | None]) -> str | None:
    """The deepest cgroup that holds all; None if any has none, or if that is the root."""
    paths = list(cgroups)
    if not paths or None in paths:
        return None
    common = os.path.commonpath([f"/{path}" for path in paths]).strip("/")
    return common or None
