import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# for this process and its children: the fake codec, the traps, the S3 server
sys.path[:0] = [str(HERE), str(HERE.parent / "engine"), str(HERE.parent / "s3")]
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
    "0"  # before Ray is imported: it listens on the loopback only
)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from chaos_invariants import finish, rows_of  # noqa: E402
from chaos_scenarios import KEYS  # noqa: E402
from engine_fakes import fill  # noqa: E402
from s3_fixtures import as_user, bucket, proxy, seaweed  # noqa: E402

__all__ = ["as_user", "bucket", "proxy", "seaweed"]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The rows that a run makes of the 200 files, one of them bad, when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    fill(folder / "source", KEYS)
    finish(str(folder / "source"), str(folder / "archive"))
    return rows_of(str(folder / "archive"))
