"""The pods of this node as the API server tells them (the daemon form, without a CNI plugin).

The annotations of a pod may change while it runs; who follows the API server sees that. What is asked of it is the
least: list and watch of the pods of one node.

Laws: what is known is a whole list and every change since; a watch that ends, breaks or is told 410 Gone is begun
anew with a list; an answer that makes no sense ends the watch, never the agent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from ackward.errors import AckwardError, Unavailable, UsageError
from ackward.model.pods import Sandbox
from ackward.node.annotations import ours
from ackward.node.logs import tell

if TYPE_CHECKING:
    from lightkube import Client
    from lightkube.core.client import FieldSelector
    from lightkube.resources.core_v1 import Pod

#: Seconds after which the server ends a watch, and after which a list is taken though the watch seems to go on: nothing
#: else would tell of a server that vanished without a word.
_WATCH, _RELIST = 240, 300
#: Pods a page: 200 pods are a few megabytes of JSON.
_PAGE = 25
_FIRST_REST, _LONGEST_REST = 0.5, 10.0


def client(kubeconfig: Path | None, service_account: Path | None) -> Client:
    """A client of the API server; raises :class:`UsageError` where none is configured."""
    from lightkube import Client, KubeConfig
    from lightkube.core.exceptions import ConfigError, LoadResourceError

    try:
        if kubeconfig is not None:
            config = KubeConfig.from_file(kubeconfig)
        elif service_account is not None:
            config = KubeConfig.from_service_account(service_account)
        else:
            config = KubeConfig.from_env()
        return Client(config=config.get(), trust_env=False)
    except (ConfigError, LoadResourceError, OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"no API server is configured ({error})",
            consequence="--no-cni has no pods to follow",
            next_step="give the pod a service account, or name a file with --kubeconfig",
        ) from error


class PodsOfNode:
    """The annotations of the pods of one node, kept up to date by :meth:`run`; ``changed`` is called on each change.

    ``connect`` gives a client for each watch: lightkube leaves the connection of a broken one open until it is closed.
    """

    def __init__(self, connect: Callable[[], Client], node: str, *, changed: Callable[[], None]) -> None:
        self._connect, self._node, self._changed = connect, node, changed
        self._annotations: dict[str, Mapping[str, str]] = {}
        self._lock = threading.Lock()
        self._listed = 0.0
        self.is_following = False

    def annotations(self, sandbox: Sandbox) -> Mapping[str, object] | None:
        """What the pod of a sandbox asks for now; none if the API server does not know it."""
        with self._lock:
            return self._annotations.get(sandbox.uid)

    def run(self, stop: threading.Event) -> None:
        """Follow until told to stop."""
        rest, complaint = _FIRST_REST, ""
        while not stop.is_set():
            begun = time.monotonic()
            try:
                for _ in self._follow():
                    if stop.is_set():
                        return
            except _Gone:
                pass  # what is known stays true until the list that comes next
            except AckwardError as error:
                self.is_following = False
                if str(error) != complaint:  # once, not at every attempt
                    complaint = str(error)
                    tell("pods not followed", error=complaint)
            if time.monotonic() - begun > _LONGEST_REST:
                rest, complaint = _FIRST_REST, ""
            stop.wait(rest)
            rest = min(2 * rest, _LONGEST_REST)

    def relist_if_silent(self) -> None:
        """Take a list beside the watch when there was none for long."""
        if self.is_following and time.monotonic() - self._listed > _RELIST:
            with self._connect() as client:
                self._list(client)

    def _follow(self) -> Iterator[None]:
        from lightkube.resources.core_v1 import Pod

        with self._connect() as client, _in_our_words():
            version = self._list(client)
            self.is_following = True
            yield
            events = client.watch(
                Pod, namespace="*", fields=self._fields, server_timeout=_WATCH, resource_version=version
            )
            for kind, pod in events:
                if kind in ("ADDED", "MODIFIED", "DELETED"):  # a BOOKMARK only tells how far the server is
                    self._learn(pod, gone=kind == "DELETED")
                yield

    @property
    def _fields(self) -> FieldSelector:
        return {"spec.nodeName": self._node}

    def _list(self, client: Client) -> str | None:
        from lightkube.resources.core_v1 import Pod

        with _in_our_words():
            listed = client.list(Pod, namespace="*", fields=self._fields, chunk_size=_PAGE)
            found = dict(_of(pod) for pod in listed)
            version = listed.resourceVersion
        with self._lock:
            differs, self._annotations = found != self._annotations, found
        self._listed = time.monotonic()
        if differs:
            self._changed()
        return version

    def _learn(self, pod: Pod, *, gone: bool) -> None:
        uid, annotations = _of(pod)
        with self._lock:
            if (None if gone else annotations) == self._annotations.get(uid):
                return  # its status changed, which is of no interest
            if gone:
                del self._annotations[uid]
            else:
                self._annotations[uid] = annotations
        self._changed()


class _Gone(AckwardError):
    """410: the server remembers no longer what happened since the list. Not an error of anybody: list again."""


@contextmanager
def _in_our_words() -> Iterator[None]:
    from lightkube import ApiError

    try:
        yield
    except AckwardError:
        raise
    except ApiError as error:
        if error.status.code == HTTPStatus.GONE:
            raise _Gone(
                "the API server no longer tells what changed since the last list",
                consequence="pods that change now are seen with the next list",
                next_step="it is listed again",
            ) from error
        raise Unavailable(
            f"the API server refused: {error.status.message or error.status.reason or error.status.code}",
            consequence="pods that change now are not seen",
            next_step="see that the service account may list and watch pods (deploy/daemon)",
        ) from error
    except Exception as error:  # whatever an answer makes the libraries below raise
        raise Unavailable(
            f"the API server does not answer as it should ({type(error).__name__}: {error})",
            consequence="pods that change now are not seen",
            next_step="it is asked again",
        ) from error


def _of(pod: Pod) -> tuple[str, Mapping[str, str]]:
    metadata = pod.metadata
    if metadata is None or not metadata.uid:
        raise ValueError("a pod without a uid")
    return metadata.uid, ours(metadata.annotations or {})
