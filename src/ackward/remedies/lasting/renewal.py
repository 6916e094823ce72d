"""Another duration for a remedy that is in force."""

from __future__ import annotations

from collections.abc import Generator

from ackward.errors import Refused
from ackward.model.plan import Lasting, Receipt, State
from ackward.remedies.lasting import lease as leases
from ackward.remedies.lasting import persistence
from ackward.remedies.receipts import Receipts


def relast_steps(
    receipt: Receipt,
    lasting: Lasting,
    request: tuple[str, ...],
    store: Receipts,
    *,
    drop_lease: bool = False,
) -> Generator[str, None, Receipt]:
    """Change how long a remedy in force lasts: first make what is new, then write the receipt, then end what is old.

    What is not asked for stays as it is, but for the lease with ``drop_lease``. Runs inside the store's lock.
    """
    lease, persisted = receipt.lease, receipt.persisted
    if (lasting.lease_ns and persisted) or (lasting.persist and lease and not drop_lease):
        raise Refused(
            f"the same request has the receipt {receipt.id}, "
            + ("which comes back at each boot" if persisted else "which ends with its lease"),
            consequence="nothing was changed",
            next_step=f"`ackward undo {receipt.id}`, then apply again",
        )
    others = tuple(change for change in receipt.changes if change != lease)
    if lasting.lease_ns or drop_lease:
        with leases.held(receipt.id, lasting.lease_ns, store) as new:
            if new:
                yield new.words
            receipt = receipt.model_copy(update={"changes": (*([new] if new else []), *others)})
            store.write(receipt)
            yield f"receipt {receipt.id} completed"
        if lease:
            yield leases.end(lease, store).words
    if lasting.persist and not (persisted and persistence.look(persisted).state is State.IN_FORCE):
        earlier = receipt
        change = persistence.planned(receipt.id, request, store)
        others = tuple(other for other in receipt.changes if other != persisted)
        receipt = receipt.model_copy(update={"changes": (*others, change)})
        store.write(receipt)
        yield f"receipt {receipt.id} completed"
        try:
            persistence.make(change, store.systemd)
        except BaseException:
            persistence.unmake(change, store.systemd)
            store.write(earlier)
            raise
        yield change.words
    return receipt
