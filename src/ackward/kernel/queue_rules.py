"""Rules of iptables that hand SYNs to an NFQUEUE, marked as ours by a comment.

iptables, not nft: a kernel may have NFQUEUE as a target of xtables only (``queue`` is a module of its own in nft).
"""

from __future__ import annotations

import shlex
import subprocess

from ackward.errors import PrivilegeMissing, Unavailable
from ackward.kernel.namespaces import Namespace, command_inside

_TABLES = {4: "iptables", 6: "ip6tables"}
_COMMENT = "ackward"
_CHAIN = ("-t", "mangle")
#: Seconds that another program may hold the lock of the tables.
_LOCKED = 10
#: RESOURCE_PROBLEM in xtables.h: no privilege, or the lock. 1 is "there is no such rule".
_NO_ACCESS = 4


def specification(
    *, network: str, interface: str, first_port: int, last_port: int, queue: int
) -> tuple[str, ...]:
    """The rule's words. ``--queue-bypass``: without a listener at the queue the SYNs pass.

    ``interface`` empty: addresses of this host alone, wherever it comes in; not what is forwarded.
    """
    at = ("-i", interface) if interface else ("-m", "addrtype", "--dst-type", "LOCAL")
    return (
        *at, "-d", network, "-p", "tcp", "--syn", "--dport", f"{first_port}:{last_port}",
        "-m", "comment", "--comment", _COMMENT, "-j", "NFQUEUE", "--queue-num", str(queue), "--queue-bypass",
    )  # fmt: skip


def _run(namespace: Namespace, family: int, *words: str) -> subprocess.CompletedProcess[str]:
    command = [_TABLES[family], "-w", str(_LOCKED), *_CHAIN, *words]
    try:
        return subprocess.run(command_inside(namespace, command), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable(
            f"{error.filename} is not installed",
            consequence="SYNs cannot be held",
            next_step="apt-get install iptables, or use `optimistic`",
        ) from error


def add(namespace: Namespace, family: int, rule: tuple[str, ...]) -> None:
    """Add the rule before all others. Raises :class:`PrivilegeMissing` or :class:`Unavailable`."""
    done = _run(namespace, family, "-I", "PREROUTING", *rule)
    _require_access(family, done)
    if done.returncode:
        raise Unavailable(
            f"{_TABLES[family]} refuses an NFQUEUE rule: {_complaint(done)}",
            consequence="SYNs cannot be held",
            next_step="use a kernel with CONFIG_NETFILTER_XT_TARGET_NFQUEUE and CONFIG_NETFILTER_XT_MATCH_ADDRTYPE, "
            "or `optimistic`",
        )


def there(namespace: Namespace, family: int, rule: tuple[str, ...]) -> bool:
    """Whether the rule is there. Raises as :func:`add` where that cannot be told."""
    done = _run(namespace, family, "-C", "PREROUTING", *rule)
    _require_access(family, done)
    return done.returncode == 0


def delete(namespace: Namespace, family: int, rule: tuple[str, ...]) -> bool:
    """Delete the rule; false if it is gone already. Raises as :func:`add` where it may not be deleted."""
    done = _run(namespace, family, "-D", "PREROUTING", *rule)
    _require_access(family, done)
    return done.returncode == 0


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"


def _require_access(family: int, done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != _NO_ACCESS:
        return
    consequence = "nothing is known of the rule that holds SYNs, and it was not changed"
    if "Permission denied" in done.stderr:
        raise PrivilegeMissing.for_this_command(
            f"{_TABLES[family]} may not touch rules (CAP_NET_ADMIN)", consequence=consequence
        )
    raise Unavailable(
        f"{_TABLES[family]} cannot be asked: {_complaint(done)}",
        consequence=consequence,
        next_step="see which program holds the lock of iptables, and try again",
    )


def sweep(namespace: Namespace) -> list[str]:
    """Delete all rules of ours; gives them in words. Without iptables there are none."""
    removed = []
    for family, tables in _TABLES.items():
        try:
            listed = _run(namespace, family, "-S", "PREROUTING").stdout
        except Unavailable:
            continue
        for line in listed.splitlines():
            words = shlex.split(line)
            if words[:1] == ["-A"] and _COMMENT in words and "NFQUEUE" in words:
                _run(namespace, family, "-D", *words[1:])
                removed.append(f"{namespace.name}: {tables} {' '.join(words[1:])}")
    return removed
