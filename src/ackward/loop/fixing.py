"""Fix: plan a remedy, apply it, read it back, take it back."""

from __future__ import annotations

from dataclasses import replace

from ackward import remedies
from ackward.errors import UsageError
from ackward.kernel.namespaces import in_sight, resolve
from ackward.loop.port_ranges import port_range
from ackward.model.fixing import StatusReport
from ackward.model.plan import Lasting, Plan, Receipt, Refusal, Status, UndoOutcome
from ackward.model.scopes import (
    MOST_SEGMENTS,
    USUAL_SEGMENTS,
    CapScope,
    PortScope,
    RouteScope,
    Scope,
    SocketScope,
    WindowScope,
)
from ackward.remedies.clearance import Cleared, undo_all, withdraw
from ackward.remedies.lasting.persistence import without_receipt
from ackward.remedies.pods_on_record import pods_on_record
from ackward.remedies.receipts import Receipts
from ackward.remedies.route_metrics.plan import already_set
from ackward.remedies.transaction import Occasion


def quickack_scope(
    *,
    to: str | None = None,
    port: int | str | None = None,
    cgroup: str | None = None,
    pid: int | None = None,
    cap: float | None = None,
) -> Scope:
    """The scope that the arguments ask for; raises :class:`UsageError`.

    Routes (``to``: a CIDR, or ``all`` for every route), or one port; with ``cgroup``, ``pid`` or ``cap`` (seconds)
    single sockets, which ``to`` and ``port`` limit.
    """
    if cgroup is not None or pid is not None or cap is not None:
        from ackward.loop.socket_scopes import socket_scope  # brings NumPy, for which a lease has no use

        sockets = socket_scope(port=port, to=to, cgroup=cgroup, pid=pid)
        return sockets if cap is None else _capped(sockets, cap)
    if port is None:
        return RouteScope(every=True) if to == "all" else RouteScope(to=to)
    if to is not None:
        raise UsageError(
            "--to and --port exclude each other",
            consequence="nothing was changed",
            next_step="choose routes (--to) or a port (--port), or add --cgroup, --pid or --cap",
        )
    first, last = port_range(str(port))
    if first != last:
        raise UsageError(
            f"--port {port} is a range, and a rule is for one port",
            consequence="nothing was changed",
            next_step="fix each port by itself, or add --cgroup, --pid or --cap, which take a range",
        )
    return PortScope(port=first)


def _capped(sockets: SocketScope, cap: float) -> CapScope:
    cap_us = round(cap * 1e6)
    if cap_us < 1:
        raise UsageError(
            f"a cap of {cap:g} s is no delay at all",
            consequence="nothing was changed",
            next_step="leave --cap out to acknowledge at once, or name a time, for example 8ms",
        )
    return CapScope(**sockets.model_dump(exclude={"kind"}), cap_us=cap_us)


def plan_quickack(
    *,
    netns: str | None = None,
    to: str | None = None,
    port: int | str | None = None,
    cgroup: str | None = None,
    pid: int | None = None,
    cap: float | None = None,
) -> Plan:
    """What ``fix quickack`` would change; raises :class:`Refused` with the reason if it should not.

    The arguments are those of :func:`quickack_scope`. Without ``netns`` it is the namespace of the process, or of the
    cgroup's processes, or the current one.
    """
    scope = quickack_scope(to=to, port=port, cgroup=cgroup, pid=pid, cap=cap)
    if isinstance(scope, SocketScope):
        from ackward.loop.socket_scopes import namespace_of

        namespace = namespace_of(netns, scope)
    else:
        namespace = resolve(netns)
    found = remedies.load("quickack").plan(namespace, scope)
    if isinstance(found, Refusal):
        raise found.as_error()
    words = None if cap is None else f"{cap * 1e3:g}ms"
    return asked_by(found, to=to, port=port, cgroup=cgroup, pid=pid, cap=words)


def asked_by(plan: Plan, **options: str | int | bool | None) -> Plan:
    """The plan with the words of ``ackward fix`` that ask for it: a unit of systemd repeats them at boot."""
    words = [plan.remedy]
    for name, value in options.items():
        if value is not None and value is not False:
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    return plan.model_copy(update={"request": tuple(words)})


def plan_nodelay(
    *,
    netns: str | None = None,
    port: int | str | None = None,
    to: str | None = None,
    cgroup: str | None = None,
    pid: int | None = None,
) -> Plan:
    """What ``fix nodelay`` would change; raises :class:`Refused` with the reason if it should not.

    The arguments are those of :func:`~ackward.loop.socket_scopes.socket_scope` and ``namespace_of()``.
    """
    from ackward.loop.socket_scopes import (  # brings NumPy, for which a lease has no use
        namespace_of,
        socket_scope,
    )

    scope = socket_scope(port=port, to=to, cgroup=cgroup, pid=pid)
    found = remedies.load("nodelay").plan(namespace_of(netns, scope), scope)
    if isinstance(found, Refusal):
        raise found.as_error()
    return asked_by(found, port=port, to=to, cgroup=cgroup, pid=pid)


def window_scope(*, segments: int, to: str | None = None, after_idle: bool = False) -> WindowScope:
    """The scope that the arguments ask for; raises :class:`UsageError`."""
    if not 1 <= segments <= MOST_SEGMENTS:
        reason = (
            "no data could leave" if segments < 1 else "a burst beyond any receiver's first window (64 KiB)"
        )
        raise UsageError(
            f"--segments {segments} is no initial window: {reason}",
            consequence="nothing was changed",
            next_step=f"name one of 1 to {MOST_SEGMENTS}; {USUAL_SEGMENTS} suits most paths",
        )
    return WindowScope(to=to, segments=segments, after_idle=after_idle)


def plan_initcwnd(
    *,
    segments: int,
    netns: str | None = None,
    to: str | None = None,
    after_idle: bool = False,
) -> Plan:
    """What ``fix initcwnd`` would change; raises :class:`Refused` with the reason if it should not."""
    scope = window_scope(to=to, segments=segments, after_idle=after_idle)
    found = remedies.load("initcwnd").plan(resolve(netns), scope)
    if isinstance(found, Refusal):
        raise found.as_error()
    if taken := already_set(found, Receipts().load().receipts):
        raise taken.as_error()
    return asked_by(found, to=to, segments=segments, after_idle=after_idle)


def apply(plan: Plan, *, lease: float | None = None, persist: bool = False) -> Receipt | None:
    """Carry out a plan, all of it or nothing. None: there was nothing to change.

    ``lease``: it goes by itself after so many seconds. ``persist``: a systemd unit applies it again at each boot. The
    same request again changes only these: a lease is counted anew from now, persistence is added.
    """
    return remedies.load(plan.remedy).apply(plan, Receipts(), lasting(lease=lease, persist=persist))


def lasting(*, lease: float | None, persist: bool) -> Lasting:
    """How long a remedy shall last; raises :class:`UsageError`."""
    if lease is not None and persist:
        raise UsageError(
            "--lease and --persist exclude each other",
            consequence="nothing was changed",
            next_step="choose an end (--lease) or each boot (--persist)",
        )
    if lease is not None and not lease > 0:
        raise UsageError(
            f"a lease of {lease:g} s is over before it begins",
            consequence="nothing was changed",
            next_step="name a longer time, for example 1h",
        )
    return Lasting(lease_ns=None if lease is None else round(lease * 1e9), persist=persist)


def earlier(plan: Plan) -> Receipt | None:
    """The receipt of the same request, if there is one."""
    return Receipts().find(plan.remedy, plan.namespace, plan.scope)


def status() -> list[Status]:
    """Each remedy as the kernel sees it now."""
    return list(status_report().remedies)


def status_report() -> StatusReport:
    """What :func:`status` gives, and what comes back at boot or cannot be read."""
    store = Receipts()
    contents = store.load()
    return StatusReport(
        remedies=tuple(remedies.load(receipt.remedy).status(receipt, store) for receipt in contents.receipts),
        persisted=tuple(without_receipt(store)),
        damaged=tuple(map(str, contents.damaged)),
    )


def undo(*ids: str, until_boot: bool = False) -> list[UndoOutcome]:
    """Take back the receipts named.

    An id may also be that of a persistent request that is not in force: its unit is removed. With ``until_boot`` units
    stay, and what is not in force needs nothing.
    """
    store = Receipts()
    names = dict.fromkeys(ids)
    if until_boot:
        in_force = {receipt.id: receipt for receipt in store.load().receipts}
        receipts = [in_force[name] for name in names if name in in_force]
        return [_undo(receipt, store, Occasion.UNIT_STOPPED) for receipt in receipts]
    waiting = {one.id: one for one in without_receipt(store)}
    receipts = [store.get(name) for name in names if name not in waiting]
    outcomes = [_undo(receipt, store, Occasion.ASKED) for receipt in receipts]
    with store.lock():
        return outcomes + [withdraw(waiting[name], store) for name in names if name in waiting]


def _undo(receipt: Receipt, store: Receipts, occasion: Occasion) -> UndoOutcome:
    return remedies.load(receipt.remedy).undo(receipt, store, occasion)


def undo_everything() -> Cleared:
    """Take back all receipts, and what is recognisably ours and has none.

    What a node agent did to pods is spared: it would do that again, and `ackward node uninstall` takes it back.
    """
    pods = pods_on_record()
    theirs = {pod.inode for pod in pods}
    cleared = undo_all(Receipts(), [namespace for namespace in in_sight() if namespace.inode not in theirs])
    return replace(cleared, spared=pods)
