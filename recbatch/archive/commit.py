"""The only way into the log: data files become rows, each shard exactly once.

Delta's log does not refuse a transaction that it has already seen. What makes a commit atomic is the order:
open a fresh handle, look on it for the shard's transaction and for a higher epoch, commit on that very handle
with no retries inside the library. The commit is a put-if-absent of the next version, so whatever happened in
between makes it fail, and we go round again. A lost answer is found by the next look.

The same rule lets rows be replaced: what this handle shows to be there is what stands when the commit lands.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from recbatch.archive.errors import CommitConflict, LostDataFile, StoreUnreachable, Superseded
from recbatch.archive.reader import active_files
from recbatch.archive.replace import Rewrites, refuse_twice
from recbatch.archive.schema import TABLE, DataFile
from recbatch.archive.store import Store, is_storage_error
from recbatch.errors import RecbatchError

T = TypeVar("T")
LOOKS_AT_ONCE = 16  # an object store takes its time to say that a file is there
SERIAL = "recbatch/commits"  # in every commit: two of ours conflict even where the library would merge them


def shard_transaction(shard: str) -> str:
    return f"recbatch/shard/{shard}"


def epoch_transaction(job: str) -> str:
    return f"recbatch/epoch/{job}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """What one call of commit did."""

    version: int  # of the table, after it
    committed: tuple[str, ...]  # shards whose rows this call made visible
    already: tuple[str, ...]  # shards that stood in the log before
    rows: int  # made visible
    replaced: int  # rows of the same keys that went
    rewritten: int  # files that had to be written anew without those rows
    turns: int  # rounds of the loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to keep trying against conflicts and storage errors."""

    turns: int = 40
    first_wait_s: float = 0.05
    longest_wait_s: float = 15.0
    sleep: Callable[[float], None] = field(default=time.sleep)

    def wait(self, turn: int) -> None:
        wait_s = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(turn - 1, 30))
        self.sleep(wait_s * random.uniform(0.5, 1.0))  # rivals must not march in step


def claim_epoch(store: Store, job: str, *, patience: Patience, kind: str = "") -> int:
    """Fence out every earlier run of the job: their next commit raises Superseded."""

    def claim(_: int) -> int:
        table = store.table()
        epoch = (table.transaction_version(epoch_transaction(job)) or 0) + 1
        transact(store, table, [], {epoch_transaction(job): epoch}, _head(job, kind, epoch))
        return epoch

    return persist(store, claim, patience)


def commit_shards(
    store: Store,
    shards: Sequence[tuple[str, DataFile]],
    *,
    job: str,
    epoch: int,
    patience: Patience,
    absent_at: int | None = None,
    kind: str = "",
) -> CommitResult:
    """Make the shards' files part of the table, and let rows of the same keys give way, in one version.

    Calling it again with the same shards changes nothing. A shard may be named several times, once per file.
    ``absent_at`` is a version in which, as the caller knows, none of the shards stood: while the table is still
    at it they need not be looked up, which in a large log takes longer than all the rest.
    """
    refuse_twice(store, [file for _, file in shards])
    rewrites = Rewrites(store)

    def attempt(turn: int) -> CommitResult:
        table = store.table()
        seen = table.transaction_version(epoch_transaction(job)) or 0
        if seen > epoch:
            raise Superseded(job, epoch, seen)
        names = list(dict.fromkeys(shard for shard, _ in shards))
        done: set[str] = set()
        if table.version() != absent_at:
            done = {
                shard for shard in names if table.transaction_version(shard_transaction(shard)) is not None
            }
        if len(done) == len(names):
            paths = {file.path for file in active_files(store, table)}
            ours = {shard for shard, file in shards if turn > 1 and file.path in paths}  # a lost answer
            return CommitResult(
                version=table.version(),
                committed=tuple(shard for shard in names if shard in ours),
                already=tuple(shard for shard in names if shard not in ours),
                rows=sum(file.rows for shard, file in shards if shard in ours),
                replaced=0,
                rewritten=0,
                turns=turn,
            )
        if widen(store, table):
            return attempt(turn)
        todo = [(shard, file) for shard, file in shards if shard not in done]
        with ThreadPoolExecutor(LOOKS_AT_ONCE) as threads:
            for _ in threads.map(lambda entry: _check_present(store, *entry), todo):
                pass
        new = [file for _, file in todo]
        active = active_files(store, table, low=min(f.min_key for f in new), high=max(f.max_key for f in new))
        swaps = rewrites.plan(active, new)
        actions: list[AddAction | RemoveAction] = [add_action(file) for _, file in todo]
        for swap in swaps:
            actions.append(_remove(swap.old))
            if swap.new is not None:
                actions.append(add_action(swap.new))
        fresh = [shard for shard in names if shard not in done]
        transactions = {epoch_transaction(job): epoch} | {shard_transaction(shard): 1 for shard in fresh}
        replaced = sum(swap.dropped for swap in swaps)
        rows = sum(file.rows for _, file in todo)
        summary = _head(job, kind, epoch) | {"shards": len(fresh), "rows": rows, "replaced": replaced}
        version = transact(store, table, actions, transactions, summary)
        return CommitResult(
            version=version,
            committed=tuple(fresh),
            already=tuple(shard for shard in names if shard in done),
            rows=rows,
            replaced=replaced,
            rewritten=sum(swap.new is not None for swap in swaps),
            turns=turn,
        )

    return persist(store, attempt, patience)


def widen(store: Store, table: DeltaTable) -> bool:
    """Give the table of an older archive the columns that came later, in a version of their own."""
    present = set(pa.schema(table.schema().to_arrow()).names)
    missing = [field for field in Schema.from_arrow(TABLE).fields if field.name not in present]
    if not missing:
        return False
    version = table.version() + 1
    table.alter.add_columns(
        missing,
        commit_properties=CommitProperties(
            max_commit_retries=0,
            app_transactions=[Transaction(SERIAL, version, int(time.time() * 1000))],
        ),
    )
    store.settle(version)
    return True


def persist(store: Store, attempt: Callable[[int], T], patience: Patience) -> T:
    """Run the attempt until it succeeds, fails for good, or patience is at its end."""
    turn = 0
    while True:
        turn += 1
        try:
            return attempt(turn)
        except Exception as error:
            if not (isinstance(error, RecbatchError) or is_storage_error(error)):
                raise
            problem = store.explain(error, writing=True)
            if not isinstance(problem, (CommitConflict, StoreUnreachable)) or turn >= patience.turns:
                raise problem from (None if problem is error else error)
        patience.wait(turn)


def transact(
    store: Store,
    table: DeltaTable,
    actions: Sequence[AddAction | RemoveAction],
    transactions: dict[str, int],
    summary: dict[str, str | int],
) -> int:
    """Commit on this handle as the version after its own, or fail."""
    version = table.version() + 1
    now_ms = int(time.time() * 1000)
    marks = {**transactions, SERIAL: version}
    table.create_write_transaction(
        list(actions),
        "append",
        Schema.from_arrow(TABLE),
        [],
        commit_properties=CommitProperties(
            custom_metadata={"recbatch": summary},
            max_commit_retries=0,
            app_transactions=[Transaction(name, number, now_ms) for name, number in marks.items()],
        ),
    )
    store.settle(version)
    return version


def _head(job: str, kind: str, epoch: int) -> dict[str, str | int]:
    """Whose commit it is; runs of several kinds share a job's epochs where they must fence one another out."""
    return {"job": job, **({"kind": kind} if kind else {}), "epoch": epoch}


def _check_present(store: Store, shard: str, file: DataFile) -> None:
    size = store.size(file.path)
    if size is None:
        raise LostDataFile(shard, file.path, "is gone")
    if size != file.size:
        raise LostDataFile(shard, file.path, f"has {size} bytes, its writer reported {file.size}")


def add_action(file: DataFile) -> AddAction:
    statistics = {
        "numRecords": file.rows,
        "minValues": {"key": file.min_key},
        "maxValues": {"key": file.max_key},
        "nullCount": {"key": 0},
    }
    # not ensure_ascii: deltalake 1.6.6 reads escaped surrogate pairs as other characters, and a key would be missed
    text = json.dumps(statistics, ensure_ascii=False)
    return AddAction(file.path, file.size, {}, int(time.time() * 1000), True, text)


def _remove(file: DataFile) -> RemoveAction:
    return RemoveAction(file.path, True, int(time.time() * 1000), file.size, {})
