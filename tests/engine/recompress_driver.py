"""One recompression as a process of its own, to be killed: events go to standard output, one a line."""

import sys

from recompress_fakes import STAMP, StampSettings

from recbatch.engine import recompress
from recbatch.engine.driver import Tuning
from recbatch.errors import RecbatchError


def main() -> int:
    archive, stamp, sleep_s = sys.argv[1:4]
    try:
        report = recompress(
            archive,
            settings=StampSettings(stamp=stamp, sleep_s=float(sleep_s)),
            workers=2,
            executor="processes",
            shard_bytes=500,
            codec_factory=STAMP,
            tuning=Tuning(poll_s=0.05, backoff_s=0.01, commit_shards=3),
            progress=lambda event: print(type(event).__name__, flush=True),
        )
    except RecbatchError as error:
        print(f"{error.code}: {error}", flush=True)
        return error.exit_status
    print(f"images {report.images} known {report.known}", flush=True)
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
