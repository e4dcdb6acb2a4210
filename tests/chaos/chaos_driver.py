"""One run of compress as a process of its own, to be killed: events go to standard output, one a line."""

import sys

from engine_fakes import CODEC, FakeSettings

from recbatch.engine import compress
from recbatch.engine.driver import Tuning
from recbatch.errors import RecbatchError


def main() -> int:
    source, archive, executor, sleep_s = sys.argv[1:5]
    try:
        report = compress(
            source,
            archive,
            settings=FakeSettings(sleep_s=float(sleep_s)),
            workers=2,
            executor=executor,
            shard_bytes=500,
            codec_factory=CODEC,
            tuning=Tuning(poll_s=0.05, backoff_s=0.01, commit_shards=3),
            progress=lambda event: print(type(event).__name__, flush=True),
        )
    except RecbatchError as error:
        print(f"{error.code}: {error}", flush=True)
        return error.exit_status
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
