"""What a job leaves beside the table, in ``_recbatch/``: plan and report. Nothing needs them to go on."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from recbatch.engine.plan import Plan
from recbatch.engine.report import Report

if TYPE_CHECKING:
    from recbatch.archive import Archive

PLANS = "plans"
JOBS = "jobs"


def store_plan(archive: Archive, plan: Plan, *, settings: str) -> str:
    """The plan as Parquet, one row per item; returns its name in the ledger."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(shard.name, item) for shard in plan.shards for item in shard.items]
    table = pa.table(
        {
            "shard": pa.array([name for name, _ in rows], pa.string()),
            "key": pa.array([item.key for _, item in rows], pa.string()),
            "uri": pa.array([item.uri for _, item in rows], pa.string()),
            "size": pa.array([item.size for _, item in rows], pa.int64()),
            "mtime_ns": pa.array([item.mtime_ns for _, item in rows], pa.int64()),
            "etag": pa.array([item.etag for _, item in rows], pa.string()),
        }
    ).replace_schema_metadata({"recbatch.plan": plan.digest, "recbatch.settings": settings})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    name = f"{PLANS}/{plan.digest[:32]}.parquet"
    archive.put_object(name, buffer.getvalue())
    return name


def store_report(archive: Archive, report: Report) -> str:
    """The report as JSON, named by time and plan."""
    now = datetime.now(UTC)
    name = f"{JOBS}/{now:%Y%m%dT%H%M%SZ}-{report.plan[:16] or 'none'}.json"
    text = json.dumps({"finished": now.isoformat(), **report.to_dict()}, indent=1, ensure_ascii=False)
    archive.put_object(name, text.encode("utf-8", "backslashreplace"))
    return name
