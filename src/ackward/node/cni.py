"""One CNI request: what the runtime asks, checked. Pure.

Source: the CNI specification, versions 0.3.0 to 1.1.0, section "Execution Protocol".
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from ackward.node.annotations import encodable
from ackward.node.wire import Answer, Request

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"  # the capability of containerd >= 1.5 and CRI-O >= 1.29
VALID_ATTACHMENTS = "cni.dev/valid-attachments"
_SHOWN_WITHOUT_ONE = "1.0.0"  # in an error, when the request has no version that we know

# Specification, "Parameters": what a container's id and an interface's name may be (the kernel: dev_valid_name()).
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")
_IFNAME = re.compile(r"[^/:\s\0]{1,15}\Z")


class Code(enum.IntEnum):
    """Error codes of the specification; from 100 on they are a plugin's own. The stub has three more (5, 11, 50)."""

    INCOMPATIBLE_VERSION = 1
    INVALID_ENVIRONMENT = 4
    UNDECODABLE = 6
    INVALID_CONFIGURATION = 7
    NOT_IN_FORCE = 100
    NOT_APPLIED = 101


class Command(enum.StrEnum):
    """What the agent is asked; VERSION is answered by the stub itself."""

    ADD = "ADD"
    CHECK = "CHECK"
    DEL = "DEL"
    GC = "GC"
    STATUS = "STATUS"


_SINCE = {Command.CHECK: "0.4.0", Command.GC: "1.1.0", Command.STATUS: "1.1.0"}
_NEEDS = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),  # containerd's DEL may come without a namespace
}
_CHAINED = (Command.ADD, Command.CHECK)


class CniError(Exception):
    """A request that is refused, as the runtime gets to see it."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details

    def answer(self, version: str = _SHOWN_WITHOUT_ONE) -> Answer:
        """The error object on stdout, with exit code 1."""
        known = version if version in VERSIONS else _SHOWN_WITHOUT_ONE
        error = {"cniVersion": known, "code": int(self.code), "msg": self.message, "details": self.details}
        return Answer(1, json.dumps(error).encode())


@dataclass(frozen=True)
class Invocation:
    """A request that makes sense. ``args`` are those of CNI_ARGS; ``valid`` only for GC, as (container id, ifname)."""

    command: Command
    version: str
    container_id: str = ""
    ifname: str = ""
    netns: str = ""
    network: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, object] = field(default_factory=dict)
    closed: bool = False
    valid: frozenset[tuple[str, str]] = frozenset()


def parse(request: Request) -> Invocation:
    """The request, checked; raises :class:`CniError`."""
    environment = request.environment
    try:
        command = Command(environment.get("CNI_COMMAND", ""))
    except ValueError as error:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            "CNI_COMMAND is none of " + ", ".join(Command),
            f"it is {environment.get('CNI_COMMAND', '')[:40]!r}",
        ) from error
    _require_variables(command, environment)
    configuration = _decoded(request.configuration)
    version = _version(command, configuration)
    if command in _CHAINED:
        _require_result(configuration)
    return Invocation(
        command=command,
        version=version,
        container_id=environment.get("CNI_CONTAINERID", ""),
        ifname=environment.get("CNI_IFNAME", ""),
        netns=environment.get("CNI_NETNS", ""),
        network=_text(configuration, "name"),
        args=_args(environment.get("CNI_ARGS", "")),
        annotations=_annotations(configuration),
        closed=_fails_closed(configuration),
        valid=_valid(configuration) if command is Command.GC else frozenset(),
    )


def version_of(request: Request) -> str:
    """The version to answer an error in, from a request that may make no sense."""
    try:
        found = _decoded(request.configuration).get("cniVersion")
    except CniError:
        return _SHOWN_WITHOUT_ONE
    return found if isinstance(found, str) else _SHOWN_WITHOUT_ONE


def _fails_closed(configuration: Mapping[str, object]) -> bool:
    """Whether no pod shall start without what it asks for; raises :class:`CniError`."""
    policy = configuration.get("failurePolicy", "open")
    if policy not in ("open", "closed"):
        _invalid("failurePolicy is neither open nor closed", f"it is {str(policy)[:40]!r}")
    return policy == "closed"


def _invalid(message: str, details: str = "") -> NoReturn:
    raise CniError(Code.INVALID_CONFIGURATION, message, details)


def _require_variables(command: Command, environment: Mapping[str, str]) -> None:
    absent = [name for name in _NEEDS.get(command, ()) if not environment.get(name)]
    if absent:
        raise CniError(Code.INVALID_ENVIRONMENT, f"required variables are missing: {', '.join(absent)}")
    # They become the name of a directory.
    for name, shape in (("CNI_CONTAINERID", _CONTAINER_ID), ("CNI_IFNAME", _IFNAME)):
        value = environment.get(name, "")
        if name in _NEEDS.get(command, ()) and (
            not shape.match(value) or len(value) > 200 or value in (".", "..")
        ):
            raise CniError(Code.INVALID_ENVIRONMENT, f"{name} is not a valid one", f"it is {value[:40]!r}")
    if "CNI_NETNS" in environment and encodable(environment["CNI_NETNS"]) != environment["CNI_NETNS"]:
        raise CniError(Code.INVALID_ENVIRONMENT, "CNI_NETNS is not UTF-8")


def _decoded(data: bytes) -> dict[str, object]:
    try:
        # As text: of bytes Python would take UTF-16, and surrogates in UTF-8.
        found = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (
        ValueError,
        RecursionError,
    ) as error:  # UnicodeDecodeError and numbers without end are ValueErrors
        raise CniError(Code.UNDECODABLE, "the network configuration is not JSON", str(error)[:200]) from error
    if not isinstance(found, dict):
        raise CniError(Code.UNDECODABLE, "the network configuration is not a JSON object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _version(command: Command, configuration: Mapping[str, object]) -> str:
    version = configuration.get("cniVersion")
    if not isinstance(version, str) or version not in VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            "the configuration's cniVersion is not supported",
            f"it is {str(version)[:40]!r}, supported are {', '.join(VERSIONS)}",
        )
    since = _SINCE.get(command, VERSIONS[0])
    if VERSIONS.index(version) < VERSIONS.index(since):
        raise CniError(
            Code.INCOMPATIBLE_VERSION, f"{command} is there since cniVersion {since}", f"this is {version}"
        )
    return version


def _require_result(configuration: Mapping[str, object]) -> None:
    result = configuration.get("prevResult")
    if result is None:
        _invalid("prevResult is missing", "this plugin is chained after the one that makes the network")
    if not isinstance(result, dict):
        _invalid("prevResult is not a result of a CNI plugin", "it is not an object")
    for name in ("interfaces", "ips", "routes"):
        part = result.get(name)
        if part is not None and not (
            isinstance(part, list) and all(isinstance(element, dict) for element in part)
        ):
            _invalid("prevResult is not a result of a CNI plugin", f"its {name} are not a list of objects")


def _text(configuration: Mapping[str, object], name: str) -> str:
    value = configuration.get(name, "")
    return encodable(value) if isinstance(value, str) else ""


def _args(text: str) -> dict[str, str]:
    """CNI_ARGS, ``NAME=VALUE;...``; what is not of that shape is none of ours and left out."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name: encodable(value) for name, equals, value in pairs if equals}


def _annotations(configuration: Mapping[str, object]) -> Mapping[str, object]:
    """None where the runtime passes none: it knows no such capability, or the pod has none."""
    runtime = configuration.get("runtimeConfig")
    found = runtime.get(ANNOTATIONS) if isinstance(runtime, dict) else None
    return found if isinstance(found, dict) else {}


def _valid(configuration: Mapping[str, object]) -> frozenset[tuple[str, str]]:
    """The attachments that a GC keeps. Without the list nothing may be taken away; null is libcni's empty list."""
    listed = configuration.get(VALID_ATTACHMENTS, ...)
    if listed is None:
        return frozenset()
    if not isinstance(listed, list):
        _invalid(f"{VALID_ATTACHMENTS} is missing or no list", "without it nothing is known to be stale")
    found: set[tuple[str, str]] = set()
    for one in listed:
        container_id, ifname = (
            (one.get("containerID"), one.get("ifname")) if isinstance(one, dict) else (None, None)
        )
        if not (isinstance(container_id, str) and isinstance(ifname, str)):
            _invalid(f"{VALID_ATTACHMENTS} has an element without containerID and ifname")
        found.add((container_id, ifname))
    return frozenset(found)
