"""Recordings of the lab on a real kernel, kept in tests/data/recordings, for tests that need no root.

`python tests/recordings.py` makes them again (needs root).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np

from ackward.model.segments import SEGMENT, Endpoint, FastExchanges, Owner, Recording, SocketFacts

DIRECTORY = Path(__file__).parent / "data" / "recordings"
VIEWS = ("client", "server", "both")
#: name of the recording -> (scenario, settings)
RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "standoff": ("standoff", ("rounds=12",)),
    "standoff-ipv6": ("standoff", ("rounds=8", "family=6", "pings=3", "pongs=2")),
    "healthy": ("healthy", ("rounds=40",)),
    "slow-server": ("slow-server", ("rounds=8",)),
    "late-writer": ("late-writer", ("rounds=30",)),
    "large": ("healthy", ("rounds=6", "sizes=200000", "pings=1", "answer=300000")),
}


def names() -> list[str]:
    """Every recording there is, as RECIPE-VIEW."""
    return sorted(path.stem for path in DIRECTORY.glob("*.npz"))


def load(name: str) -> Recording:
    """One recording."""
    with np.load(DIRECTORY / f"{name}.npz", allow_pickle=False) as stored:
        kept = stored["segments"]
        segments = np.zeros(len(kept), SEGMENT)
        for column in kept.dtype.names:
            segments[column] = kept[column]
        facts = json.loads(stored["facts"].tobytes())
    sockets = tuple(_socket(raw) for raw in facts.pop("sockets"))
    facts["notes"] = tuple(facts["notes"])
    return Recording(segments=segments, sockets=sockets, **facts)


def _socket(raw: dict[str, Any]) -> SocketFacts:
    ends = {
        name: Endpoint(ip_address(raw.pop(name)["address"]), raw.pop(f"{name}_port"))
        for name in ("local", "remote")
    }
    return SocketFacts(**ends, owner=Owner(**raw.pop("owner")), fast=FastExchanges(**raw.pop("fast")), **raw)


def save(recording: Recording, name: str) -> None:
    """Keep a recording."""
    facts = {key: value for key, value in vars(recording).items() if key not in ("segments", "sockets")}
    facts["sockets"] = []
    for socket in recording.sockets:
        raw = asdict(socket)
        for end in ("local", "remote"):
            raw[f"{end}_port"] = raw[end]["port"]
            raw[end] = {"address": str(raw[end]["address"])}
        facts["sockets"].append(raw)
    text = json.dumps(facts).encode()
    np.savez_compressed(
        DIRECTORY / f"{name}.npz", segments=recording.segments, facts=np.frombuffer(text, np.uint8)
    )


def main() -> None:
    """Record everything again."""
    from ackward.capture.live import LiveCapture, Scope
    from ackward.lab import run as lab
    from ackward.lab.scenarios import named
    from ackward.lab.topology import two_hosts

    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, (scenario, settings) in RECIPES.items():
        shape = named(scenario).with_settings(settings).shape
        for view in VIEWS:
            with two_hosts() as hosts, lab.server(hosts, shape):
                watched = {
                    "client": [hosts.client],
                    "server": [hosts.server],
                    "both": [hosts.client, hosts.server],
                }[view]
                scope = Scope(port=shape.port, netns=watched[0] if len(watched) == 1 else None, slow_ns=0)
                with LiveCapture(scope, watched) as capture:
                    lab.load("recording", hosts, shape, capture, lambda _: None)
                    save(capture.finish(), f"{name}-{view}")
            sys.stdout.write(f"{name}-{view}\n")


if __name__ == "__main__":
    main()
