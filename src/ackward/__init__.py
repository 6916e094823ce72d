"""Find out why TCP is waiting, remove the wait, prove that it is gone.

The steps of the command line as functions with typed results::

    import ackward

    seen = ackward.watch(10, port=7000)              # -> Diagnosis: .report, .elapsed
    for finding in seen.report.findings:
        print(finding.why, finding.remedies[0].command)
    plan = ackward.plan_quickack(port=7000)          # -> Plan: shows what would change (nodelay, initcwnd, bypass)
    proof = ackward.prove(plan, 30)                  # -> Proof: undone unless it improved
    ackward.undo(proof.receipt.id)
    tables = ackward.read("customer.pcapng")         # -> .segments, .flows, .exchanges, .findings: lazy frames
    ackward.compare("before.json", "after.json")     # -> Comparison: .verdict, .causes

All errors derive from :class:`ackward.errors.AckwardError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ackward.loop.analyzing import analyze
    from ackward.loop.bypassing import plan_bypass
    from ackward.loop.comparing import compare
    from ackward.loop.doctor import examine
    from ackward.loop.fixing import (
        apply,
        plan_initcwnd,
        plan_nodelay,
        plan_quickack,
        status,
        undo,
        undo_everything,
    )
    from ackward.loop.pinning import pin_quickack
    from ackward.loop.proving import prove
    from ackward.loop.reading import read
    from ackward.loop.sockets import sockets
    from ackward.loop.tracing import trace
    from ackward.loop.watching import watch

__all__ = [
    "analyze",
    "apply",
    "compare",
    "examine",
    "pin_quickack",
    "plan_bypass",
    "plan_initcwnd",
    "plan_nodelay",
    "plan_quickack",
    "prove",
    "read",
    "sockets",
    "status",
    "trace",
    "undo",
    "undo_everything",
    "watch",
]

_PLACES = {
    "analyze": "ackward.loop.analyzing",
    "compare": "ackward.loop.comparing",
    "pin_quickack": "ackward.loop.pinning",
    "plan_bypass": "ackward.loop.bypassing",
    "prove": "ackward.loop.proving",
    "read": "ackward.loop.reading",
    "sockets": "ackward.loop.sockets",
    "trace": "ackward.loop.tracing",
    "watch": "ackward.loop.watching",
    "examine": "ackward.loop.doctor",
    **dict.fromkeys(
        ("apply", "plan_initcwnd", "plan_nodelay", "plan_quickack", "status", "undo", "undo_everything"),
        "ackward.loop.fixing",
    ),
}


def __getattr__(name: str) -> object:
    """Import on first use: `ackward --help` needs none of it."""
    if name not in _PLACES:
        raise AttributeError(f"module 'ackward' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
