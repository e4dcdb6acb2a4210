"""Tests against a real S3 server on loopback."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "engine"), str(HERE.parent / "archive")]

from s3_fixtures import as_user, bucket, proxy, seaweed  # noqa: E402

__all__ = ["as_user", "bucket", "proxy", "seaweed"]
