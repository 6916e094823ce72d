"""A host to apply quickack to for a while, and a process that is killed while it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.lasting.fixes import PORT, Cut, Fix
from tests.kernel.quickack_hosts import router, routing
from tests.kernel.stepping import request, stepping

from ackward import remedies
from ackward.kernel.systemd import UNITS, Systemd
from ackward.model.plan import Lasting
from ackward.remedies.clearance import undo_all
from ackward.remedies.receipts import Receipts


@pytest.fixture
def fix(tmp_path: Path) -> Iterator[Fix]:
    store = Receipts(tmp_path / "ackward", Systemd(tmp_path / "root"))
    (tmp_path / "root" / UNITS).mkdir(parents=True)
    with router() as host:
        made = Fix(remedies.load("quickack"), host, store, routing(host))
        yield made
        undo_all(store, [host])
        assert not made.holders()


@pytest.fixture(scope="module")
def cut() -> Iterator[Cut]:
    """Applies, renews or undoes and kills it after step ``last``; the number of steps when there are fewer."""
    with stepping() as take:

        def cut(what: str, fix: Fix, lasting: Lasting, last: int, port: int | None = PORT) -> int | None:
            plan = fix.plan(port) if what == "apply" else None
            return take(request(plan, fix.store, last=last, lasting=lasting))

        yield cut
