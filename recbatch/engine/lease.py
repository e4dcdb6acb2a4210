"""One at a time: a lease in the archive that its holder renews, and that others may take when it expires.

The lease is one object. Who finds none makes it; who finds one that was given back, or that the store took longer
ago than it lasts, replaces it under the condition that nobody else has. Ages are the store's, so that a machine
with a wrong clock neither steals a lease nor keeps one.

A holder counts from the moment before it asked for the last renewal, by a clock that nobody sets, and lets go a
little before others may take over. One that was frozen finds out late; what keeps its work out of the table is not
the lease but the epoch in the table's log: a later driver claims the next epoch before it lists anything, and from
then on every commit of the earlier one is refused (``archive/commit.py``). The lease keeps two runs from wasting
each other's time; the epoch keeps the rows right.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from recbatch.archive.conditional import Tagged
from recbatch.errors import RecbatchError

DURATION_S = 60.0
RENEW_S = 20.0
MARGIN_S = 10.0  # the holder lets go so much earlier than others may take over
RETRY_S = 3.0  # after a renewal that failed for the store's sake


class Objects(Protocol):
    """Where the lease lies: the ledger of an archive."""

    def read(self, name: str) -> Tagged | None: ...

    def put_if(self, name: str, data: bytes, *, etag: str | None) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What the object says."""

    owner: str = ""  # empty: the lease was given back
    epoch: int = 0  # grows by one with each holder
    renewal: int = 0
    duration_s: float = DURATION_S
    purpose: str = ""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Holder:
        """An object that nobody can read holds the lease until it expires, as any other does."""
        try:
            found = json.loads(data)
            return cls(
                owner=str(found["owner"]),
                epoch=int(found["epoch"]),
                renewal=int(found.get("renewal", 0)),
                duration_s=float(found["duration_s"]),
                purpose=str(found.get("purpose", "")),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls(owner="unreadable")


def new_owner() -> str:
    """Host, process and a random word: no two holders share one."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


class Lease:
    """A lease of one name, as one possible holder sees it."""

    def __init__(
        self,
        objects: Objects,
        name: str,
        *,
        owner: str,
        purpose: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects, self.name, self._clock = objects, f"leases/{name}.json", clock
        self._wanted = Holder(owner=owner, purpose=purpose)
        self._etag: str | None = None
        self._until_s = float("-inf")
        self._lock = threading.Lock()
        self.holder = Holder()  # who had it when it was last looked at

    @property
    def epoch(self) -> int:
        return self._wanted.epoch

    @property
    def is_held(self) -> bool:
        return self._clock() < self._until_s

    def look(self) -> Holder | None:
        """Who holds it now; None where it is free to take."""
        found = self._objects.read(self.name)
        if found is None:
            return None
        holder = Holder.from_json(found.data)
        return holder if holder.owner and found.age_s <= holder.duration_s else None

    def take(self) -> bool:
        """Take the lease if it is free; ``holder`` says afterwards who has it."""
        asked_s = self._clock()
        found = self._objects.read(self.name)
        present = Holder.from_json(found.data) if found is not None else Holder()
        if found is not None and present.owner and found.age_s <= present.duration_s:
            self.holder = present
            return False
        wanted = replace(self._wanted, epoch=present.epoch + 1, renewal=0)
        etag = self._objects.put_if(self.name, wanted.to_json(), etag=found.etag if found else None)
        if etag is None:
            again = self._objects.read(self.name)
            self.holder = Holder.from_json(again.data) if again is not None else Holder()
            return False
        self._wanted, self._etag, self.holder = wanted, etag, wanted
        self._until_s = asked_s + wanted.duration_s - MARGIN_S
        return True

    def renew(self) -> bool:
        """Hold on for another term; False where somebody else has it. A store's error says nothing either way."""
        with self._lock:
            if self._etag is None:
                return False
            asked_s = self._clock()
            wanted = replace(self._wanted, renewal=self._wanted.renewal + 1)
            etag = self._objects.put_if(self.name, wanted.to_json(), etag=self._etag)
            if etag is None:
                self._etag, self._until_s = None, float("-inf")
                return False
            self._wanted, self._etag = wanted, etag
            self._until_s = asked_s + wanted.duration_s - MARGIN_S
            return True

    def release(self) -> None:
        """Give it back, so that the next one need not wait until it expires."""
        if not self._lock.acquire(timeout=RENEW_S):
            return  # a renewal hangs in a dead connection; the lease will expire
        try:
            etag, self._etag, self._until_s = self._etag, None, float("-inf")
            if etag is not None:
                free = replace(self._wanted, owner="", purpose="")
                self._objects.put_if(self.name, free.to_json(), etag=etag)
        finally:
            self._lock.release()


@contextmanager
def keeping(lease: Lease, on_lost: Callable[[], None], *, renew_s: float = RENEW_S) -> Iterator[None]:
    """Renew a lease that was taken while the block runs; ``on_lost`` is called once, from a thread, if that fails.

    Two threads: a renewal may hang in a dead connection for longer than the lease lasts, and the second notices.
    """
    ended, asked = threading.Event(), threading.Lock()

    def lost() -> None:
        if asked.acquire(blocking=False) and not ended.is_set():
            on_lost()

    def renew() -> None:
        wait_s = renew_s
        while not ended.wait(wait_s):
            try:
                if not lease.renew():
                    return lost()
                wait_s = renew_s
            except RecbatchError:  # the store may answer again before the lease is over
                wait_s = min(RETRY_S, renew_s)
                if not lease.is_held:
                    return lost()

    def watch() -> None:
        while not ended.wait(min(1.0, renew_s)):
            if not lease.is_held:
                return lost()

    threads = [threading.Thread(target=work, name="lease", daemon=True) for work in (renew, watch)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
