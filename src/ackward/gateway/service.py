"""A gateway from start to end: configuration, supervisor, control socket, log, signals.

SIGTERM and SIGINT drain: no new connections, the old ones finish, for at most ``limits.drain`` seconds; a second one
ends at once. SIGHUP reads the keys anew, those that the configuration names then, and looks names up. What signals ask
for during the start is done after it, so that the start is either undone or done. Nothing here touches a payload, and
nothing that fails here after the start touches a connection.
"""

from __future__ import annotations

import os
import resource
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from ackward.errors import AckwardError, Unavailable
from ackward.gateway import metrics
from ackward.gateway.assembling import Keys, accepted, assemble, listener_name, to_resolve
from ackward.gateway.config import Endpoint, Gateway, load_keys, with_new_keys
from ackward.gateway.control import Control
from ackward.gateway.counters import Count
from ackward.gateway.journal import Journal, WorkerHooks, address
from ackward.gateway.names import Names
from ackward.gateway.notices import notices
from ackward.gateway.processes import Supervisor
from ackward.gateway.settings import Address
from ackward.gateway.shown import Beside, Draining, Listening
from ackward.model.gateway_status import GatewayStatus, ListenerStatus, PeerStatus, WorkerStatus
from ackward.model.names import prose, visible

#: How often the workers are looked at, seconds.
_BEAT = 0.5
#: How long the log's lines are gathered when there are many, seconds.
_GATHERING = 0.05


class Log:
    """Lines with their moment; to a reader that does not read they are lost, and nothing waits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lost = 0

    def write(self, *lines: str) -> None:
        """These lines, or some of them."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        waiting: list[bytes] = []
        size = count = 0
        for line in lines:
            data = f"{moment} {line}\n".encode()
            if size + len(data) > select.PIPE_BUF:
                self._put(b"".join(waiting), count, moment)
                waiting.clear()
                size = count = 0
            waiting.append(data)
            size += len(data)
            count += 1
        if count:
            self._put(b"".join(waiting), count, moment)

    def _put(self, data: bytes, lines: int, moment: str) -> None:
        """At most PIPE_BUF bytes: a pipe that select() calls writable takes as many without waiting (pipe(7))."""
        try:
            if not select.select([], [self._descriptor], [], 0)[1]:
                self._lost += lines
                return
            if self._lost:
                os.write(self._descriptor, f"{moment} log lines lost={self._lost}\n".encode())
                self._lost = 0
                self._put(data, lines, moment)
                return
            os.write(self._descriptor, data)
        except OSError:
            self._lost += lines  # the reader is gone: the gateway is not


def run(
    config: Gateway,
    *,
    reread: Callable[[], Gateway] | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Be the gateway until it has drained; ``reread`` gives the configuration as it is by now.

    Raises an :class:`~ackward.errors.AckwardError` if it cannot start.
    """
    keys = load_keys(config)
    log = Log(sys.stdout.fileno())
    with ExitStack() as stack:
        journal = Journal()
        stack.callback(journal.close)
        service = _Service(config, keys, journal, log, reread or (lambda: config))
        with service.signals(), ExitStack() as running:
            service.start(running)
            log.write(
                f"started name={config.name} pid={os.getpid()}",
                *(f"notice {notice}" for notice in service.notices),
            )
            ready()
            service.serve()
        log.write("ended")


class _Service:
    def __init__(
        self, config: Gateway, keys: Keys, journal: Journal, log: Log, reread: Callable[[], Gateway]
    ) -> None:
        self._config, self._keys, self._journal, self._log = config, keys, journal, log
        self._reread = reread
        self._began = time.monotonic()
        self._deadline: float | None = None
        self._drains_since = 0.0
        self._ending = False
        self._wanted: list[Callable[[], None]] = []
        self._wake_reader, self._wake = socket.socketpair()
        for end in (self._wake_reader, self._wake):
            end.settimeout(0)

    def start(self, stack: ExitStack) -> None:
        """Everything that can fail, before the first client."""
        stack.callback(self._write_lines)  # the workers' last ones, once they have ended
        # Before the workers: it refuses a second gateway of this name.
        self._control = Control(self._config.name, self._answer)
        stack.callback(self._control.close)
        fields = dict(to_resolve(self._config))
        self._names = Names(fields.values(), self._say_later, self._changed_later)
        self._names.start()
        stack.callback(self._names.stop)
        self._require_peers(fields)
        hooks = WorkerHooks(self._journal, {name: peer.allow for name, peer in self._config.peers.items()})
        settings = assemble(self._config, self._keys, self._names.resolved)
        self._supervisor = stack.enter_context(Supervisor(settings, hooks, told=self._log.write))
        _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.notices = list(notices(self._config, descriptors))
        if self._config.metrics:
            collector = metrics.GatewayCollector(
                self._supervisor.counters, lambda: self._deadline is not None
            )
            server, _ = metrics.serve(self._config.metrics.address, collector)
            stack.callback(server.shutdown)
            stack.callback(server.server_close)

    def _require_peers(self, fields: Mapping[str, Endpoint]) -> None:
        for field, endpoint in fields.items():
            if field.startswith("peer.") and self._names.resolved[endpoint] is None:
                raise Unavailable(
                    f"{field}: the name {endpoint.host} does not resolve",
                    consequence="no leg could be connected; nothing was started",
                    next_step="look at /etc/resolv.conf, or write the address",
                )

    def serve(self) -> None:
        """Until every worker has ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._control.socket, selectors.EVENT_READ, self._control.serve)
            selector.register(self._wake_reader, selectors.EVENT_READ, self._carry_out)
            selector.register(self._journal.reader, selectors.EVENT_READ)
            while not self._supervisor.wait(0):
                ready = selector.select(_BEAT if self._journal.reader in selector.get_map() else _GATHERING)
                for key, _ in ready:
                    if key.data:
                        key.data()
                self._gather(selector, {key.fileobj for key, _ in ready})
                self._supervisor.widen_again()
                if self._ending or (self._deadline is not None and time.monotonic() > self._deadline):
                    self._log.write("ended before all connections were")
                    break

    def _gather(self, selector: selectors.BaseSelector, ready: set[object]) -> None:
        """Write a line at once; those that follow close behind together: a wake-up for each would cost the workers."""
        reader = self._journal.reader
        if reader in ready:
            self._write_lines()
            selector.unregister(reader)
        elif reader not in selector.get_map():
            self._write_lines()
            selector.register(reader, selectors.EVENT_READ)

    def _write_lines(self) -> None:
        self._log.write(*self._journal.read())

    # What other threads and signal handlers ask for is done in the loop.

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Hear signals: from before the start until all is undone, or one would end it half way."""
        orders = {
            signal.SIGTERM: self._drain,
            signal.SIGINT: self._drain,
            signal.SIGHUP: self._reload,
        }
        before = {
            number: signal.signal(number, lambda *_, order=order: self._later(order))
            for number, order in orders.items()
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._wake_reader.close()
            self._wake.close()

    def _later(self, order: Callable[[], None]) -> None:
        self._wanted.append(order)
        with suppress(OSError):  # it is awake, or has ended
            self._wake.send(b"!")

    def _carry_out(self) -> None:
        self._wake_reader.recv(4096)
        while self._wanted:
            self._wanted.pop(0)()

    def _say_later(self, words: str) -> None:
        self._later(lambda: self._log.write(visible(words)))

    def _changed_later(self, endpoint: Endpoint, now: Address) -> None:
        self._later(lambda: self._redirect(endpoint, now))

    def _redirect(self, endpoint: Endpoint, now: Address) -> None:
        for number, listen in enumerate(self._config.listen):
            if listen.target == endpoint:
                self._supervisor.tell({"do": "resolved", "listener": number, "address": now})
        for name, peer in self._config.peers.items():
            if peer.address == endpoint:
                try:
                    self._supervisor.peer_moved(name, now)
                except AckwardError as error:
                    self._log.write(
                        visible(f"the step window is not in force, legs to {name} begin slowly: {error}")
                    )

    def _drain(self) -> None:
        if self._deadline is not None:
            self._ending = True
            return
        self._drains_since = time.monotonic()
        self._deadline = self._drains_since + self._config.limits.drain
        open_now = self._supervisor.counters.total(Count.CONNECTIONS)
        self._log.write(f"draining connections={open_now} seconds={self._config.limits.drain:g}")
        if any(listen.transparent for listen in self._config.listen):
            self._log.write(
                "until the drain has ended new clients of transparent listeners get no answer (IPv4) "
                "or are refused (IPv6)"
            )
        self._supervisor.tell({"do": "drain"})

    def _reload(self) -> None:
        """A bad configuration or key file leaves the old keys in use."""
        self._names.again()
        try:
            config, others = with_new_keys(self._config, self._reread())
            keys = load_keys(config)
        except AckwardError as error:
            self._log.write(prose(f"keys not read: {error}; the old ones stay in use"))
            return
        self._config, self._keys = config, keys
        if others:
            self._log.write(f"not in force before a restart: {', '.join(others)}")
        used = {name: several[0].secret for name, several in keys.items()}
        self._supervisor.tell({"do": "keys", "accepted": accepted(keys), "used": used})
        ids = "; ".join(
            f"{name} {' '.join(key.identity.hex() for key in several)}" for name, several in keys.items()
        )
        self._log.write(f"keys read: {ids}")

    def _answer(self, wanted: str) -> dict[str, Any]:
        if wanted == "drain":
            if self._deadline is None:
                self._later(self._drain)
            return {"draining": True}
        if wanted == "drains":  # asks no worker: whoever starts a gateway of this name waits for the answer
            return self._beside().model_dump(mode="json")
        if wanted == "beside":
            answers = self._supervisor.ask({"do": "lost"})
            lost = {peer: why for one in answers for peer, why in one.get("lost", {}).items()}
            return self._beside(lost).model_dump(mode="json")
        if wanted == "status":
            return self.status().model_dump(mode="json", by_alias=True)
        return {"error": f"nothing is known of {wanted!r}"}

    def _beside(self, lost: Mapping[str, str] | None = None) -> Beside:
        now = time.monotonic()
        draining = None
        if self._deadline is not None:
            draining = Draining(since=now - self._drains_since, left=max(0.0, self._deadline - now))
        return Beside(
            draining=draining,
            connections=self._supervisor.counters.total(Count.CONNECTIONS),
            listens={
                number: Listening(
                    place=str(listen.address or f"{listen.transparent} at {listen.interface}"),
                    target=str(listen.target) if listen.target else None,
                )
                for number, listen in enumerate(self._config.listen)
            },
            lost=dict(lost or {}),
        )

    def status(self) -> GatewayStatus:
        """What there is to say now."""
        config = self._config
        return GatewayStatus(
            name=config.name,
            pid=os.getpid(),
            state="running" if self._deadline is None else "draining",
            seconds=round(time.monotonic() - self._began, 3),
            steps=config.steps.model_dump(),
            notices=[*self.notices, *self._supervisor.notices],
            listeners=[
                ListenerStatus(
                    name=listener_name(number, listen),
                    destination=self._shown(listen.target),
                    peer=listen.via,
                    answer=listen.answer,
                )
                for number, listen in enumerate(config.listen)
            ],
            exit=str(config.exit.address) if config.exit else None,
            peers=[
                PeerStatus(
                    name=name,
                    address=self._shown(peer.address),
                    keys=[key.identity.hex() for key in self._keys[name]],
                    allow=[str(rule) for rule in peer.allow.rules],
                )
                for name, peer in config.peers.items()
            ],
            counters=self._supervisor.counters.as_dict(),
            workers=[WorkerStatus.model_validate(one) for one in self._supervisor.ask({"do": "status"})],
        )

    def _shown(self, endpoint: Endpoint | None) -> str | None:
        place = self._names.resolved.get(endpoint) if endpoint else None
        return address(place) if place else None
