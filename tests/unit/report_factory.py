"""Reports as the product makes them: a standoff, a healthy run, 30,000 flows, one with hostile names."""

from __future__ import annotations

from tests.unit import drawing_factory

from ackward.model.causes import Cause, End, Grade
from ackward.model.report import (
    Capture,
    CauseTotal,
    Finding,
    FlowSummary,
    Ladder,
    LadderStep,
    Process,
    Quantiles,
    Remedy,
    Report,
    Stall,
)
from ackward.model.verdict import Measure, Phase, Result, Verdict

CLIENT = "10.77.0.1:53122"
SERVER = "10.77.0.2:7000"
COMMAND = "sudo /usr/local/bin/ackward fix quickack --netns ackward-standoff-server-4711 --port 7000"

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "pay\u202egnp.exe",
    "bell\x07\x1b[2Jclear",
    "zero\u200bwidth",
    "<!--",
    "]]>",
    "[red]markup[/red]",
    "half\ud83d",
    "{{ 7 * 7 }}",
    "e\u0301\u0301\u0301\u0301",
)


def standoff_finding(*, ladder: Ladder | None = None) -> Finding:
    lost = 59 * 43_900_000
    return Finding(
        cause=Cause.STANDOFF,
        grade=Grade.OBSERVED,
        client=CLIENT,
        server=SERVER,
        client_process=Process(pid=8121, command="python3", netns="ackward-standoff-client-4711"),
        server_process=Process(
            pid=8123, command="python3", container="orders-7c9f", netns="ackward-standoff-server-4711"
        ),
        holding_end=End.CLIENT,
        delaying_end=End.SERVER,
        exchanges=59,
        lost_ns=Quantiles(p50=43_960_000, p99=44_120_000, total=lost),
        why="The client wrote 100 B and then 200 B. The first went out at once; Nagle's rule held the second "
        "until the first was acknowledged. The server could not answer before it had all 300 B, so it kept "
        "the ACK back for its delayed-ACK timer. Both waited until that timer fired after about 40 ms.",
        evidence=[
            "59 writes of 200 B were held while 100 B were unacknowledged (seen at the client's socket)",
            "59 delayed-ACK timers fired at the server with an ACK still pending",
            "each held segment left within 15 us of that ACK",
        ],
        remedies=[
            Remedy(name="quickack", end=End.SERVER, saves_ns=lost, command=COMMAND),
            Remedy(
                name="nodelay",
                end=End.CLIENT,
                saves_ns=lost,
                advice="Set TCP_NODELAY in the client, or let it write head and body with one writev().",
            ),
        ],
        ladder=ladder or drawing_factory.standoff_ladder(),
        sequence=drawing_factory.standoff_sequence(),
    )


def standoff() -> Report:
    """60 exchanges of which 59 stalled."""
    causes = {
        Cause.STANDOFF: CauseTotal(ns=59 * 43_900_000, exchanges=59),
        Cause.NETWORK: CauseTotal(ns=60 * 27_000, exchanges=60),
        Cause.SERVER: CauseTotal(ns=60 * 21_000, exchanges=60),
        Cause.CLIENT: CauseTotal(ns=60 * 14_000, exchanges=60),
        Cause.HANDSHAKE: CauseTotal(ns=61_337, exchanges=1),
        Cause.UNKNOWN: CauseTotal(ns=0, exchanges=0),
    }
    elapsed = sum(total.ns for total in causes.values())
    return Report(
        capture=Capture(
            source="live: namespaces ackward-standoff-client-4711 and ackward-standoff-server-4711",
            seconds=2.71,
            flows=1,
            segments=301,
            notes=["Times at both ends come from one clock: the two hosts are namespaces of this machine."],
        ),
        exchanges=60,
        elapsed_ns=elapsed,
        causes=causes,
        findings=[standoff_finding()],
        flows=[
            FlowSummary(
                client=CLIENT,
                server=SERVER,
                client_process=Process(pid=8121, command="python3"),
                server_process=Process(pid=8123, command="python3", container="orders-7c9f"),
                seen_from="both",
                exchanges=60,
                elapsed_ns=elapsed,
                bytes_to_server=18_000,
                bytes_to_client=6_000,
                worst_cause=Cause.STANDOFF,
            )
        ],
    )


def healthy() -> Report:
    causes = {
        Cause.NETWORK: CauseTotal(ns=60 * 11_000, exchanges=60),
        Cause.SERVER: CauseTotal(ns=60 * 9_000, exchanges=60),
        Cause.CLIENT: CauseTotal(ns=60 * 4_500, exchanges=60),
        Cause.HANDSHAKE: CauseTotal(ns=58_113, exchanges=1),
    }
    elapsed = sum(total.ns for total in causes.values())
    return Report(
        capture=Capture(source="live: this host, port 7000", seconds=10.0, flows=1, segments=243),
        exchanges=60,
        elapsed_ns=elapsed,
        causes=causes,
        flows=[
            FlowSummary(
                client=CLIENT,
                server=SERVER,
                seen_from="client",
                exchanges=60,
                elapsed_ns=elapsed,
                bytes_to_server=18_000,
                bytes_to_client=6_000,
                worst_cause=Cause.NETWORK,
            )
        ],
    )


def verdict() -> Verdict:
    return Verdict(
        result=Result.IMPROVED,
        before=Measure(p50_ns=43_982_000, p99_ns=44_310_000, rounds=60, slow=59),
        after=Measure(p50_ns=24_100, p99_ns=61_800, rounds=60, slow=0),
        ratio=0.000548,
        ratio_low=0.000531,
        ratio_high=0.000566,
        words="The median fell from 44.0 ms to 24 us; 59 slow rounds of 60 became none.",
    )


def phases() -> list[Phase]:
    found = verdict()
    control = Measure(p50_ns=22_900, p99_ns=58_000, rounds=60, slow=0)
    return [
        Phase(name="before", measure=found.before, report=standoff()),
        Phase(name="with quickack", measure=found.after, report=healthy()),
        Phase(name="healthy control", measure=control, report=healthy()),
    ]


def many_flows(rows: int = 30_000) -> Report:
    """A day's worth of a busy host: 40 servers, causes of all kinds, a dropped flow or two."""
    kinds = list(Cause)
    servers = [Process(pid=700 + n, command=f"svc-{n:02}", container=f"shop-{n % 7}") for n in range(40)]
    flows = [
        FlowSummary(
            client=f"10.{n % 200}.{n // 200 % 250}.{n % 13 + 1}:{32_768 + n % 28_000}",
            server=f"10.96.0.{n % 40 + 1}:{8000 + n % 40}",
            server_process=servers[n % 40],
            seen_from="server",
            protocol="mptcp" if n % 997 == 0 else "tcp",
            exchanges=1 + n % 90,
            elapsed_ns=(n * 7_919_317) % 90_000_000_000 + 1_000,
            bytes_to_server=(n * 31) % 70_000,
            bytes_to_client=(n * 7_333) % 9_000_000,
            worst_cause=kinds[n % len(kinds)],
        )
        for n in range(rows)
    ]
    causes = {
        cause: CauseTotal(
            ns=sum(flow.elapsed_ns for flow in flows if flow.worst_cause is cause),
            exchanges=sum(flow.exchanges for flow in flows if flow.worst_cause is cause),
        )
        for cause in kinds
    }
    findings = [
        standoff_finding().model_copy(update={"flows": 12, "exchanges": 590}),
        long_transfer_finding(),
        unexplained_finding(),
        standoff_finding().model_copy(
            update={
                "cause": Cause.NAGLE,
                "grade": Grade.INFERRED,
                "delaying_end": None,
                "ladder": None,
                "sequence": None,
                "exchanges": 7,
            }
        ),
    ]
    return Report(
        capture=Capture(
            source="eth0.pcapng",
            seconds=86_400.0,
            flows=rows,
            segments=48_213_771,
            dropped_flows=12,
            notes=["The capture was taken at the server: its ACKs leave within 3 us of the data."],
        ),
        exchanges=sum(flow.exchanges for flow in flows),
        elapsed_ns=sum(flow.elapsed_ns for flow in flows),
        causes=causes,
        findings=findings,
        flows=flows,
    )


def long_transfer_finding() -> Finding:
    """A transfer over 80 ms with a lost tail and estimated arrivals: a crowded ladder."""
    trip = 40_000_000
    steps = [
        LadderStep(at_ns=0, arrives_ns=trip, sender=End.CLIENT, flags="SYN", estimated=True),
        LadderStep(at_ns=trip, arrives_ns=2 * trip, sender=End.SERVER, flags="SYN ACK"),
        LadderStep(
            at_ns=2 * trip,
            arrives_ns=3 * trip,
            sender=End.CLIENT,
            seq=1,
            ack=1,
            bytes=180,
            flags="PSH ACK",
            estimated=True,
        ),
    ]
    for n in range(10):
        at = 3 * trip + n * 11_000
        last = n == 9
        steps.append(
            LadderStep(
                at_ns=at,
                arrives_ns=None if last else at + trip,
                sender=End.SERVER,
                seq=1 + n * 1448,
                ack=181,
                bytes=1448,
                flags="PSH ACK" if last else "ACK",
                note="the last segment of the answer" if last else "",
            )
        )
        if n % 2 and not last:
            steps.append(
                LadderStep(
                    at_ns=at + trip + 4_000,
                    arrives_ns=at + 2 * trip + 4_000,
                    sender=End.CLIENT,
                    seq=181,
                    ack=1 + (n + 1) * 1448,
                    flags="ACK",
                )
            )
    retransmitted = 3 * trip + 1_640_000_000
    steps.append(
        LadderStep(
            at_ns=retransmitted,
            arrives_ns=retransmitted + trip,
            sender=End.SERVER,
            seq=13_033,
            ack=181,
            bytes=1448,
            flags="PSH ACK",
            note="again, after the retransmission timeout",
        )
    )
    elapsed = retransmitted + trip
    return Finding(
        cause=Cause.RETRANSMISSION_TIMEOUT,
        grade=Grade.INFERRED,
        client="[2001:db8:85a3::8a2e:370:7334]:49152",
        server="[2001:db8:1::443]:443",
        holding_end=End.SERVER,
        exchanges=3,
        lost_ns=Quantiles(p50=1_520_000_000, p99=1_640_000_000, total=4_700_000_000),
        why="The last segment of the answer was lost, and nothing came after it to give the loss away.",
        evidence=["seq 13,033 was sent twice, 1.64 s apart", "no SACK named it in between"],
        remedies=[
            Remedy(
                name="tail-loss probes",
                end=End.SERVER,
                saves_ns=3_900_000_000,
                advice="net.ipv4.tcp_early_retrans is 0 at the server: 3 turns tail-loss probes on.",
            )
        ],
        ladder=Ladder(
            elapsed_ns=elapsed,
            steps=steps,
            stalls=[
                Stall(
                    start_ns=3 * trip + 9 * 11_000,
                    end_ns=retransmitted,
                    label="waiting for the retransmission timer",
                )
            ],
        ),
        sequence=drawing_factory.lossy_sequence(),
    )


def unexplained_finding() -> Finding:
    """The least that a finding can say."""
    return Finding(
        cause=Cause.HOST_QUEUE,
        grade=Grade.UNKNOWN,
        client="192.0.2.7:1",
        server="192.0.2.8:2",
        exchanges=1,
        lost_ns=Quantiles(p50=1, p99=1, total=1),
        why="",
    )


def hostile() -> Report:
    """Every text that can come from outside is an attack on the page, the terminal, or the eye."""
    base = standoff()
    everything = " ".join(HOSTILE)
    process = Process(pid=1, command=HOSTILE[0], container=everything, netns=HOSTILE[3])
    ladder = drawing_factory.standoff_ladder()
    steps = [step.model_copy(update={"flags": HOSTILE[1], "note": everything}) for step in ladder.steps]
    stalls = [stall.model_copy(update={"label": everything}) for stall in ladder.stalls]
    sequence = drawing_factory.standoff_sequence()
    marks = tuple(mark.model_copy(update={"note": everything}) for mark in sequence.marks)
    finding = base.findings[0].model_copy(
        update={
            "client": HOSTILE[2],
            "server": HOSTILE[0],
            "client_process": process,
            "server_process": process,
            "why": everything,
            "evidence": list(HOSTILE),
            "remedies": [
                Remedy(name=name, end=End.SERVER, saves_ns=0, command=f"echo {name}", advice=name)
                for name in HOSTILE
            ],
            "ladder": ladder.model_copy(update={"steps": steps, "stalls": stalls}),
            "sequence": sequence.model_copy(update={"marks": marks}),
        }
    )
    flows = [
        base.flows[0].model_copy(
            update={"client": name, "server": name, "client_process": process, "server_process": process}
        )
        for name in HOSTILE
    ]
    capture = base.capture.model_copy(update={"source": everything, "notes": list(HOSTILE)})
    return base.model_copy(update={"capture": capture, "findings": [finding], "flows": flows})


def empty() -> Report:
    return Report(capture=Capture(source="live: this host"), exchanges=0, elapsed_ns=0, causes={})
