"""The running pods whose wishes are not on record, as the container runtime knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ackward.errors import AckwardError, Unavailable, UnknownName
from ackward.kernel import cri
from ackward.model.pods import Sandbox
from ackward.node.annotations import ours, wanted
from ackward.node.pods import Attachment, PodReference

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

    One that asks for nothing is only given if it is on record, as it asked before, or if it says what makes no sense.
    Raises :class:`ackward.errors.Unavailable` where no runtime answers; tells ``complain`` of some that do not.
    """
    running = cri.running()
    for error in running.unanswered:
        complain(error)
    for sandbox in running.sandboxes:
        try:
            attachment = _unmet(sandbox, annotations(sandbox), recorded.get(sandbox.id))
        except UnknownName:
            continue  # it has ended meanwhile
        except AckwardError as error:
            complain(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours with one pod shall not keep the others from theirs
            complain(
                Unavailable(
                    f"{sandbox.pod} cannot be looked at ({type(error).__name__}: {error})",
                    consequence="this pod is left as it is",
                    next_step="it is looked at again soon; report it if that fails too",
                )
            )
        else:
            if attachment is not None:
                yield attachment


def _unmet(
    sandbox: Sandbox, found: Mapping[str, object] | None, record: Attachment | None
) -> Attachment | None:
    if found is None:
        return None
    asked = ours(found)
    if record:
        if record.annotations == asked:
            return None
    elif not ((asks := wanted(asked)) or asks.complaints):
        return None
    with cri.Runtime(sandbox.endpoint) as runtime:
        netns = runtime.network_namespace(sandbox)
    if netns is None:
        return None  # hostNetwork: what its annotations ask for would be done to the node
    return Attachment(
        container_id=sandbox.id,
        ifname=record.ifname if record else IFNAME,
        netns=str(netns),
        pod=PodReference(namespace=sandbox.namespace, name=sandbox.name, uid=sandbox.uid),
        annotations=asked,
    )
