"""The init-container form: `ackward fix quickack --netns self` in a real container with CAP_NET_ADMIN alone."""

from __future__ import annotations

import subprocess

import pytest
from tests.cluster.containerd import ACKWARD, Containerd

from ackward.kernel.namespaces import command_inside

FIX = [ACKWARD, "fix", "quickack", "--netns", "self"]


@pytest.fixture
def pod(runtime: Containerd):
    made = runtime.run_pod("with-init")
    try:
        yield made
    finally:
        runtime.remove_pod(made.id)


def defaults(runtime: Containerd, pod) -> list[str]:
    """The pod's default routes, both families."""
    shown = []
    for family in ("-4", "-6"):
        command = command_inside(runtime.namespace(pod), ["ip", family, "route", "show", "default"])
        shown.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return shown


def test_net_admin_alone_is_enough_and_a_volume_keeps_the_receipt(runtime, pod, tmp_path):
    before = defaults(runtime, pod)
    given = {"writable": {"/run/ackward": tmp_path}, "only": ["NET_ADMIN"]}
    code, said = runtime.exited(runtime.run_container(pod, "init", FIX, **given))
    assert code == 0, said
    assert all("quickack 1" in routes for routes in defaults(runtime, pod))
    # Whoever has the volume can read it back and undo it, long after that container ended.
    code, said = runtime.exited(runtime.run_container(pod, "status", [ACKWARD, "status"], **given))
    assert (code, said.count("has quickack 1")) == (0, 2), said
    (receipt,) = tmp_path.glob("quickack-*.json")
    code, said = runtime.exited(runtime.run_container(pod, "undo", [ACKWARD, "undo", receipt.stem], **given))
    assert code == 0, said
    assert defaults(runtime, pod) == before
    assert not list(tmp_path.glob("quickack-*.json"))


def test_without_a_place_for_the_receipt_nothing_is_changed(runtime, pod):
    before = defaults(runtime, pod)
    code, said = runtime.exited(runtime.run_container(pod, "init", FIX, only=["NET_ADMIN"]))
    assert code == 3, said
    assert "no receipt can be written to /run/ackward (Read-only file system)" in said
    assert "Traceback" not in said
    assert defaults(runtime, pod) == before


def test_without_net_admin_it_says_so(runtime, pod, tmp_path):
    before = defaults(runtime, pod)
    given = {"writable": {"/run/ackward": tmp_path}, "only": []}
    code, said = runtime.exited(runtime.run_container(pod, "init", FIX, **given))
    assert code == 3, said
    assert "changing routes and sockets needs CAP_NET_ADMIN" in said
    assert defaults(runtime, pod) == before
