"""Tests of schedules; some of them against a real S3 server on loopback."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "s3"), str(HERE.parent / "cluster")]

from s3_fixtures import as_user, bucket, seaweed  # noqa: E402

__all__ = ["as_user", "bucket", "seaweed"]
