import pytest
from engine_fakes import CODEC, FakeSettings
from recompress_steps import place

from recbatch.engine import compress
from recbatch.engine.driver import Tuning

__all__ = ["place", "quick_compress"]

QUICK = Tuning(poll_s=0.02, backoff_s=0.01, setup_s=60)


@pytest.fixture
def quick_compress(tmp_path):
    """compress() with the fake codec, in this process unless told otherwise."""

    def run(source, archive=None, *, settings=None, executor="inline", tuning=QUICK, **options):
        return compress(
            str(source),
            str(archive or tmp_path / "archive"),
            settings=settings or FakeSettings(),
            executor=executor,
            tuning=tuning,
            codec_factory=CODEC,
            **options,
        )

    return run
