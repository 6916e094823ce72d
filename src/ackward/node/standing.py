"""What was said of each pod already: it is tried again and again, and the same words about it are news once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

#: A node runs fewer; of more the one that was looked at longest ago is forgotten, and told of anew.
_MOST_PODS = 1000


class Standing:
    """The words that stand of each interface of a container, until they change. Safe for threads."""

    def __init__(self) -> None:
        self._words: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()
        self._lock = threading.Lock()

    def news(self, container_id: str, ifname: str, words: Iterable[str]) -> tuple[str, ...]:
        """Those that did not stand before; from now on all of these stand, and no others."""
        now = dict.fromkeys(words)
        with self._lock:
            before = self._words.pop((container_id, ifname), frozenset())
            if now:
                self._words[container_id, ifname] = frozenset(now)
            if len(self._words) > _MOST_PODS:
                self._words.popitem(last=False)
        return tuple(one for one in now if one not in before)
