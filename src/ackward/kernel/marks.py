"""Which bits of the packet mark this host uses: policy rules, nftables, iptables, and network plugins by their devices.

The mark is one 32-bit number that all software of a host shares. A bit is claimed if a rule tests it, or sets it: a
packet that carried it for another reason would then be ours, or ours somebody else's. A rule that compares or sets the
mark as a whole claims the bits of its number; all bits if that number is 0, or cannot be told from the rule. Not seen:
marks that BPF programs, tc filters and IPsec policies use (those of network plugins are known by their devices).
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel import mark_rules
from ackward.kernel.namespaces import call_inside
from ackward.kernel.netlink import Netlink

ALL = 0xFFFFFFFF
#: From the registry github.com/fwmark/registry: the upper byte is Cilium's and Calico's only, then the three bits that
#: no software there has but Cilium.
CANDIDATES = tuple(1 << place for place in (29, 28, 27, 26, 25, 24, 30, 31, 6, 5, 4))
#: Devices of plugins whose BPF programs use marks that no rule shows, by their first letters.
PLUGINS = {"cilium_": ALL & ~0xE000, "cali": 0xFFFF0000, "bpfin.cali": 0xFFFF0000, "lxc": ALL & ~0xE000}

#: Seconds to list the rules of a busy node.
_WITHIN = 10

# iptables-extensions(8): matches mark and connmark, targets MARK and CONNMARK.
_IPTABLES = re.compile(
    r"--(?:mark|set-xmark|set-mark|or-mark|and-mark|xor-mark|nfmask|ctmask|mask)\s+"
    r"(?P<value>0x[0-9a-fA-F]+|\d+)(?:/(?P<mask>0x[0-9a-fA-F]+|\d+))?"
)


def claim(value: int, mask: int = ALL) -> int:
    """The bits that a comparison or a setting of ``value/mask`` claims."""
    if mask & ALL == ALL:
        return value & ALL or ALL
    return (value | mask) & ALL


def of_iptables(text: str) -> int:
    """The bits that rules in the format of iptables-save(8) claim."""
    bits = 0
    for found in _IPTABLES.finditer(text):
        bits |= claim(int(found["value"], 0), int(found["mask"] or str(ALL), 0))
    return bits


def of_nftables(document: str) -> int:
    """The bits that the rules in the output of ``nft -j list ruleset`` claim."""
    bits = 0
    for entry in json.loads(document or "{}").get("nftables", []):
        for statement in entry.get("rule", {}).get("expr", []):
            for kind, body in statement.items():
                if kind == "xt":
                    # A rule of iptables-nft, whose numbers nft does not show.
                    bits |= ALL if "mark" in str(body.get("name", "")).lower() else 0
                elif _mentions_mark(body):
                    bits |= _of_statement(kind, body)
    return bits


def _mentions_mark(node: object) -> bool:
    if isinstance(node, dict):
        if any(isinstance(node.get(of), dict) and node[of].get("key") == "mark" for of in ("meta", "ct")):
            return True
        return any(_mentions_mark(part) for part in node.values())
    return isinstance(node, list) and any(_mentions_mark(part) for part in node)


def _of_statement(kind: str, body: object) -> int:
    """``match`` has op, left and right; ``mangle`` has key and value (libnftables-json(5))."""
    if not isinstance(body, dict):
        return ALL
    if kind == "match":
        masks = [number for operator, number in _operands(body.get("left")) if operator == "&"]
        if masks:
            bits = 0
            for number in masks:
                bits |= number
            return bits
        numbers = _numbers(body.get("right"))
        return ALL if numbers is None else _union(claim(number) for number in numbers)
    if kind == "mangle":
        value = body.get("value")
        if isinstance(value, int):
            return value & ALL  # 0 clears: it claims nothing
        # `mark and 0xffffbfff or 0x4000` keeps the bits of its `and` and sets those of its `or`.
        operands = list(_operands(value))
        if operands:
            return _union(~number & ALL if operator == "&" else number for operator, number in operands)
        # A copy of ct mark brings what was put there by a rule that is seen as well.
        return 0 if _mentions_mark(value) else ALL
    return ALL


def _operands(node: object) -> Iterator[tuple[str, int]]:
    if isinstance(node, dict):
        for operator, parts in node.items():
            if operator in ("&", "|", "^", "<<", ">>") and isinstance(parts, list):
                for part in parts:
                    if isinstance(part, int):
                        yield operator, part
                    else:
                        yield from _operands(part)


def _numbers(node: object) -> list[int] | None:
    """The numbers that the right side of a comparison names; none if they cannot be told."""
    if isinstance(node, int):
        return [node]
    if isinstance(node, dict) and isinstance(node.get("set"), list):
        parts = [_numbers(part) for part in node["set"]]
        return (
            None
            if any(part is None for part in parts)
            else [number for part in parts for number in part or ()]
        )
    if isinstance(node, dict) and isinstance(node.get("range"), list) and len(node["range"]) == 2:
        last = node["range"][1]
        return [(1 << last.bit_length()) - 1] if isinstance(last, int) else None
    return None


def _union(parts: Iterator[int]) -> int:
    bits = 0
    for part in parts:
        bits |= part
    return bits


def claimed(netlink: Netlink, ours: int) -> int:
    """The bits in use in a namespace, without those of rules whose protocol number is ``ours``.

    Raises :class:`Unavailable` when there are firewall rules and no tool to read them.
    """
    bits = 0
    for family in (4, 6):
        for rule in mark_rules.dump(netlink, family):
            if rule.protocol != ours:
                bits |= claim(rule.mark, rule.mask)
    names = [name for _, name in call_inside(netlink.namespace, socket.if_nameindex)]
    for prefix, mask in PLUGINS.items():
        if any(name.startswith(prefix) for name in names):
            bits |= mask
    return bits | call_inside(netlink.namespace, _of_firewall)


def _of_firewall() -> int:
    bits = 0
    if _has_nftables():
        nft = of_nftables(_listed("nft", "-j", "list", "ruleset"))
        if nft == ALL and shutil.which("iptables-nft-save"):
            nft = of_nftables(_without_xtables(_listed("nft", "-j", "list", "ruleset")))
            nft |= of_iptables(_listed("iptables-nft-save")) | of_iptables(_listed("ip6tables-nft-save"))
        bits |= nft
    for family in ("ip", "ip6"):
        if _has_legacy_tables(family):
            legacy = f"{family}tables-legacy-save"
            bits |= of_iptables(_listed(legacy if shutil.which(legacy) else f"{family}tables-save"))
    return bits


def _without_xtables(document: str) -> str:
    found = json.loads(document)
    for entry in found.get("nftables", []):
        if "rule" in entry:
            entry["rule"]["expr"] = [part for part in entry["rule"].get("expr", []) if "xt" not in part]
    return json.dumps(found)


def _has_legacy_tables(family: str) -> bool:
    try:
        return bool(Path(f"/proc/thread-self/net/{family}_tables_names").read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # only root may know: then the tool is asked


def _has_nftables() -> bool:
    """Asked from the kernel, so that a machine without rules needs no tool.

    NFT_MSG_GETTABLE of include/uapi/linux/netfilter/nf_tables.h.
    """
    netfilter, get_table, request_dump, error, done = 12, 10 << 8 | 1, 0x301, 2, 3
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netfilter) as asking:
            asking.send(struct.pack("=IHHII4x", 20, get_table, request_dump, 1, 0))
            answer = asking.recv(1 << 16)
    except OSError:
        return False  # no nfnetlink in this kernel
    kind = struct.unpack_from("=IH", answer)[1]
    return kind not in (error, done)


def _listed(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_WITHIN)
        complaint = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _cannot_tell(command[0], str(error)) from error
    if done.returncode:
        raise _cannot_tell(command[0], complaint)
    return done.stdout


def _cannot_tell(tool: str, why: str) -> Unavailable:
    return Unavailable(
        f"there are firewall rules, and `{tool}` cannot list them ({why})",
        consequence="it cannot be told which bits of the packet mark are in use, so none is taken",
        next_step=f"install {tool}",
    )


def free(claimed_bits: int) -> int | None:
    """A bit that nobody claims; none if all candidates are taken."""
    return next((bit for bit in CANDIDATES if not bit & claimed_bits), None)
