"""Files are read and decoded ahead, and come by their shapes; what becomes of an image depends on none of it."""

import io
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recbatch.archive import Archive
from recbatch.codec import ImageCodec, Settings
from recbatch.codec.types import Source
from recbatch.engine import feed as feeding
from recbatch.engine.actor import EncodeJob
from recbatch.engine.feed import Feed, Ready
from recbatch.engine.plan import Shard
from recbatch.engine.results import Clock
from recbatch.engine.source import Item
from recbatch.engine.watch import Watch
from recbatch.errors import ImageError


def items_of(folder: Path, contents: dict[str, bytes]) -> list[Item]:
    folder.mkdir()
    items = []
    for key, data in contents.items():
        path = folder / key
        path.write_bytes(data)
        items.append(Item(key=key, uri=path.as_uri(), size=len(data), mtime_ns=path.stat().st_mtime_ns))
    return items


class Shaped:
    """A codec whose images say their size: b"3x2"."""

    def __init__(self):
        self.decoding, self.most, self.threads = 0, 0, set()

    def shape_of(self, content):
        return tuple(int(side) for side in content.data.split(b"x")) if b"x" in content.data else ()

    def prepare(self, content):
        self.threads.add(threading.current_thread().name)
        if content.name == "0007":
            raise MemoryError
        return f"decoded {content.name}"


def run(codec, items, **options):
    return list(Feed(codec, **options).batches(items, Clock()))


def test_images_of_one_shape_come_together_and_each_comes_once(tmp_path):
    shapes = [b"30x20", b"20x30", b"64x64"]
    items = items_of(tmp_path / "in", {f"{n:04d}": shapes[n % 3] for n in range(150)})
    (tmp_path / "in" / "0005").unlink()
    codec = Shaped()
    batches = run(codec, items)
    runs = [[outcome.content.data for outcome in batch if isinstance(outcome, Ready)] for batch in batches]
    changes = sum(a != b for run in runs for a, b in pairwise(run))
    assert changes == 2 * 3  # three windows, in each of which the shape changes twice
    keys = [outcome.item.key for batch in batches for outcome in batch if isinstance(outcome, Ready)]
    ((missing, error),) = [
        outcome for batch in batches for outcome in batch if not isinstance(outcome, Ready)
    ]
    assert (missing.key, isinstance(error, ImageError)) == ("0005", True)
    assert sorted([*keys, "0005"]) == [item.key for item in items]
    assert all("decode" in name for name in codec.threads)


def test_what_a_thread_could_not_decode_the_codec_gets_as_a_file(tmp_path):
    items = items_of(tmp_path / "in", {f"{n:04d}": b"4x4" for n in range(9)})
    ready = {outcome.item.key: outcome for batch in run(Shaped(), items) for outcome in batch}
    assert ready["0007"].source is ready["0007"].content
    assert ready["0006"].source == "decoded 0006"


def test_a_batch_holds_so_many_pixels_and_large_images_wait_for_the_codec(tmp_path, monkeypatch):
    monkeypatch.setattr(feeding, "AHEAD_PIXELS", 300)
    sizes = [b"5x5"] * 10 + [b"10x20", b"20x20"]
    items = items_of(tmp_path / "in", {f"{n:04d}": size for n, size in enumerate(sizes)})
    batches = run(Shaped(), items, batch_pixels=100)
    assert [len(batch) for batch in batches] == [4, 4, 2, 1, 1]
    assert [str(batch[0].source).startswith("decoded") for batch in batches] == [True] * 4 + [False]


def test_the_next_batch_is_decoded_while_one_is_encoded(tmp_path):
    decoded = {f"{n:04d}": threading.Event() for n in range(4)}

    class Telling(Shaped):
        def prepare(self, content):
            decoded[content.name].set()
            return super().prepare(content)

    items = items_of(tmp_path / "in", dict.fromkeys(decoded, b"3x3"))
    batches = Feed(Telling(), batch_pixels=10).batches(items, Clock())
    assert next(batches)[0].item.key == "0000"
    assert decoded["0001"].wait(60)  # though nobody has asked for it
    assert not decoded["0002"].is_set()
    assert len(list(batches)) == 3


def test_a_codec_that_offers_nothing_gets_files(tmp_path):
    items = items_of(tmp_path / "in", {"a": b"3x3", "b": b"4x4"})
    ((first, second),) = run(object(), items)
    assert (first.source, second.source) == (first.content, second.content)


@pytest.mark.parametrize("mode", ["lossless", "lossy"])
def test_streams_do_not_depend_on_what_stands_beside_an_image(tmp_path, mode):
    rng = np.random.default_rng(3)
    contents = {}
    for number in range(10):
        height, width = [(40, 56), (56, 40), (24, 24)][number % 3]
        ramp = np.linspace(0, 200, width)[None, :, None] + rng.integers(0, 50, (height, width, 3))
        out = io.BytesIO()
        Image.fromarray(ramp.astype(np.uint8)).save(out, "JPEG" if number == 5 else "PNG")
        contents[f"{number:04d}.png"] = out.getvalue()
    contents["0010.png"] = b"no image"
    items = items_of(tmp_path / "in", contents)
    Archive.create(str(tmp_path / "archive"))
    settings = Settings(mode=mode, level=8.0) if mode == "lossy" else Settings(mode=mode)
    job = EncodeJob(archive=str(tmp_path / "archive"), settings=settings, job="compress")
    job.build().run(Shard(name="000000", items=tuple(items)), Watch())
    (file,) = (tmp_path / "archive").rglob("*.parquet")

    import pyarrow.parquet as pq

    rows = pq.ParquetFile(file).read().to_pylist()
    found = {row["key"]: (row["preview"] or b"") + (row["stream"] or b"") for row in rows}
    codec = ImageCodec(settings)
    for key, data in list(contents.items())[:-1]:
        (alone,) = codec.encode([Source(name=key, data=data)])
        assert found[key] == alone.stream, key
    assert found["0010.png"] == b""
    assert list(found) == sorted(contents)
