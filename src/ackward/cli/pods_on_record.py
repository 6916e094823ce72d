"""What the node agent did to pods: `ackward node` shows and undoes it, `status` and `undo` only name it."""

from __future__ import annotations

from ackward.cli.output import talk
from ackward.node.pods import Attachment, Pods


def on_record() -> list[Attachment]:
    """The pods on record on this node whose namespaces live; none, and a word of it, if they are not ours to read."""
    pods = Pods()
    try:
        return [attachment for attachment in pods.all() if pods.is_there(attachment)]
    except PermissionError:
        talk.print("Only root may read whether the node agent has pods on record.")
        return []


def say(pods: list[Attachment], what: str) -> None:
    """Say on stderr how many there are, and ``what`` of them."""
    if pods:
        count = "1 pod" if len(pods) == 1 else f"{len(pods)} pods"
        talk.print(f"The node agent has {count} on record: {what}.", markup=False, soft_wrap=True)
