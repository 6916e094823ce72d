"""Pods as the Kubernetes API server lists and watches them, over real HTTP: lists in pages, watches that go on from a
version, bookmarks, 410 Gone, servers that break off in the middle of a line.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from ackward.kernel.namespaces import Namespace, call_inside, current


@dataclass
class Api:
    """What the server knows and what it was asked. Each change has a version; ``events`` are all of them."""

    url: str = ""
    token: str | None = None
    version: int = 100
    #: Watches from before this version are answered with 410.
    oldest: int = 0
    pods: dict[str, dict] = field(default_factory=dict)
    events: list[tuple[int, dict]] = field(default_factory=list)
    lists: list[dict[str, str]] = field(default_factory=list)
    watches: list[dict[str, str]] = field(default_factory=list)
    #: Bytes that are sent to all watches as they are, then they are cut off.
    breaking: bytes | None = None
    refusing: bool = False
    closing: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop | None = None

    def put(self, name: str, annotations: Mapping[str, str], *, uid: str = "", node: str = "node-1") -> None:
        """Make or change a pod."""

        def change() -> None:
            self.version += 1
            known = name in self.pods
            self.pods[name] = pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": "default",
                    "uid": uid or f"uid-{name}",
                    "resourceVersion": str(self.version),
                    "annotations": dict(annotations),
                    "unknownToAnyClient": {"x": [1]},
                },
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
                "status": {"phase": "Running"},
            }
            self._tell("MODIFIED" if known else "ADDED", pod)

        self._do(change)

    def delete(self, name: str) -> None:
        def change() -> None:
            self.version += 1
            pod = self.pods.pop(name)
            pod["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", pod)

        self._do(change)

    def bookmark(self) -> None:
        """Tell watches how far the server is."""

        def change() -> None:
            self.version += 1
            pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)}}
            self._tell("BOOKMARK", pod)

        self._do(change)

    def forget(self) -> None:
        """Remember no event any more, and end the watches that there are with 410."""

        def change() -> None:
            self.version += 1
            self.oldest = self.version
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
            self._tell(
                "ERROR", {**status, "message": "too old resource version", "reason": "Expired", "code": 410}
            )

        self._do(change)

    def break_off(self, last: bytes = b"") -> None:
        """Send these bytes to all watches and cut them off."""

        def change() -> None:
            self.breaking = last
            self._changed.set()

        self._do(change)

    def _tell(self, kind: str, thing: dict) -> None:
        self.events.append((self.version, {"type": kind, "object": json.loads(json.dumps(thing))}))
        self._changed.set()

    def _do(self, change: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        assert self._loop
        self._loop.call_soon_threadsafe(run)
        assert done.wait(5)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        if self.refusing:
            return _status(403, "Forbidden", "pods is forbidden")
        query = dict(request.query)
        if query.get("watch") == "true":
            self.watches.append(query)
            try:
                return await self._watch(request, query)
            except ConnectionError:  # the client was killed
                return web.Response()
        self.lists.append(query)
        chosen = [pod for pod in self.pods.values() if _selected(pod, query)]
        begin, size = int(query.get("continue") or 0), int(query.get("limit") or 500)
        metadata = {"resourceVersion": str(self.version)}
        if begin + size < len(chosen):
            metadata["continue"] = str(begin + size)
        items = chosen[begin : begin + size]
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, query: dict[str, str]) -> web.StreamResponse:
        since = int(query.get("resourceVersion") or 0)
        if since < self.oldest:
            return _status(410, "Expired", "too old resource version")
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        deadline = asyncio.get_running_loop().time() + float(query.get("timeoutSeconds") or 30)
        while self.breaking is None:
            changed = self._changed
            for version, event in self.events:
                if version <= since:
                    continue
                since = version
                if event["type"] in ("BOOKMARK", "ERROR") or _selected(event["object"], query):
                    await stream.write(json.dumps(event).encode() + b"\n")
                    if event["type"] == "ERROR":
                        return stream
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or self.closing:
                return stream
            try:
                await asyncio.wait_for(changed.wait(), min(left, 0.2))
            except TimeoutError:
                continue
            self._changed = asyncio.Event()
        await stream.write(self.breaking)
        self.breaking = None
        assert request.transport
        request.transport.abort()
        return stream


def _selected(pod: dict, query: dict[str, str]) -> bool:
    selector = query.get("fieldSelector", "")
    return not selector or selector == f"spec.nodeName={pod['spec']['nodeName']}"


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return _json({**body, "message": message, "reason": reason, "code": code}, code)


def _json(document: dict, code: int = 200) -> web.Response:
    # The API server names no character set, and clients compare.
    headers = {"Content-Type": "application/json"}
    return web.Response(body=json.dumps(document).encode(), status=code, headers=headers)


@contextmanager
def api_server(token: str | None = None, host: Namespace | None = None) -> Iterator[Api]:
    """Serve on a free port of the loopback until the end: of this host, or of another one."""
    loop = asyncio.new_event_loop()
    api = Api(token=token)
    api._loop = loop
    thread = threading.Thread(target=loop.run_forever, name="api server")
    thread.start()

    async def begin() -> web.AppRunner:
        application = web.Application()
        application.router.add_get("/api/v1/pods", api.answer)
        runner = web.AppRunner(application, shutdown_timeout=1)
        await runner.setup()
        listener = call_inside(host or current(), socket.create_server, ("127.0.0.1", 0))
        site = web.SockSite(runner, listener)
        await site.start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    runner = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield api
    finally:
        api.closing = True
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def kubeconfig(api: Api, token: str = "") -> str:
    """A kubeconfig that leads there."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": api.url}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {"token": token} if token else {}}],
        }
    )
