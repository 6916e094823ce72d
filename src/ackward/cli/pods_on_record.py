"""What the node agent did to pods: `ackward node` shows and undoes it, `status` and `undo` only name it."""

from __future__ import annotations

from collections.abc import Sequence

from ackward.cli.output import talk
from ackward.errors import PrivilegeMissing
from ackward.model.plan import NamespaceIdentity
from ackward.remedies.pods_on_record import pods_on_record


def on_record() -> Sequence[NamespaceIdentity]:
    """The pods on record on this node whose namespaces live; none, and a word of it, if they are not ours to read."""
    try:
        return pods_on_record()
    except PrivilegeMissing:
        talk.print("Only root may read whether the node agent has pods on record.")
        return ()


def say(pods: Sequence[NamespaceIdentity], what: str) -> None:
    """Say on stderr how many there are, and ``what`` of them."""
    if pods:
        count = "1 pod" if len(pods) == 1 else f"{len(pods)} pods"
        talk.print(f"The node agent has {count} on record: {what}.", markup=False, soft_wrap=True)
