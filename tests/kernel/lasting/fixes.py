"""How long a remedy lasts is tried with one scope of one remedy: durations are made and taken back outside of remedies."""

from __future__ import annotations

from collections.abc import Callable
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
