"""The facts of a node, read back: nothing of it is remembered, all is looked at."""

from __future__ import annotations

from ackward.errors import AckwardError, Unavailable
from ackward.model.node import Agent, Binary, Entry, Form, Marker, NodeStatus, Placement, PodOnRecord
from ackward.node import keeper
from ackward.node.answering import Told, ask
from ackward.node.cni_missed import Missed
from ackward.node.installing import stub
from ackward.node.places import Places
from ackward.node.pods import Attachment, Pods


def status(places: Places) -> NodeStatus:
    """What is so on this node now; changes nothing."""
    entry = keeper.look(places.configuration)
    binary = _binary(places)
    told = ask(places.socket)
    reasons = _reasons(places, told, binary, entry)
    pods = Pods(places.attachments)
    return NodeStatus(
        ready=not reasons,
        reasons=reasons,
        binary=binary,
        entry=entry,
        agent=Agent(socket=str(places.socket), answering=told is not None, form=told.form if told else None),
        marker=Marker(path=str(places.marker), present=places.marker.is_file()),
        missed=Missed(places.missed).waiting(),
        pods=tuple(_on_record(pods, attachment) for attachment in pods.all()),
    )


def _reasons(places: Places, told: Told | None, binary: Binary, entry: Entry) -> dict[str, str]:
    """Why new pods do not get what they ask for: in the agent's own words, and what is seen where it has none."""
    if told and (told.reasons or told.form is Form.DAEMON):  # the daemon form needs neither binary nor entry
        return told.reasons
    reasons = {} if told else {"agent": str(_nobody(places))}
    in_place = entry.state is Placement.IN_PLACE
    if not binary.present:
        reasons["binary"] = str(
            Unavailable(
                f"{places.binary} is not there",
                consequence="no pod can start: the list has its entry"
                if in_place
                else "the plugin cannot run",
                next_step="`ackward node install` puts both back, and so does an agent that runs",
            )
        )
    if not in_place:
        reasons["entry"] = entry.words
    return reasons


def _nobody(places: Places) -> Unavailable:
    return Unavailable(
        f"no agent answers at {places.socket}",
        consequence="pods start without what they ask for, and get it when one runs",
        next_step="see why its pod does not run (`kubectl get pods -n ackward -o wide`), or start its service",
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
