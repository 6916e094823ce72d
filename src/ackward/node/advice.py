"""What a remedy says, for somebody who has a pod's annotations and no command line of ours. Pure.

Remedies speak to whoever called ``ackward fix``. What they say holds for a pod too, but for the options and commands
that they advise: these become what a pod's annotations or the cluster's administrator can do, or are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ackward.model.scopes import BypassScope, Scope
from ackward.node.annotations import BYPASS_ACCEPT, PREFIX

_OF_THE_NODE = (
    r"Next: `kubectl apply -k deploy/nodelay` gives the agent's container those of the node; "
    r"where the node has none: \1."
)
_SELF_TEST = (
    "run `ackward doctor --self-test` on the node, as root: it tries it in namespaces of its own in seconds"
)
_MADE_BEFORE = (
    "Next: if an annotation asked for the other, take one of the two off; if it was done on the node, undo it there "
    "(`ackward status` lists it)."
)

#: In this order: what a remedy says, and what is said of it here.
_SAID = (
    (r"would not outlive this command", "would not last"),
    (r"Next: (.*\bmount -t (?:bpf|cgroup2) .*?)\.?$", _OF_THE_NODE),
    (r"`ackward doctor --self-test`, which tries it in namespaces of its own in seconds", _SELF_TEST),
    (r"`ackward doctor --self-test` measured", "`ackward doctor --self-test` measures on the node"),
    (r"Next: `ackward undo [^`]*`, then apply again", "Next: the agent takes it back and tries again"),
    (r"Next: `ackward undo [^`]*` when the cause", "Next: the agent tries again when the cause"),
    (r"Next: `ackward (?:undo|status)[ `].*", _MADE_BEFORE),
    (
        r"`ackward fix \w+ --[^`]*` leaves it alone",
        "give the pod a static route instead, or leave the annotation out",
    ),
    (r"name a destination with `--to CIDR`; connected", "give the pod a default route; connected"),
    (r"[,;] (?:or use|or say|try) `--[^`]*`", ""),
    (r" \(`--[^`]*` follows by itself\)", ""),
    (r"undo and apply again then", "a pod that is made anew has the new one"),
    (r": --after-idle .*", ""),
    (r"`ackward fix (\w+)`", rf"`{PREFIX}\1`"),
)
_ACCEPT = re.compile(r"`--accept ([a-z,-]+)`")


def for_pod(words: str, scope: Scope) -> str:
    """One problem or note of a remedy that a pod asked for with ``scope``."""
    if isinstance(scope, BypassScope):
        words = _ACCEPT.sub(lambda found: _annotation(found[1].split(","), scope), words)
    for pattern, instead in _SAID:
        words = re.sub(pattern, instead, words)
    return words


def _annotation(named: Iterable[str], scope: BypassScope) -> str:
    """Whole, with what it accepts already: a pod has one."""
    return f'`{BYPASS_ACCEPT}: "{",".join(sorted({*named, *scope.accepted}))}"`'
