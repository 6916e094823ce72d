"""Quickack for a port of one host: planned, applied, and what of it is there."""

from __future__ import annotations

import subprocess

from ackward import remedies
from ackward.kernel import routes
from ackward.kernel.background import Process
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.model.changes import FollowerStarted
from ackward.model.plan import Plan, Receipt, State
from ackward.model.scopes import PortScope
from ackward.remedies.detour import mirror
from ackward.remedies.receipts import Receipts

QUICKACK = remedies.load("quickack")
PORT = 7300


def planned(host: Namespace, port: int = PORT) -> Plan:
    made = QUICKACK.plan(host, PortScope(port=port))
    assert isinstance(made, Plan), made
    return made


def applied(host: Namespace, store: Receipts, port: int = PORT) -> Receipt:
    receipt = QUICKACK.apply(planned(host, port), store)
    assert receipt is not None
    return receipt


def table_of(receipt: Receipt) -> int:
    return next(change.table for change in receipt.changes if isinstance(change, FollowerStarted))


def follower_of(receipt: Receipt) -> Process:
    change = next(change for change in receipt.changes if isinstance(change, FollowerStarted))
    assert change.pid is not None
    assert change.start_time is not None
    return Process(change.pid, change.start_time)


def in_force(receipt: Receipt, store: Receipts) -> bool:
    return QUICKACK.status(receipt, store).state is State.IN_FORCE


def mirrored(host: Namespace, receipt: Receipt) -> bool:
    with Netlink(host) as netlink:
        return not any(
            mirror.difference(routes.dump(netlink, family), table_of(receipt)) for family in (4, 6)
        )


def shown(host: Namespace, table: int, family: str = "-4") -> str:
    done = subprocess.run(
        ["ip", "-n", host.name, family, "route", "show", "table", str(table)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout  # ip fails on a table that was never filled
