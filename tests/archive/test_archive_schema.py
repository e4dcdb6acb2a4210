from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from archive_helpers import image, quarantined
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.archive import COLUMNS, LATER_COLUMNS, TABLE, InvalidRecord, Record
from recbatch.archive.schema import check_record, records_to_table, schema_problem, table_to_records

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
digests = st.binary(min_size=32, max_size=32)
floats32 = st.floats(width=32, allow_nan=False)
integers64 = st.integers(-(2**63), 2**63 - 1)
integers32 = st.integers(-(2**31), 2**31 - 1)
times = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))


def optional(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


records = st.builds(
    Record,
    key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    status=st.sampled_from(["ok", "quarantined"]),
    codec=optional(st.sampled_from(["lossy", "original"])),
    stream=optional(st.binary(max_size=50)),
    source_uri=optional(texts),
    source_size=optional(integers64),
    source_etag=optional(texts),
    source_mtime=optional(integers64),
    source_sha256=optional(digests),
    source_format=optional(texts),
    width=optional(integers32),
    height=optional(integers32),
    mode=optional(texts),
    notes=st.lists(texts, max_size=3).map(tuple),
    model=optional(texts),
    quality=optional(st.floats(allow_nan=False)),
    level=optional(integers32),
    effort=optional(integers32),
    coder=optional(texts),
    kl_bits=optional(st.floats(allow_nan=False)),
    index_bits=optional(integers64),
    side_bits=optional(integers64),
    residual_bits=optional(integers64),
    psnr=optional(floats32),
    ms_ssim=optional(floats32),
    pixels_sha256=optional(digests),
    error_code=optional(texts),
    error=optional(texts),
    encode_ms=optional(st.floats(allow_nan=False)),
    shard=optional(texts),
    created_at=times,
    recbatch_version=optional(texts),
)


@st.composite
def with_previews(draw: st.DrawFn) -> Record:
    """A record; often with the beginning of its stream as a preview."""
    record: Record = draw(records)
    if not record.stream or draw(st.booleans()):
        return record
    return replace(record, preview=record.stream[: draw(st.integers(1, len(record.stream)))])


@settings(deadline=None)
@given(st.lists(with_previews(), max_size=4))
def test_records_come_back_from_arrow_as_they_went(rows: list[Record]) -> None:
    table = records_to_table(rows, created_at=NOW)
    assert table.schema == TABLE
    assert table_to_records(table) == rows


def test_a_record_has_a_field_for_every_column_and_no_other() -> None:
    assert tuple(Record.__dataclass_fields__) == COLUMNS


def test_a_stream_brings_its_size_and_digest() -> None:
    record = Record(key="a", stream=b"abc")
    assert (record.stream_size, record.stream_sha256) == (3, hashlib.sha256(b"abc").digest())


def test_the_time_of_writing_fills_in_where_none_is_given() -> None:
    (record,) = table_to_records(records_to_table([image("a")], created_at=NOW))
    assert record.created_at == NOW


def test_numpy_values_are_taken() -> None:
    record = Record(key="a", psnr=np.float32(31.5), width=np.int64(7))
    (back,) = table_to_records(records_to_table([record], created_at=NOW))
    assert (back.psnr, back.width) == (31.5, 7)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (Record(key=""), "empty"),
        (Record(key="a\udcff"), "Unicode"),
        (Record(key="a"), "no stream"),
        (Record(key="a", stream=b"x"), "no codec"),
        (Record(key="a", status="fine", codec="lossy", stream=b"x"), "status"),
        (Record(key="a", status="quarantined"), "error code"),
        (Record(key="a", codec="lossy", stream=b"x", stream_sha256=b"0" * 32), "not the digest"),
        (Record(key="a", codec="lossy", stream=b"x", stream_size=2), "stream_size"),
        (Record(key="a", codec="lossy", stream=b"x", source_sha256=b"short"), "5 bytes"),
        (Record(key="a", codec="lossless", stream=b"xyz", preview=b"y"), "not the beginning"),
        (Record(key="a", codec="lossless", stream=b"xyz", preview=b""), "not the beginning"),
        (Record(key="a", codec="lossless", stream=b"xyz", preview=b"xyzz"), "not the beginning"),
        (Record(key="a", codec="lossless", stream=b"xyz", preview=b"xy", preview_size=3), "preview_size"),
        (Record(key="a", codec="lossless", stream=b"xyz", preview_size=1), "preview_size"),
        (Record(key="a", codec="lossy", stream=b"x", created_at=dt.datetime(2026, 1, 1)), "time zone"),
    ],
)
def test_a_record_that_breaks_a_rule_is_refused_by_name(record: Record, problem: str) -> None:
    with pytest.raises(InvalidRecord, match=problem):
        check_record(record)


def test_a_value_that_no_column_holds_names_its_record() -> None:
    wide = Record(key="wide", status="quarantined", error_code="x", width=2**40)
    with pytest.raises(InvalidRecord, match="wide"):
        records_to_table([quarantined("a"), wide], created_at=NOW)


def test_a_schema_may_have_more_columns_and_other_widths_but_only_those_less_that_came_later() -> None:
    for name in LATER_COLUMNS:
        assert schema_problem(TABLE.remove(TABLE.get_field_index(name))) is None
    wider = TABLE.append(pa.field("later", pa.int8())).set(3, pa.field("stream", pa.binary()))
    assert schema_problem(wider) is None
    assert "column psnr is missing" in str(schema_problem(TABLE.remove(TABLE.get_field_index("psnr"))))
    assert "column width has type string" in str(
        schema_problem(TABLE.set(TABLE.get_field_index("width"), pa.field("width", pa.string())))
    )
