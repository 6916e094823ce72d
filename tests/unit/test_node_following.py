"""The pods of a node, followed over HTTP as the API server speaks it: nothing is missed, and nothing ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.api_server import Api, api_server, kubeconfig
from tests.polling import eventually

from ackward.errors import UsageError
from ackward.model.pods import Sandbox
from ackward.node.following import PodsOfNode, client

YES = {"enable-quickack": "true"}


def sandbox(uid: str) -> Sandbox:
    return Sandbox("id", "default", "name", uid, 0, True, 0, {}, Path("/none"))


@dataclass
class Followed:
    """What is known of the pods, and how often it was told that something changed."""

    api: Api
    pods: PodsOfNode
    changes: list[None]

    def knows(self, **annotations: object) -> bool:
        """Whether exactly this is what is known of the pods by their names."""
        return all(
            self.pods.annotations(sandbox(f"uid-{name}")) == wanted for name, wanted in annotations.items()
        )


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    with api_server(token="s3cret") as api:
        config = tmp_path / "kubeconfig"
        config.write_text(kubeconfig(api, "s3cret"))
        changes: list[None] = []
        pods = PodsOfNode(partial(client, config, None), "node-1", changed=lambda: changes.append(None))
        api.put("a", YES)
        api.put("elsewhere", YES, node="node-2")
        stop = threading.Event()
        thread = threading.Thread(target=pods.run, args=(stop,))
        thread.start()
        try:
            assert eventually(lambda: pods.is_following)
            assert eventually(lambda: len(api.watches) == 1)
            yield Followed(api, pods, changes)
        finally:
            stop.set()
            api.break_off()
            api.refusing = True  # also the watch that is begun anew before it looks at stop
            thread.join(30)
            assert not thread.is_alive()


def test_it_lists_once_and_watches_from_there_on_its_own_node_alone(followed: Followed) -> None:
    api = followed.api
    assert followed.knows(a=YES, elsewhere=None)
    assert [one["fieldSelector"] for one in (*api.lists, *api.watches)] == ["spec.nodeName=node-1"] * 2
    assert api.watches[0]["resourceVersion"] == str(api.version)


def test_pods_come_change_and_go(followed: Followed) -> None:
    api = followed.api
    api.put("b", {**YES, "unrelated": "x"})
    assert eventually(lambda: followed.knows(a=YES, b=YES)), "only annotations of ours are kept"
    api.put("b", {"enable-quickack": "no"})
    assert eventually(lambda: followed.knows(b={"enable-quickack": "no"}))
    told = len(followed.changes)
    api.put("b", {"enable-quickack": "no", "kubectl.kubernetes.io/restartedAt": "now"})
    api.delete("a")
    assert eventually(lambda: followed.knows(a=None, b={"enable-quickack": "no"}))
    assert len(followed.changes) == told + 1, "a change that is none of ours wakes nobody"
    assert len(api.lists) == 1


def test_bookmarks_are_how_far_it_goes_on_from(followed: Followed) -> None:
    api = followed.api
    api.bookmark()
    api.put("b", YES)
    assert eventually(lambda: followed.knows(b=YES))
    assert len(api.lists) == 1


def test_after_410_it_lists_again_and_sees_what_it_missed(followed: Followed) -> None:
    api = followed.api
    api.forget()
    api.put("late", YES)
    api.delete("a")
    assert eventually(lambda: followed.knows(a=None, late=YES))
    assert eventually(lambda: len(api.lists) == 2)


@pytest.mark.parametrize("last", [b"", b'{"type": "ADD', b"no json\n", b'{"type": "ADDED", "object": []}\n'])
def test_after_a_break_it_begins_anew(followed: Followed, last: bytes) -> None:
    api = followed.api
    api.break_off(last)
    assert eventually(lambda: len(api.watches) >= 2, within=15)
    api.put("b", YES)
    api.delete("a")
    assert eventually(lambda: followed.knows(a=None, b=YES))
    assert followed.pods.is_following


def test_while_it_is_refused_it_does_not_follow_and_says_so(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    api = followed.api
    api.refusing = True
    with caplog.at_level("INFO", "ackward.node"):
        api.break_off()
        assert eventually(lambda: not followed.pods.is_following)
        assert eventually(lambda: any("forbidden" in str(record.__dict__) for record in caplog.records))
    assert "s3cret" not in caplog.text
    api.refusing = False
    assert eventually(lambda: followed.pods.is_following, within=15)


def test_a_server_that_ends_each_watch_at_once_is_not_asked_in_a_storm(followed: Followed) -> None:
    api = followed.api
    begun = time.monotonic()
    api.forget()
    api.oldest = 1 << 40  # each watch is too old
    assert eventually(lambda: len(api.watches) >= 4, within=15)
    # The rests between are 0.5, 1 and 2 s; the first watch had gone on for a moment.
    assert time.monotonic() - begun > 3


def test_many_pods_come_in_pages(tmp_path: Path) -> None:
    with api_server() as api:
        config = tmp_path / "kubeconfig"
        config.write_text(kubeconfig(api))
        for number in range(120):
            api.put(f"p{number}", YES)
        pods = PodsOfNode(partial(client, config, None), "node-1", changed=lambda: None)
        with client(config, None) as connection:
            pods._list(connection)
        assert all(pods.annotations(sandbox(f"uid-p{number}")) == YES for number in range(120))
        assert len(api.lists) == 5


def test_a_service_account_leads_to_the_api_server_of_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UsageError, match="no API server is configured"):
        client(None, tmp_path)
