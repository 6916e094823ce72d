"""The contract of every remedy, on the real kernel: refuse without a need, apply twice is once, undo restores, kill -9
anywhere leaves nothing behind, the stall goes away and other traffic is unharmed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from tests.kernel import steering_hosts
from tests.kernel.bpf_file_system import bpf_file_system
from tests.kernel.quickack_hosts import SLOW_MS, Conversation, eventually, ip, router, routing, wire

from ackward import remedies
from ackward.cli import main as cli
from ackward.cli import undo as undo_command
from ackward.errors import PartlyChanged, Refused, Unavailable, UnknownName
from ackward.kernel import background
from ackward.kernel.background import start_time_of
from ackward.kernel.bpffs import OURS
from ackward.kernel.namespaces import Namespace, resolve, temporary
from ackward.model.bypass import Hazard
from ackward.model.gateways import Diverted, GatewayScope, Queued, Widened
from ackward.model.pins import ProcessPins
from ackward.model.plan import Ending, Lasting, Plan, Receipt, State
from ackward.model.scopes import (
    BypassScope,
    CapScope,
    PortScope,
    RouteScope,
    Scope,
    SocketScope,
    WindowScope,
)
from ackward.remedies import receipts
from ackward.remedies.clearance import undo_all
from ackward.remedies.lasting import lease
from ackward.remedies.quickack import follower
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Remedy, identify

SCOPES: dict[str, list[Scope]] = {
    "quickack": [
        RouteScope(),
        RouteScope(to="198.19.0.0/24"),
        RouteScope(to="203.0.113.0/24"),
        PortScope(port=7300),
        SocketScope(
            ports=(7300, 7310),
            to="127.0.0.0/8",
            cgroup=f"/{steering_hosts.CGROUP.name}",
            pid=os.getpid(),
            start_time=start_time_of(os.getpid()),
        ),
        CapScope(ports=(7300, 7310), cap_us=8000),
    ],
    "nodelay": [
        SocketScope(ports=(7300, 7310), to="127.0.0.0/8", cgroup=f"/{steering_hosts.CGROUP.name}"),
        SocketScope(pid=os.getpid(), start_time=start_time_of(os.getpid())),
    ],
    "pin": [ProcessPins(pid=os.getpid(), start_time=start_time_of(os.getpid()))],
    "initcwnd": [
        WindowScope(segments=30, after_idle=True),
        WindowScope(to="203.0.113.0/24", segments=30),
    ],
    "gateway": [
        GatewayScope(
            pid=os.getpid(),
            start_time=start_time_of(os.getpid()),
            diverted=(Diverted(network="203.0.113.0/24", interface="lo", first_port=80, last_port=90),),
            queued=(Queued(network="2001:db8::/64", first_port=443, last_port=443, queue=7),),
            widened=(Widened(network="203.0.113.0/24", segments=40),),
        )
    ],
    # All hazards accepted: the contract is not about what the self-test finds.
    "bypass": [
        BypassScope(
            ports=(7300, 7310),
            to="127.0.0.0/8",
            cgroup=f"/{steering_hosts.CGROUP.name}",
            accepted=tuple(Hazard),
        )
    ],
}

#: Kinds of change that set a field of somebody else's object: without a receipt nobody can tell who set it.
FOREIGN = {"route-metric", "sysctl"}


@dataclass(frozen=True)
class Case:
    remedy: Remedy
    scope: Scope

    def plan(self, host: Namespace) -> Plan:
        made = self.remedy.plan(host, self.scope)
        assert isinstance(made, Plan), made
        return made

    def apply(self, host: Namespace, store: Receipts) -> Receipt:
        receipt = self.remedy.apply(self.plan(host), store)
        assert receipt is not None
        return receipt


@pytest.fixture(
    params=[(name, scope) for name in remedies.NAMES for scope in SCOPES[name]],
    ids=lambda pair: (
        f"{pair[0]}-{pair[1].words.replace(' ', '-').replace('/', '_').replace(str(os.getpid()), 'N')}"
    ),
)
def case(request: pytest.FixtureRequest) -> Case:
    name, scope = request.param
    return Case(remedies.load(name), scope)


@pytest.fixture(autouse=True, scope="module")
def _places() -> Iterator[None]:
    with bpf_file_system(), steering_hosts.cgroup():
        yield


@pytest.fixture
def host() -> Iterator[Namespace]:
    with router() as made, steering_hosts.connections(made):
        yield made


def pins() -> list[Path]:
    """The directories of all receipts that have pins."""
    return sorted(OURS.iterdir()) if OURS.exists() else []


def state(host: Namespace) -> dict[str, object]:
    """All that a remedy may change in a host: routes, rules, hooks, options of its open connections."""
    netns = identify(host).cookie
    pinned = {
        str(directory): sorted(pin.name for pin in directory.iterdir())
        for directory in pins()
        if directory.name.endswith(f"@{netns}")
    }
    return {**routing(host), "hooks": pinned, "options": steering_hosts.options(host)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Receipts]:
    made = Receipts(tmp_path / "ackward")
    yield made
    for lost in follower.running(made.directory):
        background.stop(lost)


def followers(store: Receipts) -> int:
    return len(list(follower.running(store.directory)))


# One process does the steps and kills itself after step k, or does them all and says how many there were.
STEPPER = """
import os, signal, sys
from pathlib import Path
from pydantic import TypeAdapter
from ackward import remedies
from ackward.kernel.namespaces import resolve
from ackward.model.scopes import Scope
from ackward.remedies.receipts import Receipts
what, name, namespace, scope, directory, last = sys.argv[1:]
remedy, store = remedies.load(name), Receipts(Path(directory))
if what == "apply":
    plan = remedy.plan(resolve(namespace), TypeAdapter(Scope).validate_json(scope))
    steps = remedy.apply_steps(plan, store)
else:
    steps = remedy.undo_steps(store.load().receipts[0], store)
count = 0
for _ in steps:
    count += 1
    if count == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
print(count)
"""


def stepper(what: str, case: Case, host: Namespace, store: Receipts, last: int) -> list[str]:
    scope = TypeAdapter(Scope).dump_json(case.scope).decode()
    return [
        sys.executable,
        "-c",
        STEPPER,
        what,
        case.remedy.name,
        host.name,
        scope,
        str(store.directory),
        str(last),
    ]


def cut(what: str, case: Case, host: Namespace, store: Receipts, last: int) -> int | None:
    """Run and kill after step ``last``; the number of steps when there are fewer."""
    done = subprocess.run(stepper(what, case, host, store, last), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return int(done.stdout)
    assert done.returncode == -9, done.stderr
    return None


def test_apply_then_undo_restores_all(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    receipt = case.apply(host, store)
    assert state(host) != before
    status = case.remedy.status(receipt, store)
    assert status.state is State.IN_FORCE, status
    assert len(status.details) == len(receipt.changes)
    outcome = case.remedy.undo(receipt, store)
    assert outcome.complete
    assert {part.ending for part in outcome.details} == {Ending.UNDONE}
    assert state(host) == before
    assert store.load().receipts == ()
    assert followers(store) == 0


def test_a_lease_takes_all_back_by_itself(case: Case, host: Namespace, store: Receipts) -> None:
    """Durations are the same for all remedies (test_lasting.py); that each can be taken back by another process is not."""
    before = state(host)
    receipt = case.remedy.apply(case.plan(host), store, Lasting(lease_ns=1_000_000_000))
    assert receipt is not None
    assert receipt.lease == receipt.changes[0]
    assert eventually(lambda: state(host) == before and not store.load().receipts)
    assert eventually(lambda: not lease.of_directory(store.directory))


def test_planning_changes_nothing(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    case.plan(host)
    assert state(host) == before
    assert not store.directory.exists()


def test_apply_twice_is_once(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    first = case.apply(host, store)
    content = store.path(first.id).read_bytes()
    fast = state(host)
    assert case.apply(host, store) == first
    assert case.remedy.apply(case.plan(host), store) == first
    assert store.path(first.id).read_bytes() == content
    assert store.load().receipts == (first,)
    assert state(host) == fast
    assert followers(store) <= 1
    case.remedy.undo(first, store)
    assert state(host) == before


def test_applied_at_once_by_several_is_once(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    plans = [case.plan(host) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda plan: case.remedy.apply(plan, store), plans))
    assert len({receipt.id for receipt in made if receipt}) == 1
    (receipt,) = store.load().receipts
    case.remedy.undo(receipt, store)
    assert state(host) == before


def test_undo_twice_is_once(case: Case, host: Namespace, store: Receipts) -> None:
    receipt = case.apply(host, store)
    case.remedy.undo(receipt, store)
    before = state(host)
    with pytest.raises(UnknownName):
        case.remedy.undo(receipt, store)
    assert state(host) == before


def test_killed_after_any_step_of_apply_undo_all_leaves_nothing(
    case: Case, host: Namespace, store: Receipts
) -> None:
    before = state(host)
    # A mark's detour begins as a port's, which is cut at each step in a case of its own.
    last = 4 if type(case.scope) is SocketScope and case.remedy.name == "quickack" else 0
    while True:
        last += 1
        total = cut("apply", case, host, store, last)
        (receipt,) = store.load().receipts
        if total is None and last > 1:
            # Whatever is there must be told, and another apply must not bury it.
            assert case.remedy.status(receipt, store).state is not State.CHANGED
        cleared = undo_all(store, [host])
        assert cleared.complete, cleared
        assert state(host) == before, last
        assert store.load().receipts == ()
        assert followers(store) == 0
        if total is not None:
            break
    assert last == total + 1
    assert total >= 3  # the receipt, at least one change, the end


def test_killed_after_any_step_of_undo_undo_all_leaves_nothing(
    case: Case, host: Namespace, store: Receipts
) -> None:
    before = state(host)
    last = 0
    while True:
        last += 1
        case.apply(host, store)
        total = cut("undo", case, host, store, last)
        cleared = undo_all(store, [host])
        assert cleared.complete, cleared
        assert state(host) == before, last
        assert store.load().receipts == ()
        assert followers(store) == 0
        if total is not None:
            break
    assert total >= 2


def test_killed_at_any_moment_undo_all_leaves_nothing(case: Case, host: Namespace, store: Receipts) -> None:
    """Inside the steps too: at moments of no one's choosing."""
    before = state(host)
    moments = random.Random(7)
    started = time.monotonic()
    assert cut("apply", case, host, store, 0) is not None
    takes = time.monotonic() - started
    undo_all(store, [host])
    for _ in range(6):
        command = stepper("apply", case, host, store, 0)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(moments.uniform(0.5, 1.0) * takes)
            except subprocess.TimeoutExpired:
                process.kill()
        # A follower that was just being started ends by itself, or is found by its command line.
        assert undo_all(store, [host]).complete
        assert eventually(lambda: followers(store) == 0)
        undo_all(store, [host])
        assert state(host) == before


def test_an_interrupted_apply_is_not_applied_over(case: Case, host: Namespace, store: Receipts) -> None:
    assert cut("apply", case, host, store, 2) is None
    (receipt,) = store.load().receipts
    if case.remedy.status(receipt, store).state is State.IN_FORCE:
        assert case.apply(host, store) == receipt  # its one change was made: nothing is missing
    else:
        with pytest.raises(Refused, match="interrupted") as caught:
            case.apply(host, store)
        assert f"ackward undo {receipt.id}" in caught.value.next_step
    assert case.remedy.undo(receipt, store).complete


def test_a_failure_on_the_way_takes_all_back(case: Case, host: Namespace, store: Receipts) -> None:
    """A disk that fills up after the receipt was written: the state cannot be noted, so nothing stays."""
    before = state(host)
    store.directory.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(store.directory)], check=True)
    try:
        steps = case.remedy.apply_steps(case.plan(host), store)
        next(steps)
        assert len(store.load().receipts) == 1
        fill(store.directory)
        with pytest.raises(Unavailable, match="No space left"):
            list(steps)
        assert state(host) == before
        assert store.load().receipts == ()
        assert followers(store) == 0
    finally:
        subprocess.run(["umount", str(store.directory)], check=True)


def fill(directory: Path) -> None:
    """Leave not a byte."""
    filler = directory / "filler"
    free = os.statvfs(directory)
    filler.write_bytes(b"x" * free.f_bavail * free.f_bsize)
    assert os.statvfs(directory).f_bavail == 0


def test_without_room_for_a_receipt_nothing_is_changed(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    store.directory.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(store.directory)], check=True)
    try:
        fill(store.directory)
        with pytest.raises(Unavailable, match="no receipt can be written"):
            case.apply(host, store)
        assert state(host) == before
    finally:
        subprocess.run(["umount", str(store.directory)], check=True)


def test_steps_that_are_abandoned_are_taken_back(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    steps = case.remedy.apply_steps(case.plan(host), store)
    while state(host) == before:
        next(steps)
    steps.close()
    assert state(host) == before
    assert store.load().receipts == ()


def test_without_the_capability_nothing_is_changed(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    # Root without the capability: no permission on files stands in the way, only the kernel's word on routes.
    drop = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run(
        [*drop, *stepper("apply", case, host, store, 0)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "PrivilegeMissing: changing routes and sockets needs CAP_NET_ADMIN" in done.stderr
    assert state(host) == before
    assert store.load().receipts == ()


def test_the_same_in_another_namespace_is_another_receipt(
    case: Case, host: Namespace, store: Receipts
) -> None:
    with router() as other:
        first, second = case.apply(host, store), case.apply(other, store)
        assert first.id != second.id
        assert identify(host).cookie != identify(other).cookie
        fast = state(other)
        case.remedy.undo(first, store)
        assert state(other) == fast
        assert case.remedy.status(second, store).state is State.IN_FORCE
        case.remedy.undo(second, store)


def test_a_receipt_of_a_namespace_that_is_gone_undoes_to_nothing(case: Case, store: Receipts) -> None:
    with router() as host:
        receipt = case.apply(host, store)
    assert eventually(lambda: case.remedy.status(receipt, store).state is State.GONE)
    assert case.remedy.undo(receipt, store).complete
    assert store.load().receipts == ()
    assert receipt.id not in [directory.name.partition("@")[0] for directory in pins()]


def test_a_receipt_of_an_earlier_boot_undoes_to_nothing(case: Case, host: Namespace, store: Receipts) -> None:
    receipt = case.apply(host, store)
    fast = state(host)
    older = receipt.model_copy(update={"boot_id": "earlier"})
    with store.lock():
        store.write(older)
    outcome = case.remedy.undo(older, store)
    assert outcome.complete
    assert "booted" in outcome.details[0].words
    assert state(host) == fast
    with store.lock():
        store.write(receipt)
    assert case.remedy.undo(receipt, store).complete


class TestDamage:
    """Receipts that cannot be read, and receipts that are lost."""

    def test_a_damaged_receipt_stops_no_other_undo(
        self, case: Case, host: Namespace, store: Receipts
    ) -> None:
        receipt = case.apply(host, store)
        damaged = store.path("quickack-ffffff")
        damaged.write_bytes(store.path(receipt.id).read_bytes()[:40])
        assert case.remedy.undo(receipt, store).complete
        assert store.load().damaged == (damaged,)

    def test_undo_all_removes_what_is_ours_and_says_what_it_cannot_know(
        self, case: Case, host: Namespace, store: Receipts
    ) -> None:
        before = state(host)
        receipt = case.apply(host, store)
        store.path(receipt.id).write_bytes(b"{")
        cleared = undo_all(store, [host])
        assert not cleared.complete
        assert [path.parent.name for path in cleared.aside] == ["damaged"]
        assert store.load().damaged == ()
        assert eventually(lambda: followers(store) == 0)
        changed = {change.kind for change in receipt.changes}
        if changed <= FOREIGN:
            # A metric on a route of somebody else is nobody's for sure: named, not touched.
            assert len([point for point in cleared.open_points if "perhaps ours" in point]) == len(
                receipt.changes
            )
        else:
            assert state(host) == before
            assert not any("perhaps ours" in point for point in cleared.open_points)
            assert cleared.swept

    def test_undo_all_removes_what_is_ours_without_a_receipt(
        self, case: Case, host: Namespace, store: Receipts
    ) -> None:
        before = state(host)
        receipt = case.apply(host, store)
        store.path(receipt.id).unlink()
        cleared = undo_all(store, [host])
        assert cleared.complete
        assert eventually(lambda: followers(store) == 0)
        if not {change.kind for change in receipt.changes} <= FOREIGN:
            assert state(host) == before
            assert cleared.swept


@pytest.mark.parametrize(
    "case",
    [("quickack", scope) for scope in SCOPES["quickack"] if not isinstance(scope, SocketScope)],
    indirect=True,
    ids=lambda pair: pair[1].kind,
)
def test_the_stall_goes_away_and_other_traffic_is_unharmed(case: Case, store: Receipts) -> None:
    """Watched on connections that are open all the while: the stalling one, and one that never stalled."""
    with temporary("client") as client, temporary("server") as server:
        wire(server, client, "w0", 0)
        ip(client, "addr", "add", "203.0.113.7/32", "dev", "lo")
        ip(server, "route", "add", "default", "via", "198.19.0.2")
        if case.scope in (RouteScope(), RouteScope(to="203.0.113.0/24")):
            # The server reaches this client by its default route.
            ip(client, "route", "replace", "198.19.0.0/24", "dev", "w0", "src", "203.0.113.7")
        with (
            Conversation(client, server, "198.19.0.1", 7300) as stalling,
            Conversation(client, server, "198.19.0.1", 7301, nagle=False) as healthy,
        ):
            assert stalling.median() > SLOW_MS
            quick = healthy.median(50)
            receipt = case.apply(server, store)
            assert stalling.median() < SLOW_MS / 4
            # Timing on a shared machine moves by a factor of two between runs; a stall would be a factor of a hundred.
            assert healthy.median(50) < quick * 3 + 1
            assert case.remedy.undo(receipt, store).complete
            assert stalling.median() > SLOW_MS


class TestCommands:
    """The commands say what they did, on the right stream, with the right exit code."""

    @pytest.fixture(autouse=True)
    def own_store(self, store: Receipts, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(receipts, "DIRECTORY", store.directory)

    def options(self, case: Case) -> list[str]:
        if isinstance(case.scope, PortScope):
            return ["--port", str(case.scope.port)]
        options = ["--to", case.scope.to] if case.scope.to else []
        if isinstance(case.scope, BypassScope):
            options += ["--port", "{}-{}".format(*case.scope.ports), "--cgroup", case.scope.cgroup]
            options += ["--accept", ",".join(case.scope.accepted)]
        if isinstance(case.scope, SocketScope):
            options += ["--port", "{}-{}".format(*case.scope.ports)] if case.scope.ports else []
            options += ["--cgroup", case.scope.cgroup] if case.scope.cgroup else []
            options += ["--pid", str(case.scope.pid)] if case.scope.pid else []
        if isinstance(case.scope, CapScope):
            options += ["--cap", f"{case.scope.cap_us}us"]
        if isinstance(case.scope, WindowScope):
            options += ["--segments", str(case.scope.segments)]
            options += ["--after-idle"] if case.scope.after_idle else []
        return options

    def test_fix_status_undo(self, case: Case, host: Namespace, capsys: pytest.CaptureFixture[str]) -> None:
        if case.remedy.name in ("pin", "gateway"):
            pytest.skip(f"programs ask for it: there is no `ackward fix {case.remedy.name}`")
        before = state(host)
        fix = ["fix", case.remedy.name, "--netns", host.name, *self.options(case)]
        assert cli.run([*fix, "--dry-run"]) == 0
        assert state(host) == before
        assert cli.run([*fix, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out.partition("would")[2].partition("{")[2].join(["{", ""]))
        receipt = Receipt.model_validate(shown["receipt"])
        assert cli.run(fix) == 0
        assert f"In force already: receipt {receipt.id}" in capsys.readouterr().out
        assert cli.run(["status"]) == 0
        shown = capsys.readouterr().out
        assert f"\n{receipt.id} " in shown
        assert f"{case.remedy.name} for {case.scope.words}" in shown
        assert cli.run(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["remedies"][0]["state"] == "in force"
        assert cli.run(["undo", receipt.id]) == 0
        assert state(host) == before
        capsys.readouterr()
        assert cli.run(["status"]) == 0
        assert capsys.readouterr().out == "No remedies in force.\n"

    def test_undo_that_leaves_something_exits_4(
        self, host: Namespace, store: Receipts, capsys: pytest.CaptureFixture[str]
    ) -> None:
        quickack = remedies.load("quickack")
        for as_json in (False, True):
            receipt = quickack.apply(plan_of(quickack, host), store)
            assert receipt is not None
            ip(host, "route", "del", "default")
            capsys.readouterr()
            assert cli.run(["undo", receipt.id, *(["--json"] if as_json else [])]) == PartlyChanged.exit_code
            captured = capsys.readouterr()
            if as_json:
                assert "someone removed it" in json.loads(captured.out)["open"][0]
            else:
                assert "someone removed it" in captured.err
            ip(host, "route", "add", "default", "via", "198.19.0.2")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["fix", "quickack", "--netns", "no-such-name"], "no network namespace 'no-such-name'"),
            (["fix", "quickack", "--port", "0"], "is no TCP port"),
            (["fix", "quickack", "--port", "65536"], "is no TCP port"),
            (["fix", "quickack", "--port", "80", "--to", "10.0.0.0/8"], "exclude each other"),
            (["fix", "quickack", "--to", "10.0.0.1/8"], "write 10.0.0.0/8"),
            (["fix", "quickack", "--to", "ten"], "is not a network"),
            (["undo"], "name receipts or --all"),
            (["undo", "quickack-000000"], "there is no receipt 'quickack-000000'"),
            (["undo", "--all", "quickack-000000"], "not both"),
        ],
    )
    def test_bad_requests_exit_2_in_words_and_in_json(
        self, store: Receipts, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.run(arguments) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        assert cli.run([*arguments, "--json"]) == 2
        assert words in " ".join(map(str, json.loads(capsys.readouterr().out).values()))
        assert not store.path("x").parent.exists()

    def test_undo_all(
        self,
        case: Case,
        host: Namespace,
        store: Receipts,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # Only here: a test must not sweep the machine's other namespaces.
        monkeypatch.setattr(undo_command, "in_sight", lambda: [host])
        before = state(host)
        receipt = case.apply(host, store)
        assert cli.run(["undo", "--all"]) == 0
        assert receipt.id in capsys.readouterr().out
        assert state(host) == before
        assert cli.run(["undo", "--all"]) == 0
        assert capsys.readouterr().out == "Nothing to undo.\n"

    def test_a_damaged_receipt_is_named_then_set_aside_with_exit_4(
        self,
        host: Namespace,
        store: Receipts,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(undo_command, "in_sight", lambda: [host])
        store.directory.mkdir(mode=0o700)
        damaged = store.path("quickack-ffffff")
        damaged.write_text("{")
        assert cli.run(["status"]) == 0
        assert str(damaged) in capsys.readouterr().err
        assert cli.run(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["damaged"] == [str(damaged)]
        assert cli.run(["undo", "--all"]) == PartlyChanged.exit_code
        assert "could not be read" in capsys.readouterr().err
        assert cli.run(["undo", "--all"]) == 0

    @pytest.mark.parametrize("command", [["fix", "quickack"], ["status"], ["undo"]])
    def test_help_has_an_example(self, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run([*command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "Example" in shown
        assert f"ackward {' '.join(command)} " in shown.partition("Example")[2]


def plan_of(remedy: Remedy, host: Namespace) -> Plan:
    made = remedy.plan(host, RouteScope())
    assert isinstance(made, Plan)
    return made


def test_a_process_is_a_name_for_its_namespace(store: Receipts) -> None:
    """The receipt finds the namespace again when that process has ended and another is in it."""
    quickack = remedies.load("quickack")
    with router() as host:
        enter = ["nsenter", f"--net={host.path}", "sleep", "600"]
        with subprocess.Popen(enter) as process:
            assert eventually(lambda: Path(f"/proc/{process.pid}/ns/net").stat().st_ino == host.inode)
            receipt = quickack.apply(plan_of(quickack, resolve(str(process.pid))), store)
            assert receipt is not None
            process.kill()
        assert quickack.status(receipt, store).state is State.IN_FORCE
        assert quickack.undo(receipt, store).complete
