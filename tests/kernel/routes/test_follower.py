"""The process that lets a table follow main: it survives who started it, costs nothing, and does not outlive its use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kernel.quickack_hosts import Conversation, ip, router, routing, wire
from tests.kernel.routes.port_remedy import PORT, QUICKACK, applied, follower_of, in_force, mirrored
from tests.polling import eventually

from ackward.errors import Unavailable
from ackward.kernel import background
from ackward.kernel.background import Process
from ackward.kernel.namespaces import Namespace, command_inside, resolve, temporary
from ackward.model.plan import State
from ackward.remedies.receipts import Receipts


def test_it_survives_its_starter_and_has_nothing_of_it(host: Namespace, store: Receipts) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\n"
        "from ackward import remedies\nfrom ackward.kernel.namespaces import resolve\n"
        "from ackward.model.scopes import PortScope\nfrom ackward.remedies.receipts import Receipts\n"
        "handle = os.open('/etc/hostname', os.O_RDONLY); os.set_inheritable(handle, True)\n"
        "quickack = remedies.load('quickack')\n"
        "plan = quickack.plan(resolve(sys.argv[1]), PortScope(port=7300))\n"
        "quickack.apply(plan, Receipts(Path(sys.argv[2])))\n"
    )
    command = [sys.executable, "-c", program, host.name, str(store.directory)]
    subprocess.run(command, check=True, timeout=60, start_new_session=True, capture_output=True)
    (receipt,) = store.load().receipts
    process = Path(f"/proc/{follower_of(receipt).pid}")
    assert in_force(receipt, store)
    held = sorted(str(entry.readlink()) for entry in (process / "fd").iterdir())
    assert [name.partition(":")[0] for name in held] == ["/dev/null"] * 3 + ["anon_inode"] * 2 + [
        "socket"
    ] * 2
    assert (process / "cwd").readlink() == Path("/")
    assert os.getsid(int(process.name)) == int(process.name)
    environment = (process / "environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environment if entry} <= {
        b"PYTHONPATH",
        b"PATH",
        b"LC_CTYPE",
    }


def test_it_costs_nothing_while_main_rests(host: Namespace, store: Receipts) -> None:
    receipt = applied(host, store)
    pid = follower_of(receipt).pid
    assert eventually(lambda: asleep(pid))
    with temporary("client") as client:
        wire(client, host, "w9", 9)
        assert eventually(lambda: mirrored(host, receipt) and asleep(pid))
        with Conversation(client, host, "198.19.9.2", PORT + 1) as conversation:
            before = cpu_and_wakeups(pid)
            conversation.rounds(50)  # two seconds
            after = cpu_and_wakeups(pid)
    assert after[0] == before[0]
    # It looks up when a name of a namespace is deleted anywhere on the machine; a clock would show more.
    assert after[1] - before[1] < 10


def test_it_imports_the_standard_library_only() -> None:
    program = (
        "import sys, ackward.remedies.detour.mirror\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    third = set(eval(done.stdout)) - {"ackward", "__main__"}
    assert not {name for name in third if not name.startswith("_")}, third


def test_it_ends_when_its_receipt_is_gone(host: Namespace, store: Receipts) -> None:
    receipt = applied(host, store)
    store.path(receipt.id).unlink()
    assert eventually(lambda: not background.lives(follower_of(receipt)))


def test_it_ends_when_its_rules_are_gone(host: Namespace, store: Receipts) -> None:
    receipt = applied(host, store)
    for family in ("-4", "-6"):
        for side in ("sport", "dport"):
            assert background.lives(follower_of(receipt))
            ip(host, family, "rule", "del", "ipproto", "tcp", side, str(PORT))
    assert eventually(lambda: not background.lives(follower_of(receipt)))
    status = QUICKACK.status(receipt, store)
    assert status.state is State.PARTLY
    assert any("does not follow main" in look.words for look in status.details)
    assert QUICKACK.undo(receipt, store).complete


def test_it_does_not_keep_a_namespace_alive_whose_name_was_deleted(store: Receipts) -> None:
    with router() as host:
        receipt = applied(host, store)
        assert background.lives(follower_of(receipt))
    assert eventually(lambda: not background.lives(follower_of(receipt)))
    assert QUICKACK.status(receipt, store).state is State.GONE
    outcome = QUICKACK.undo(receipt, store)
    assert outcome.complete
    assert "is gone" in outcome.details[0].words
    assert store.load().receipts == ()


def test_it_ends_with_the_last_process_of_a_nameless_namespace(store: Receipts) -> None:
    """As in a container. Two followers must not keep each other's namespace alive."""
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as first:
        host = Path("/proc/self/ns/net").stat().st_ino
        theirs = Path(f"/proc/{first.pid}/ns/net")
        assert eventually(lambda: theirs.stat().st_ino != host)
        namespace = resolve(str(first.pid))
        receipts = [applied(namespace, store, port) for port in (PORT, PORT + 1)]
        enter = command_inside(namespace, ["sleep", "600"])
        with subprocess.Popen(enter) as second:
            assert eventually(lambda: in_namespace(second.pid, namespace))
            first.kill()
            first.wait()
            assert all(in_force(receipt, store) for receipt in receipts)
            second.kill()
    assert eventually(lambda: not any(background.lives(follower_of(receipt)) for receipt in receipts))
    assert all(QUICKACK.status(receipt, store).state is State.GONE for receipt in receipts)


def test_killed_it_is_missed_and_undo_is_complete(host: Namespace, store: Receipts) -> None:
    before = routing(host)
    receipt = applied(host, store)
    os.kill(follower_of(receipt).pid, signal.SIGKILL)
    assert eventually(lambda: not background.lives(follower_of(receipt)))
    status = QUICKACK.status(receipt, store)
    assert status.state is State.PARTLY
    assert status.details[-1].words.endswith("is not running: the table does not follow main")
    assert QUICKACK.undo(receipt, store).complete
    assert routing(host) == before


def test_a_pid_given_to_another_process_is_not_killed() -> None:
    with subprocess.Popen(["sleep", "600"]) as innocent:
        assert not background.stop(Process(innocent.pid, 1))
        assert innocent.poll() is None
        innocent.kill()


def test_one_that_does_not_start_leaves_nothing(
    host: Namespace, store: Receipts, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = routing(host)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match="did not start"):
        applied(host, store)
    assert routing(host) == before
    assert store.load().receipts == ()


def in_namespace(pid: int, namespace: Namespace) -> bool:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino == namespace.inode


def asleep(pid: int) -> bool:
    return "State:\tS" in Path(f"/proc/{pid}/status").read_text()


def cpu_and_wakeups(pid: int) -> tuple[int, int]:
    """CPU time in clock ticks, and how often the process went to sleep."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    switches = next(line.split()[1] for line in status.splitlines() if line.startswith("voluntary"))
    return int(fields[11]) + int(fields[12]), int(switches)
