"""The systemd unit that applies a request at each boot: what may stand in it, and its text."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from ackward.errors import Refused
from ackward.kernel.namespaces import NAMED
from ackward.model.plan import NamespaceIdentity, Persistent, Plan

#: systemd ignores sections whose names begin with X- (systemd.unit(5)): ours says what is ours.
_OURS = "X-Ackward"
_NAME = re.compile(r"ackward-(?P<id>[a-z0-9]+(-[a-z0-9]+)*)\.service")

_UNIT = """\
# Written by `ackward {words} --persist`; `ackward undo {id}` removes it.
[{ours}]
Id={id}
Request={request}

[Unit]
Description=ackward: {words}
Documentation=man:tcp(7)
# Routes and addresses are there when the network is.
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={start}
ExecStop={stop}
# It changes the kernel's network and its own receipts, and nothing else.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_BPF CAP_PERFMON CAP_SYS_RESOURCE CAP_DAC_OVERRIDE
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=read-only
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=net
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def file_name(receipt_id: str) -> str:
    """The unit's name."""
    return f"ackward-{receipt_id}.service"


def request_of(plan: Plan, first: int | None) -> tuple[str, ...]:
    """The words after ``ackward fix`` that ask for the plan again after a boot.

    ``first`` is the inode of the first process's namespace, where the unit will run, if it is known. Raises
    :class:`Refused` for what does not outlive the boot.
    """
    if not plan.request:
        raise _not_kept(
            "the plan does not say which command asks for it", "plan it with `ackward.plan_...()`"
        )
    if "--pid" in plan.request:
        raise _not_kept("a process has another PID after a boot", "name its cgroup, port or destination")
    return (*plan.request, *_namespace(plan.namespace, first))


def _namespace(namespace: NamespaceIdentity, first: int | None) -> tuple[str, ...]:
    if namespace.inode == first or (first is None and namespace.name == "self"):
        return ()
    if "/" not in namespace.name and (NAMED / namespace.name).exists():  # a path may lead elsewhere then
        return ("--netns", namespace.name)
    raise _not_kept(
        f"the namespace {namespace.name} has no name that it would have again after a boot",
        "let whatever makes the namespace run `ackward fix` in it",
    )


def _not_kept(what: str, instead: str) -> Refused:
    return Refused(f"--persist: {what}", consequence="nothing was changed", next_step=instead)


def start_command(executable: str, request: Sequence[str]) -> list[str]:
    """The command line that the unit runs: the request itself."""
    return [executable, "fix", *request, "--persist"]


def render(receipt_id: str, request: Sequence[str], executable: str) -> str:
    """The text of the unit."""
    return _UNIT.format(
        ours=_OURS,
        id=receipt_id,
        request=json.dumps(list(request)).replace("%", "%%"),
        words=_escaped(_line("fix " + shlex.join(request))),
        start=_command(start_command(executable, request)),
        stop=_command([executable, "undo", receipt_id, "--until-boot"]),
    )


def parse(path: Path, text: str) -> Persistent | None:
    """The request of a unit of ours; none if it is somebody else's, whatever its name."""
    named = _NAME.fullmatch(path.name)
    reader = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#", ";"))
    reader.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    try:
        reader.read_string(text)
        ours = dict(reader[_OURS])
        found = Persistent(
            id=ours["Id"], request=json.loads(ours["Request"].replace("%%", "%")), unit=str(path)
        )
    except (configparser.Error, KeyError, ValueError, ValidationError):
        return None
    return found if named and named["id"] == found.id else None


def _command(argv: Sequence[str]) -> str:
    """A command line as systemd.service(5) reads it: ``%`` and ``$`` are its own, quotes as in C."""
    return " ".join(_word(word) for word in argv)


def _word(word: str) -> str:
    escaped = _escaped(word).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$\[\]-]+", escaped, re.ASCII):
        return escaped
    quoted = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\x{ord(c):02x}" if c < " " else c for c in quoted) + '"'


def _line(text: str) -> str:
    """Words for a reader: what would end the line, or continue it, is not there."""
    return "".join(c if c.isprintable() else "?" for c in text).rstrip("\\")


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
