"""The facts of a node, read back: nothing of it is remembered, all is looked at."""

from __future__ import annotations

from ackward.errors import AckwardError
from ackward.model.node import Agent, Binary, Marker, NodeStatus, Placement, PodOnRecord
from ackward.node import keeper
from ackward.node.answering import answers
from ackward.node.cni_missed import Missed
from ackward.node.installing import stub
from ackward.node.places import Places
from ackward.node.pods import Attachment, Pods


def status(places: Places) -> NodeStatus:
    """What is so on this node now; changes nothing."""
    entry = keeper.look(places.configuration)
    binary = _binary(places)
    answering = answers(places.socket)
    pods = Pods(places.attachments)
    return NodeStatus(
        ready=binary.present and answering and entry.state is Placement.IN_PLACE,
        binary=binary,
        entry=entry,
        agent=Agent(socket=str(places.socket), answering=answering),
        marker=Marker(path=str(places.marker), present=places.marker.is_file()),
        missed=Missed(places.missed).waiting(),
        pods=tuple(_on_record(pods, attachment) for attachment in pods.all()),
    )


def _binary(places: Places) -> Binary:
    try:
        there = places.binary.read_bytes()
    except OSError:
        return Binary(path=str(places.binary), present=False, current=False)
    try:
        current = there == stub()
    except AckwardError:
        current = False  # this installation has none to compare with
    return Binary(path=str(places.binary), present=True, current=current)


def _on_record(pods: Pods, attachment: Attachment) -> PodOnRecord:
    alive = pods.is_there(attachment)
    return PodOnRecord(
        container_id=attachment.container_id,
        ifname=attachment.ifname,
        pod=attachment.pod.words if attachment.pod else None,
        netns=attachment.netns,
        alive=alive,
        lacking=pods.lacking(attachment) if alive else (),
    )
