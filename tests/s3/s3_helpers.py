"""Objects in a bucket, and jobs on them with the fake codec."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
from engine_fakes import CODEC, FakeSettings

from recbatch import s3
from recbatch.engine import Report, compress
from recbatch.engine.driver import Tuning
from recbatch.engine.remote import find_remote
from recbatch.engine.source import Choice, Item, Tally

QUICK = Tuning(poll_s=0.02, backoff_s=0.01, setup_s=60)


def data_of(key: str, size: int = 100) -> bytes:
    """Distinct bytes for a key, the same each time."""
    return (hashlib.sha256(key.encode()).digest() * (size // 32 + 1))[:size]


def put(bucket: str, key: str, data: bytes) -> str:
    """Put an object exactly so; returns its ETag."""
    tag: str = s3.account().client().put_object(Bucket=bucket, Key=key, Body=data)["ETag"]
    return tag.strip('"')


def put_all(bucket: str, keys: Iterable[str], size: int = 100) -> dict[str, bytes]:
    """Ordinary keys only: obstore is ten times as fast as botocore here, but can't name all."""
    written = {key: data_of(key, size) for key in keys}
    store = s3.account().bucket(bucket)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda item: obstore.put(store, *item), written.items()))
    return written


def found(source: str, *include: str) -> tuple[list[Item], Tally]:
    tally = Tally()
    return list(find_remote(source, Choice(include=include).takes, tally)), tally


def run(source: str, archive: str | Path, *, executor: str = "inline", **options: Any) -> Report:
    return compress(
        source,
        str(archive),
        settings=options.pop("settings", FakeSettings()),
        executor=executor,
        tuning=options.pop("tuning", QUICK),
        codec_factory=CODEC,
        **options,
    )
