"""Which rows have the settings that are asked for, and which are to be coded again."""

from dataclasses import replace

import pytest

from recbatch.archive import Record
from recbatch.codec import Settings
from recbatch.engine.recompress_plan import Wanted

LOSSY = {"codec": "lossy", "model": "aa", "quality": 40.3, "level": 13, "effort": 5, "coder": "trellis"}


LOSSLESS = {"codec": "lossless", "model": "aa", "effort": 5, "coder": "trellis", "preview_size": 9}


@pytest.mark.parametrize(
    ("settings", "row", "has"),
    [
        ({"mode": "lossy", "level": 12.5}, LOSSY, True),
        ({"mode": "lossy", "level": 12.625}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5, "effort": 6}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5, "coder": "irec"}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5}, {**LOSSY, "model": "bb"}, False),
        (
            {"mode": "lossy", "level": 12.5},
            {**LOSSY, "quality": None},
            False,
        ),  # an early archive: it may be 13
        ({"mode": "lossy", "level": 12.5, "auto": True}, LOSSY, False),
        ({"mode": "lossy", "bpp": 0.5}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5, "keep_originals": "always"}, LOSSY, False),
        ({"mode": "lossy", "level": 12.5}, LOSSLESS, False),
        ({"mode": "lossless"}, LOSSLESS, True),
        ({"mode": "lossless", "preview": False}, LOSSLESS, False),
        ({"mode": "lossless"}, {**LOSSLESS, "preview_size": None}, False),
        ({"mode": "lossless", "exact_files": True}, LOSSLESS, False),
        ({"mode": "lossless", "effort": 4}, LOSSLESS, False),
        ({"mode": "lossless"}, {"codec": "jpeg"}, True),
        ({"mode": "lossless", "keep_originals": "never"}, {"codec": "jpeg"}, False),
        ({"mode": "lossless"}, {"codec": "original"}, False),
        ({"mode": "original"}, {"codec": "original"}, True),
        ({"mode": "original"}, LOSSLESS, False),
    ],
)
def test_a_row_of_compress_is_judged_by_its_columns(settings, row, has):
    wanted = Wanted(settings=Settings(**settings), models=() if settings["mode"] == "original" else ("aa",))
    assert wanted.has(Record(key="k", shard="000000", **row)) is has
    assert wanted.has(Record(key="k", shard=f"recompress-{wanted.mark}000000", **row))
    again = Record(key="k", shard=f"recompress-lossy-{wanted.mark}000000", **row)
    assert not wanted.has(again)
    assert replace(wanted, lossy_again=True).has(again)
