"""Feeds nonsense to the CNI plugin's stub and to the agent behind it: neither may crash, hang, or say half a thing.

    python tests/fuzz/fuzz_cni.py [SECONDS]         needs root; 60 seconds unless told otherwise

Requests begin as those of a runtime; variables, the configuration's members and its bytes are then changed at random. After
each the stub has printed one JSON object or nothing, an ADD has given back prevResult as it stood or an error of the
specification, and a DEL has succeeded; in the end the pod's routing is what it was and the agent remembers nothing.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.cluster.cni_runtime import Agent, wired_pod
from tests.kernel.quickack_hosts import routing
from tests.unit.stub_runs import ANNOTATIONS, RESULT, run

from ackward.node.cni import VALID_ATTACHMENTS, VERSIONS

COMMANDS = ["ADD", "ADD", "ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION", "", "add", "NOPE"]
VALUES: list[Any] = [
    None, True, 0, -1, 1e308, "", "x", "true", "closed", "open", "/", "/run/none.sock", "10.0.0.0/8", "fd00::/8", "1.0.0",
    [], [{}], {}, {"ips": [{}]}, {"ips": 3}, "\u0000", "\ud83d\ude00", "../../x", "a" * 5000,
]  # fmt: skip
KEYS = [
    "cniVersion",
    "name",
    "prevResult",
    "failurePolicy",
    "runtimeConfig",
    VALID_ATTACHMENTS,
    "ipam",
    "\u0000",
]
ASKED = [
    "enable-quickack",
    "ackward.io/quickack",
    "ackward.io/initcwnd",
    "ackward.io/bypass",
    "ackward.io/x",
    "other",
]


def like_an_annotation(choice: random.Random) -> str:
    """Digits, also with zeros before them, and what joins them: nearly numbers, ports and networks."""
    return "".join(
        choice.choice(
            ["0" * choice.randrange(1, 12), str(choice.randrange(1 << choice.randrange(1, 50))), *"-,./: %"]
        )
        for _ in range(choice.randrange(1, 6))
    )


def configuration(choice: random.Random, socket: Path) -> bytes:
    """A network configuration, from right to hopeless."""
    annotations = {
        choice.choice(ASKED): choice.choice(
            ["yes", "40", like_an_annotation(choice), like_an_annotation(choice), *VALUES]
        )
        for _ in range(choice.randrange(4))
    }
    members: dict[str, Any] = {
        "cniVersion": choice.choice(VERSIONS),
        "name": "podnet",
        "prevResult": RESULT,
        "runtimeConfig": {ANNOTATIONS: annotations},
    }
    for _ in range(choice.choice([0, 0, 0, 1, 2])):
        members[choice.choice(KEYS)] = choice.choice(VALUES)
    # The socket comes last and whole: whatever is before it, what the stub leaves is left in our directory.
    data = bytearray(
        json.dumps(members, ensure_ascii=choice.random() < 0.5).encode("utf-8", "surrogatepass")
    )[:-1]
    for _ in range(choice.choice([0, 0, 0, 1, 5])):
        where = choice.randrange(len(data))
        match choice.randrange(4):
            case 0:
                data[where] = choice.randrange(256)
            case 1:
                del data[where : where + choice.randrange(1, 20)]
            case 2:
                data[where:where] = choice.choice(
                    [b"{", b"}", b"[", b'"', b"\\", b",", b"\x00", b"1e9", b'"prevResult":']
                )
            case 3:
                data += data[where:]
        data = data or bytearray(b"{")
    return bytes(data) + b', "agentSocket": %s}' % json.dumps(str(socket)).encode()


def check(command: str, stdin: bytes, done: Any) -> None:
    """What must hold of every run."""
    assert done.code in (0, 1), done
    if command == "DEL":
        assert (done.code, done.out) == (0, b""), done
    elif done.code == 1:
        assert done.error["code"] in (1, 4, 5, 6, 7, 11, 50, 100, 101), done
    elif command == "ADD":
        assert done.out, done
        assert done.out in stdin, done
        json.loads(done.out)
    elif command == "VERSION":
        assert json.loads(done.out)["supportedVersions"] == list(VERSIONS), done
    else:
        assert done.out == b"", done


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = random.SystemRandom().randrange(1 << 32)
    choice = random.Random(seed)
    print(f"seed {seed}", flush=True)
    count, until = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="ackward-fuzz-") as directory, wired_pod() as here:
        agent = Agent(Path(directory) / "node")
        before = routing(here)
        with agent.running():
            while time.monotonic() < until:
                command, stdin = choice.choice(COMMANDS), configuration(choice, agent.socket)
                variables = {
                    "container": choice.choice(["a", "b", "c"]),
                    "netns": str(here.path),
                    "ifname": "eth0",
                }
                if choice.random() < 0.1:
                    variables[choice.choice(["container", "netns", "ifname"])] = choice.choice(
                        ["", "../x", "/", "é", "x" * 300]
                    )
                done = run(command, stdin, **variables)
                try:
                    check(command, stdin, done)
                    assert not agent.troubles, agent.troubles
                except AssertionError:
                    print(command, stdin, variables, done, sep="\n", flush=True)
                    raise
                count += 1
            for container in ("a", "b", "c"):
                assert run("DEL", b"{}", container=container, netns="").code == 0
                agent.pods.forget(container, "eth0")
        left = [one for one in agent.pods.all() if agent.pods.forget(one.container_id, one.ifname).problems]
        assert not left, left
        assert routing(here) == before
    print(f"{count} requests, {len(agent.served)} of them reached the agent", flush=True)


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("needs root")
    main()
