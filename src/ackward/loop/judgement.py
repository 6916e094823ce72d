"""What the settings of a namespace do to whom: pure rules over facts that were read elsewhere.

A setting *hurts* if somebody waits because of it who need not. Its effect is one line, for a reader who does
not know the kernel's TCP.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from ackward.kernel.namespaces import command_inside
from ackward.kernel.settings import HostFacts, NamespaceFacts, Route
from ackward.model.doctor import Judgement, Setting
from ackward.model.tcp_constants import DELACK_MIN_NS, INIT_CWND, RTO_MIN_NS

FINE, HURTS = Judgement.FINE, Judgement.HURTS
#: What a rule says: the judgement, the effect, and the value that would be better.
Words = tuple[Judgement, str, str | None]


def judge(facts: NamespaceFacts, host: HostFacts) -> list[Setting]:
    """Every setting that is known, judged, those that hurt first."""
    settings = _threshold(facts, host)
    for name, rule in _RULES.items():
        if name not in facts.sysctls:
            continue
        value = facts.sysctls[name]
        judgement, effect, better = rule(value, facts)
        command = better and _command(facts, _sysctl(name, better))
        settings.append(Setting(name=name, value=value, judgement=judgement, effect=effect, command=command))
    settings += _windows(facts)
    settings.append(_quickack(facts.routes))
    return sorted(settings, key=lambda setting: setting.judgement is not HURTS)


def _sysctl(name: str, value: str) -> list[str]:
    return ["sysctl", "-w", f"net.ipv4.{name}={value}"]


def _command(facts: NamespaceFacts, argv: list[str]) -> str:
    """The shell line that runs ``argv`` in every namespace of the group."""
    if len(facts.namespaces) == 1:
        return shlex.join(command_inside(facts.namespaces[0], argv))
    paths = shlex.join(str(namespace.path) for namespace in facts.namespaces)
    return f'for ns in {paths}; do nsenter --net="$ns" -- {shlex.join(argv)}; done'


def _fine(name: str, value: str, effect: str) -> Setting:
    return Setting(name=name, value=value, judgement=FINE, effect=effect)


def _threshold(facts: NamespaceFacts, host: HostFacts) -> list[Setting]:
    """The pingpong threshold, be it a setting of the namespace or a constant that was measured."""
    name, value = "tcp_pingpong_thresh", facts.sysctls.get("tcp_pingpong_thresh")
    if value is not None:
        threshold, command = int(value), _command(facts, _sysctl(name, "3"))
    elif host.pingpong_threshold is not None:
        threshold = host.pingpong_threshold
        # A constant of the kernel cannot be set; what can be done about it is a route with quickack.
        value = f"{threshold}, built in"
        command = "; ".join(
            f"ackward fix quickack --netns {shlex.quote(one.name)}" for one in facts.namespaces
        )
    else:
        return []
    if facts.routes and all(route.quickack for route in facts.routes):
        return [_fine(name, value, "no effect: every route makes this host ACK at once (quickack)")]
    after = f"after {'one answer' if threshold == 1 else f'{threshold} answers'} this host delays its ACKs"
    if threshold >= 3:
        return [_fine(name, value, f"{after}: clients that send requests in pieces still wait now and then")]
    effect = f"{after}: a client that sends a request in pieces (Nagle) waits 40 ms; `fix quickack` ends that"
    return [Setting(name=name, value=value, judgement=HURTS, effect=effect, command=command)]


def _autocorking(value: str, _: NamespaceFacts) -> Words:
    if value == "0":
        return FINE, "every small write becomes a packet of its own: no wait, more packets", None
    return (
        FINE,
        "small writes wait microseconds, until an earlier packet has left this host: fewer packets",
        None,
    )


def _early_retrans(value: str, _: NamespaceFacts) -> Words:
    # tcp_schedule_loss_probe(), net/ipv4/tcp_output.c: 3 and 4 enable the probe.
    if value in ("3", "4"):
        return FINE, "if the end of an answer is lost, it is sent again after about two round trips", None
    return HURTS, "if the end of an answer from this host is lost, its reader waits 200 ms or more", "3"


def _idle_restart(value: str, facts: NamespaceFacts) -> Words:
    control = facts.sysctls.get("tcp_congestion_control", "")
    if value == "0":
        return FINE, "a connection that paused goes on at the speed it had", None
    # tcp_slow_start_after_idle_check(), include/net/tcp.h: not if the congestion control sets the rate.
    if control.startswith("bbr"):
        return FINE, f"no effect on {control}, which remembers its speed through a pause", None
    effect = "after a pause of 200 ms or more a connection of this host starts slowly again"
    return HURTS, f"{effect}: large answers over long paths pay round trips after every pause", "0"


def _congestion_control(value: str, _: NamespaceFacts) -> Words:
    if value == "reno":
        effect = "after each loss a transfer from this host regains one segment a round trip"
        return HURTS, f"{effect}: large transfers over long paths", "cubic"
    return FINE, "how fast connections of this host send, unless a program or a route chooses otherwise", None


def _rto_min(value: str, _: NamespaceFacts) -> Words:
    shortest = int(value)
    if shortest < DELACK_MIN_NS // 1000:
        effect = "receivers may hold ACKs for 40 ms: this host may resend what was not lost, and slow down"
        return HURTS, effect, str(RTO_MIN_NS // 1000)
    effect = (
        f"after a loss that nothing else repairs, readers of this host wait {shortest // 1000} ms or more"
    )
    if shortest > RTO_MIN_NS // 1000:
        return HURTS, effect, str(RTO_MIN_NS // 1000)
    return FINE, effect, None


def _timestamps(value: str, _: NamespaceFacts) -> Words:
    if value == "0":
        effect = "needless retransmissions are noticed late: connections of this host over paths with jitter"
        return HURTS, effect, "1"
    return FINE, "needless retransmissions are noticed and undone", None


def _sack(value: str, _: NamespaceFacts) -> Words:
    if value == "0":
        effect = "losses are repaired one a round trip: transfers from and to this host over lossy paths"
        return HURTS, effect, "1"
    return FINE, "several losses at once are repaired together", None


_RULES: dict[str, Callable[[str, NamespaceFacts], Words]] = {
    "tcp_slow_start_after_idle": _idle_restart,
    "tcp_early_retrans": _early_retrans,
    "tcp_autocorking": _autocorking,
    "tcp_congestion_control": _congestion_control,
    "tcp_rto_min_us": _rto_min,
    "tcp_timestamps": _timestamps,
    "tcp_sack": _sack,
}


def _quickack(routes: tuple[Route, ...] | None) -> Setting:
    if routes is None:
        return _fine("quickack on routes", "unknown", "the routes could not be read")
    quick = sum(route.quickack for route in routes)
    effect = "a route with quickack makes this host ACK at once; on others tcp_pingpong_thresh decides"
    return _fine("quickack on routes", f"{quick} of {len(routes)}", effect)


def _windows(facts: NamespaceFacts) -> list[Setting]:
    """The initial windows that routes set; a route that sets none has the kernel's, and needs no word."""
    found = []
    for route in facts.routes or ():
        if route.initcwnd is not None:
            found.append(_window(facts, route, "initcwnd", route.initcwnd, "answers of this host"))
        if route.initrwnd is not None:
            found.append(_window(facts, route, "initrwnd", route.initrwnd, "transfers to this host"))
    return found


def _window(facts: NamespaceFacts, route: Route, key: str, segments: int, who: str) -> Setting:
    table = "" if route.table == "main" else f" in table {route.table}"
    name = f"{key} of IPv{route.family} {route.destination}{table}"
    if segments >= INIT_CWND:
        return _fine(name, str(segments), f"{who} start with {segments} segments ({INIT_CWND} are usual)")
    return Setting(
        name=name,
        value=str(segments),
        judgement=HURTS,
        effect=f"{who} start with {segments} segments, not {INIT_CWND}: long ones pay extra round trips",
        command=_command(facts, _with_window(route.command, route, key)) if route.command else None,
    )


def _with_window(command: tuple[str, ...], route: Route, raised: str) -> list[str]:
    windows = {"initcwnd": route.initcwnd, "initrwnd": route.initrwnd, raised: INIT_CWND}
    kept = [
        word for key, segments in windows.items() if segments is not None for word in (key, str(segments))
    ]
    return [*command, *kept]
