"""How long a remedy lasts is tried with one scope of one remedy: durations are made and taken back outside of remedies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.kernel.quickack_hosts import routing

from ackward.kernel import background
from ackward.kernel.namespaces import Namespace
from ackward.loop import fixing
from ackward.model.plan import Lasting, Plan, Receipt
from ackward.remedies.lasting import lease
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Remedy

Cut = Callable[..., int | None]

PORT, ROUTES = 7300, None
SECOND = Lasting(lease_ns=1_000_000_000)
HOUR = Lasting(lease_ns=3600 * 1_000_000_000)
PERSIST = Lasting(persist=True)


@dataclass(frozen=True)
class Fix:
    remedy: Remedy
    host: Namespace
    store: Receipts
    before: dict[str, list[str]]

    def plan(self, port: int | None = PORT) -> Plan:
        return fixing.plan_quickack(netns=self.host.name, port=port)

    def apply(self, lasting: Lasting, port: int | None = PORT) -> Receipt:
        receipt = self.remedy.apply(self.plan(port), self.store, lasting)
        assert receipt is not None
        return receipt

    def holders(self) -> list[background.Process]:
        return lease.of_directory(self.store.directory)

    @property
    def is_gone(self) -> bool:
        return routing(self.host) == self.before and not self.store.load().receipts and not self.holders()


def killed_after_each_step(
    cut: Cut, fix: Fix, lasting: Lasting, before_undo: Lasting
) -> Iterator[tuple[str, int]]:
    """Of apply, then of an undo by hand of what ``before_undo`` applied; the last of each is not killed.

    Whoever iterates sees to it that nothing is left before the next.
    """
    for what in ("apply", "undo"):
        last, total = 0, None
        while total is None:
            last += 1
            if what == "undo":
                fix.apply(before_undo, ROUTES)
            total = cut(what, fix, lasting, last, ROUTES)
            yield what, last
        assert total >= 4
