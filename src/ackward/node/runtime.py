"""The running pods whose wishes are not on record, as the container runtime knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ackward.errors import AckwardError, UnknownName
from ackward.kernel import cri
from ackward.model.pods import Sandbox
from ackward.node.annotations import ours, wanted
from ackward.node.pods import Attachment, Pod

#: Kubernetes gives each pod one network, and runtimes call its interface so.
IFNAME = "eth0"

#: Gives the annotations that count for a sandbox; none if nothing is known of its pod.
Annotations = Callable[[Sandbox], Mapping[str, object] | None]


def of_sandbox(sandbox: Sandbox) -> Mapping[str, object]:
    """The annotations that the pod was made with: those that a CNI plugin is told."""
    return sandbox.annotations


def unmet(
    annotations: Annotations,
    recorded: Mapping[str, Attachment],
    complain: Callable[[AckwardError], None],
) -> Iterator[Attachment]:
    """Each running pod whose annotations are not those on record (by container id), with its namespace.

    One that asks for nothing is only given if it is on record: it asked before. Raises
    :class:`ackward.errors.Unavailable` where no runtime answers; tells ``complain`` of some that do not.
    """
    running = cri.running()
    for error in running.unanswered:
        complain(error)
    for sandbox in running.sandboxes:
        found = annotations(sandbox)
        if found is None:
            continue
        asked, record = ours(found), recorded.get(sandbox.id)
        if record.annotations == asked if record else not wanted(asked):
            continue
        try:
            with cri.Runtime(sandbox.endpoint) as runtime:
                netns = runtime.network_namespace(sandbox)
        except UnknownName:
            continue  # it has ended meanwhile
        except AckwardError as error:
            complain(error)
            continue
        if netns is None:
            continue  # hostNetwork: what its annotations ask for would be done to the node
        yield Attachment(
            container_id=sandbox.id,
            ifname=record.ifname if record else IFNAME,
            netns=str(netns),
            pod=Pod(namespace=sandbox.namespace, name=sandbox.name, uid=sandbox.uid),
            annotations=asked,
        )
