"""A job for a cluster: images before 'z' are done at once, the others once the gate stands open (a file)."""

import sys
import time
from pathlib import Path

from engine_fakes import FakeCodec, FakeSettings

from recbatch.engine import compress
from recbatch.engine.driver import Tuning


class GatedCodec(FakeCodec):
    def _encode(self, source):
        while source.name.startswith("z") and not Path(self.settings.once).exists():
            time.sleep(0.05)
        return super()._encode(source)


def tell(event):
    print(type(event).__name__, getattr(event, "images", ""), flush=True)


def main() -> int:
    source, archive, gate = sys.argv[1:4]
    report = compress(
        source,
        archive,
        settings=FakeSettings(once=gate),
        workers=1,
        shard_bytes=500,
        codec_factory="gated_job:GatedCodec",
        tuning=Tuning(poll_s=0.05, setup_s=300, stop_s=1),  # the gate does not look for a stop
        progress=tell,
    )
    print("interrupted" if report.interrupted else "complete", report.images, flush=True)
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
