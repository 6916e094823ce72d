"""What each CNI command does: a request in, an answer out.

Laws: a pod is kept from starting by bad input alone, or by ``failurePolicy: closed``; one that asks for nothing is not
looked at; DEL always succeeds; what was not done is told to ``tell``, never swallowed. A namespace that is not to be
seen is no bad input here: the agent may live among other mounts than the runtime. The stub does not, and looks first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ackward import remedies
from ackward.node.annotations import ours
from ackward.node.cni import CniError, Code, Command, Invocation, parse, version_of
from ackward.node.cni_missed import Missed
from ackward.node.pods import Attachment, Outcome, PodReference, Pods
from ackward.node.wire import Answer, Request


@dataclass(frozen=True)
class Served:
    """One request and what became of it, for logs and metrics.

    ``code``: 0, or the error's code that the runtime got. ``wanted``: the pod asks for anything. ``changed``,
    ``problems``, ``notes`` and ``complaints`` are words.
    """

    command: str
    container_id: str = ""
    ifname: str = ""
    pod: str = ""
    code: int = 0
    error: str = ""
    wanted: bool = False
    changed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass
class Commands:
    """Answers requests; safe for threads."""

    pods: Pods
    missed: Missed
    tell: Callable[[Served], None] = field(default=lambda _: None)

    def __post_init__(self) -> None:
        for name in ("quickack", "initcwnd"):  # the first pod shall not wait for the imports
            remedies.load(name)

    def __call__(self, request: Request) -> Answer:
        """The answer; what happened is told once."""
        begun = time.monotonic()
        served = Served(command=request.environment.get("CNI_COMMAND", "")[:40])
        answer = Answer()
        try:
            invocation = parse(request)
            served = replace(
                served,
                container_id=invocation.container_id,
                ifname=invocation.ifname,
                pod=pod.words if (pod := _pod(invocation)) else "",
            )
            served = self._do(invocation, served)
        except CniError as error:
            served = replace(
                served, code=int(error.code), error=": ".join(filter(None, (error.message, error.details)))
            )
            answer = Answer() if served.command == Command.DEL else error.answer(version_of(request))
        self.tell(replace(served, seconds=time.monotonic() - begun))
        return answer

    def _do(self, invocation: Invocation, served: Served) -> Served:
        match invocation.command:
            case Command.ADD:
                return self._add(invocation, served)
            case Command.CHECK:
                return self._check(invocation, served)
            case Command.DEL:
                return _with(served, self._delete(invocation.container_id, invocation.ifname))
            case Command.GC:
                return self._collect(invocation, served)
            case Command.STATUS:
                return served  # it answers, and that is all: an error would let the runtime start no pods

    def _add(self, invocation: Invocation, served: Served) -> Served:
        attachment = _attachment(invocation)
        wanted = attachment.wanted
        served = replace(served, wanted=bool(wanted), complaints=wanted.complaints)
        if not wanted:
            return served
        outcome = self.pods.apply(attachment, wanted)
        if outcome.problems and invocation.closed:
            # The runtime will not use this sandbox: nothing of it shall be left.
            self.pods.forget(attachment.container_id, attachment.ifname)
            raise CniError(
                Code.NOT_APPLIED,
                "failurePolicy is closed, and not all that the pod asks for can be done",
                "; ".join(outcome.problems),
            )
        return _with(served, outcome)

    def _check(self, invocation: Invocation, served: Served) -> Served:
        asked = _attachment(invocation)
        if not asked.wanted:
            return served
        if lacking := self.pods.lacking(asked):
            raise CniError(Code.NOT_IN_FORCE, "what the pod asks for is not in force", "; ".join(lacking))
        return replace(served, wanted=True)

    def _delete(self, container_id: str, ifname: str) -> Outcome:
        self.missed.forget(container_id, ifname)
        return self.pods.forget(container_id, ifname)

    def _collect(self, invocation: Invocation, served: Served) -> Served:
        for one in self.pods.all():
            if one.network == invocation.network and (one.container_id, one.ifname) not in invocation.valid:
                served = _with(served, self._delete(one.container_id, one.ifname))
        return served


def _with(served: Served, outcome: Outcome) -> Served:
    return replace(
        served,
        changed=(*served.changed, *outcome.changed),
        problems=(*served.problems, *outcome.problems),
        notes=(*served.notes, *outcome.notes),
    )


def _attachment(invocation: Invocation) -> Attachment:
    return Attachment(
        container_id=invocation.container_id,
        ifname=invocation.ifname,
        netns=invocation.netns,
        network=invocation.network,
        pod=_pod(invocation),
        annotations=ours(invocation.annotations),
    )


def _pod(invocation: Invocation) -> PodReference | None:
    """As the runtime names it in CNI_ARGS; other users of CNI have none."""
    args = invocation.args
    if "K8S_POD_NAME" not in args:
        return None
    return PodReference(
        namespace=args.get("K8S_POD_NAMESPACE", ""),
        name=args["K8S_POD_NAME"],
        uid=args.get("K8S_POD_UID", ""),
    )
