"""Which bits of the packet mark are to be had in a namespace, for sockets that are to take a detour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ackward.kernel import mark_rules, marks
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.model.changes import OUR_PROTOCOL
from ackward.remedies.route_metrics.apply import FAMILIES
from ackward.remedies.steering.hook import bits_set


@dataclass(frozen=True)
class Marks:
    """The bits that others claim, or a hook of ours sets; and by family the bit of our other rules.

    The latter may be shared by all who set and clear it on sockets of their own. What a hook sets is its receipt's
    alone: its undo would take the bit off sockets that others gave it too.
    """

    claimed: int
    ours: Mapping[int, int]

    @property
    def free(self) -> int | None:
        """A bit that nobody has, of ours neither; none if all candidates are taken."""
        taken = self.claimed
        for bit in self.ours.values():
            taken |= bit
        return marks.free(taken)


def read(namespace: Namespace) -> Marks:
    """The bits in use now. Raises :class:`~ackward.errors.Unavailable` when the firewall's cannot be told."""
    with Netlink(namespace) as netlink:
        steered = bits_set(netlink.cookie() or 0)
        ours = {
            rule.family: rule.mark
            for family in FAMILIES
            for rule in mark_rules.dump(netlink, family)
            if rule.protocol == OUR_PROTOCOL and rule.mark == rule.mask and not rule.mark & steered
        }
        return Marks(claimed=marks.claimed(netlink, OUR_PROTOCOL) | steered, ours=ours)
