"""Pods by their names: where one is on this machine, and who in it owns a socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ackward.errors import AckwardError, Refused, Unavailable, UsageError
from ackward.kernel import cri, namespaces
from ackward.kernel.probes import cgroup2_mount
from ackward.kernel.processes import cgroups_of_process
from ackward.model.pods import Container, Pod

if TYPE_CHECKING:  # they bring NumPy, for which a remedy has no use
    from ackward.capture.live import Scope
    from ackward.model.segments import Owner, Recording, SocketFacts

#: How a pod is told the name of its node (the downward API's spec.nodeName); elsewhere it is the host's name.
_NODE = "NODE_NAME"
#: A container id is shown by this many digits (:func:`ackward.kernel.processes.container_of_cgroup`).
_SHORT = 12


def resolve(spec: str, *beside: object, consequence: str = "nothing was watched") -> Pod:
    """The running pod ``NAMESPACE/NAME``; raises an error that says why it cannot be found.

    ``beside`` are other places that were named, which a pod does not go with.
    """
    if any(place is not None for place in beside):
        raise UsageError(
            "--pod says where already: --netns, --pid and --cgroup do not go with it",
            consequence=consequence,
            next_step="leave them out",
        )
    try:
        return cri.pod(spec)
    except AckwardError as error:
        error.consequence = consequence
        raise


def netns_to_change(spec: str, *beside: object) -> str:
    """The path of a pod's own network namespace; raises :class:`Refused` where it is the node's."""
    pod = resolve(spec, *beside, consequence="nothing was changed")
    if pod.netns is None:
        raise Refused(
            f"the pod {pod.sandbox.pod!r} is on the node's own network",
            consequence="the routes of the whole node would change; nothing was changed",
            next_step="name a --port or --cgroup of the pod instead",
        )
    return str(pod.netns)


def scope_of(pod: Pod, scope: Scope) -> Scope:
    """The scope narrowed to the pod: its network namespace, which holds all its sockets whoever opened them.

    A pod on the node's own network has no namespace of its own; then its cgroup tells which sockets are its.
    """
    if pod.netns is not None:
        return replace(scope, netns=namespaces.resolve(str(pod.netns)))
    if pod.cgroup is None:
        raise Unavailable(
            f"the pod {pod.sandbox.pod!r} is on the node's network and has no v2 cgroup of its own",
            consequence="its sockets cannot be told from the node's; nothing was watched",
            next_step="watch its --port or its --pid",
        )
    return replace(scope, cgroup=cgroup2_mount() / pod.cgroup)


def named(recording: Recording, pod: Pod) -> Recording:
    """The recording of a pod, with pod, container and node beside each socket.

    On the node's network those are left out that are not known to be the pod's.
    """
    known = {container.id[:_SHORT]: container.name for container in _known(pod)}
    node = os.environ.get(_NODE) or os.uname().nodename

    def name(socket: SocketFacts) -> SocketFacts:
        container = socket.owner.container or _container_of(socket.owner, known)
        owner = replace(
            socket.owner,
            container=container,
            container_name=known.get(container or ""),
            pod=pod.sandbox.pod,
            node=node,
        )
        return replace(socket, owner=owner)

    sockets = tuple(map(name, recording.sockets))
    if pod.netns is None:
        sockets = tuple(socket for socket in sockets if socket.owner.container_name)
    return replace(recording, sockets=sockets)


def _known(pod: Pod) -> tuple[Container, ...]:
    """The containers that were there when the watch began and those that are there now."""
    try:
        with cri.Runtime(pod.sandbox.endpoint) as runtime:
            return (*pod.containers, *runtime.inspect(pod.sandbox).containers)
    except AckwardError:
        return pod.containers  # the pod ended while it was watched


def _container_of(owner: Owner, containers: Mapping[str, str]) -> str | None:
    """By the process's cgroups, of any hierarchy: where they are of v1, the socket tells none."""
    if owner.pid is None:
        return None
    cgroups = cgroups_of_process(owner.pid)
    return next((container for container in containers if container in cgroups), None)
