"""Is it the image or the machine? Deaths by node: one where shards die that live elsewhere is left."""

from __future__ import annotations

from collections import Counter, defaultdict

DEATHS = 3  # of different shards, none of which died elsewhere
WITHIN = 20  # shards done there: a node that does its work and dies now and then stays


class Blame:
    def __init__(self) -> None:
        self._died: dict[str, dict[str, int]] = defaultdict(dict)  # node: shard: shards done there before
        self._done: Counter[str] = Counter()

    def done(self, node: str) -> None:
        self._done[node] += 1

    def died(self, node: str, shard: str) -> bool:
        """A worker died there at this shard; whether the node has had its chances.

        A half of a shard counts as the whole: it holds the same bad image.
        """
        whole = shard.partition(".")[0]
        elsewhere = [other for other, shards in self._died.items() if other != node and whole in shards]
        if elsewhere:  # it is the shard
            for other in elsewhere:
                del self._died[other][whole]
            self._died[node].pop(whole, None)
            return False
        since = self._done[node] - WITHIN
        mine = {name: done for name, done in self._died[node].items() if done >= since}
        mine[whole] = self._done[node]
        self._died[node] = mine
        return len(mine) >= DEATHS
