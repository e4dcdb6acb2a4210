"""An archive whose rows have a stamp, and its recompression with another one, for several files of tests."""

import pytest
from engine_fakes import fill
from recompress_fakes import STAMP, StampSettings, stamped

from recbatch.archive import Archive
from recbatch.engine import compress, recompress
from recbatch.engine.driver import Tuning

QUICK = Tuning(poll_s=0.02, backoff_s=0.01, setup_s=60)


@pytest.fixture
def place(tmp_path):
    """A source, an archive of it with the stamp "one", and what was written, by key."""
    written = fill(tmp_path / "in", [f"{number}.png" for number in range(6)])
    compress(
        str(tmp_path / "in"),
        str(tmp_path / "archive"),
        settings=StampSettings(),
        executor="inline",
        codec_factory=STAMP,
        tuning=QUICK,
    )
    return tmp_path, written


def again(folder, *, executor="inline", stamp="two", bad="\0", kill="\0", tuning=QUICK, **options):
    return recompress(
        str(folder / "archive"),
        settings=StampSettings(stamp=stamp, bad=bad, kill=kill),
        executor=executor,
        codec_factory=STAMP,
        tuning=tuning,
        **options,
    )


def streams(folder, version=None):
    return {row.key: row.stream for row in Archive.open(str(folder / "archive"), version=version).records()}


def all_stamped(written, stamp, **others):
    return {key: stamped(others.get(key[0], stamp), data) for key, data in written.items()}
