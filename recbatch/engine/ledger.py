"""What a job leaves in ``_recbatch/plans``: its plan. Nothing needs it to go on."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from recbatch.engine import spool
from recbatch.engine.plan import Plan

if TYPE_CHECKING:
    from recbatch.archive import Archive

PLANS = "plans"


def store_plan(archive: Archive, plan: Plan, *, settings: str) -> str:
    """The plan as Parquet, one row per item; returns its name in the ledger."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = {"recbatch.plan": plan.digest, "recbatch.settings": settings}
    schema = pa.schema([("shard", pa.string()), *spool.schema()], metadata=kept)
    name = f"{PLANS}/{plan.digest[:32]}.parquet"
    shards = ((shard.name, *spool.row_of(item)) for shard in plan.shards() for item in shard.items)
    with (
        archive.writing_object(name) as sink,
        pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer,
    ):
        while rows := list(itertools.islice(shards, spool.RUN_ROWS)):
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.table(columns, schema))
    return name
