"""JPEG files recoded: the very same file comes back, whatever the file; damage is an error with a name."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pictures import file_of, photograph
from PIL import Image, ImageCms

from recbatch.codec import jpeg, jpeg_xl, lepton, native
from recbatch.codec.jpeg_header import read_frame
from recbatch.errors import CorruptStream
from recbatch.stream import StreamTooLarge

PHOTOGRAPHS = sorted((Path(__file__).parents[2] / "docs" / "demo" / "photographs").glob("*.jpg"))
HAS_LEPTON = native.library("lepton_jpeg_python") is not None
needs_lepton = pytest.mark.skipif(not HAS_LEPTON, reason="lepton-jpeg-python is not installed")
METHODS = ["jxl", pytest.param("lepton", marks=needs_lepton)]

SCENE = photograph(160, 120)
PLAIN = file_of(SCENE, "JPEG")
FRAME_AT = PLAIN.index(b"\xff\xc0")


def with_metadata() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return file_of(SCENE, "JPEG", exif=exif, icc_profile=profile, xmp=b"<x:xmpmeta/>", comment=b"hello")


def two_pictures() -> bytes:
    return file_of(SCENE, "MPO", save_all=True, append_images=[photograph(160, 120, seed=1)])


def patched(offset: int, patch: bytes) -> bytes:
    """The plain file with its frame header changed, counted from the marker."""
    at = FRAME_AT + offset
    return PLAIN[:at] + patch + PLAIN[at + len(patch) :]


# each of these is a whole JPEG that libjxl represents
WHOLE: dict[str, Callable[[], bytes]] = {
    "baseline": lambda: PLAIN,
    "progressive": lambda: file_of(SCENE, "JPEG", progressive=True),
    "optimised": lambda: file_of(SCENE, "JPEG", optimize=True, subsampling=1),
    "4:4:4 at quality 100": lambda: file_of(SCENE, "JPEG", quality=100, subsampling=0),
    "quality 1": lambda: file_of(SCENE, "JPEG", quality=1),
    "rgb": lambda: file_of(SCENE, "JPEG", keep_rgb=True),
    "grey": lambda: file_of(photograph(96, 72, "L"), "JPEG"),
    "restart markers": lambda: file_of(SCENE, "JPEG", restart_marker_blocks=2),
    "metadata": with_metadata,
    "two pictures": two_pictures,
    "a file behind it": lambda: PLAIN + file_of(SCENE, "JPEG", quality=20),
    "fill bytes": lambda: PLAIN[:2] + b"\xff" * 40 + PLAIN[2:],
}
# and these are odd: recoded or not, but never wrong
ODD: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "the first bytes": lambda: b"\xff\xd8\xff",
    "random": lambda: random.Random(0).randbytes(5000),
    "random behind a start": lambda: b"\xff\xd8\xff" + random.Random(1).randbytes(5000),
    "nothing but fill bytes": lambda: b"\xff\xd8" + b"\xff" * 2_000_000,
    "png": lambda: file_of(SCENE),
    "one pixel": lambda: file_of(photograph(1, 1), "JPEG"),
    "one grey pixel": lambda: file_of(photograph(1, 1, "L"), "JPEG"),
    "a row": lambda: file_of(Image.new("L", (20_000, 1), 77), "JPEG"),
    "flat": lambda: file_of(Image.new("RGB", (900, 600), (9, 99, 200)), "JPEG"),
    "cmyk": lambda: file_of(SCENE.convert("CMYK"), "JPEG"),
    "cut in the middle": lambda: PLAIN[: len(PLAIN) // 2],
    "progressive, cut": lambda: file_of(SCENE, "JPEG", progressive=True)[:-400],
    "without an end": lambda: PLAIN[:-2],
    "cut in the header": lambda: PLAIN[: FRAME_AT + 6],
    "megabytes of zeros behind it": lambda: PLAIN + bytes(3_000_000),
    "a megabyte of noise behind it": lambda: PLAIN + random.Random(2).randbytes(1_000_000),
    "a large profile that is none": lambda: file_of(SCENE, "JPEG", icc_profile=bytes(200_000)),
    "two starts": lambda: b"\xff\xd8" + PLAIN,
    "two frames": lambda: PLAIN[:FRAME_AT] + PLAIN[FRAME_AT : FRAME_AT + 19] + PLAIN[FRAME_AT:],
    "says lossless": lambda: patched(1, b"\xc3"),
    "says arithmetic": lambda: patched(1, b"\xc9"),
    "says 12 bits": lambda: patched(4, b"\x0c"),
    "says no height": lambda: patched(5, b"\0\0"),
    "says four times the size": lambda: patched(5, struct.pack(">HH", 240, 320)),
    "says 60000 a side": lambda: patched(5, struct.pack(">HH", 60000, 60000)),
}


@pytest.fixture
def without_lepton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lepton, "library", lambda name: None)


def recoded(data: bytes, method: str) -> bytes:
    frame = read_frame(data)
    assert frame is not None
    made = jpeg_xl.encode(data) if method == "jxl" else lepton.encode(data, frame)
    assert made is not None
    return made


def check(data: bytes) -> jpeg.Recoded | None:
    """Recode; what comes is smaller, known again and gives the file back."""
    found = jpeg.recode(data)
    if found is not None:
        assert len(found.data) < len(data)
        assert jpeg.is_recoded(found.data)
        assert not jpeg.is_jpeg(found.data)
        assert jpeg.restore(found.data) == data
    return found


def outcome(stream: bytes) -> str:
    """What restoring damaged bytes comes to: another JPEG, or an error with a name."""
    try:
        assert jpeg.is_jpeg(jpeg.restore(stream))
    except (CorruptStream, StreamTooLarge) as e:
        return e.code
    return "restored"


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.long] * (n > 0), id=p.stem) for n, p in enumerate(PHOTOGRAPHS)],
)
def test_a_photograph_gets_smaller_and_comes_back(path: Path) -> None:
    data = path.read_bytes()
    found = check(data)
    assert found is not None
    assert len(found.data) < 0.9 * len(data)


@pytest.mark.usefixtures("without_lepton")
def test_jpeg_xl_alone_makes_photographs_smaller() -> None:
    found = check(PHOTOGRAPHS[1].read_bytes())
    assert found is not None
    assert found.method == "jxl"


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_jpeg_of_any_kind_comes_back_from_jpeg_xl(kind: str) -> None:
    data = WHOLE[kind]()
    assert jpeg.restore(recoded(data, "jxl")) == data
    check(data)


@needs_lepton
@pytest.mark.parametrize("kind", sorted(WHOLE.keys() - {"fill bytes"}))
def test_a_whole_jpeg_of_any_kind_comes_back_from_lepton(kind: str) -> None:
    data = WHOLE[kind]()
    assert jpeg.restore(recoded(data, "lepton")) == data


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_recoded_exactly_or_not_at_all(kind: str) -> None:
    check(ODD[kind]())


@pytest.mark.parametrize(
    "kind", ["says 60000 a side", "says no height", "nothing but fill bytes", "cut in the header"]
)
def test_no_library_sees_a_file_that_would_exhaust_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "attempt", None)
    monkeypatch.setattr(jpeg, "_candidates", None)
    assert jpeg.recode(ODD[kind]()) is None


def test_files_with_more_pixels_than_allowed_stay_as_they_are() -> None:
    assert jpeg.recode(PLAIN, max_pixels=160 * 120 - 1) is None
    assert jpeg.recode(PLAIN, max_pixels=160 * 120) is not None


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    mode=st.sampled_from(["L", "RGB"]),
    quality=st.integers(1, 100),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
    restart=st.integers(0, 4),
)
def test_any_size_quality_and_subsampling_comes_back(
    width: int, height: int, mode: str, quality: int, subsampling: int, progressive: bool, restart: int
) -> None:
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    data = file_of(photograph(width, height, mode), "JPEG", restart_marker_blocks=restart, **options)
    check(data)
    assert jpeg.restore(recoded(data, "jxl")) == data


def test_the_smallest_proved_candidate_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    good = recoded(PLAIN, "jxl")
    other = recoded(file_of(SCENE, "JPEG", quality=5), "jxl")  # smaller, but of another file
    made = [
        jpeg.Recoded(data=d, method=m) for d, m in [(other, "jxl"), (good, "jxl"), (good + b"\0", "lepton")]
    ]
    monkeypatch.setattr(jpeg, "_candidates", lambda data, frame: iter(made))
    assert jpeg.recode(PLAIN) == made[1]


@pytest.mark.usefixtures("without_lepton")
def test_a_library_that_lies_fails_or_panics_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def library(answer: object) -> object:
        def call(*args: object, **options: object) -> object:
            if isinstance(answer, BaseException):
                raise answer
            return answer

        codec = SimpleNamespace(available=True)
        return SimpleNamespace(JPEGXL=codec, jpegxl_encode_jpeg=call, jpegxl_decode_jpeg=call)

    for answer in (
        RuntimeError("no"),
        PanicException("at the disco"),
        MemoryError(),
        b"",
        b"short",
        jpeg_xl.MAGIC,
    ):
        monkeypatch.setattr(jpeg_xl, "library", lambda name, answer=answer: library(answer))
        assert jpeg.recode(PLAIN) is None
    monkeypatch.setattr(jpeg_xl, "library", lambda name: library(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        jpeg.recode(PLAIN)


@pytest.mark.usefixtures("without_lepton")
def test_without_the_packages_nothing_is_recoded_and_a_stream_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = recoded(PLAIN, "jxl")
    for package in (None, SimpleNamespace(JPEGXL=SimpleNamespace(available=False))):
        monkeypatch.setattr(jpeg_xl, "library", lambda name, package=package: package)
        assert jpeg.recode(PLAIN) is None
        with pytest.raises(native.MissingRecoder, match="pip install 'imagecodecs'"):
            jpeg.restore(stream)
    packed = zlib.compress(b"HDR" + struct.pack("<I", len(PLAIN) - 2) + PLAIN[2:])
    with pytest.raises(native.MissingRecoder, match=r"pip install 'recbatch\[lepton\]'"):
        jpeg.restore(lepton.MAGIC.ljust(20, b"\0") + struct.pack("<II", len(PLAIN), len(packed)) + packed)


@pytest.mark.parametrize("method", METHODS)
def test_bytes_do_not_depend_on_threads_or_on_the_process(method: str) -> None:
    if method == "jxl":
        here = recoded(PLAIN, "jxl")
        for threads in (0, 1, 3):
            assert imagecodecs.jpegxl_encode_jpeg(PLAIN, numthreads=threads) == here
            assert imagecodecs.jpegxl_decode_jpeg(here, numthreads=threads) == PLAIN
    else:
        here = recoded(PLAIN, "lepton")
        lepton._pool_owner[:] = [-1]  # as after a fork: a fresh process does it
        try:
            assert recoded(PLAIN, "lepton") == here
            assert jpeg.restore(here) == PLAIN
            assert outcome(here[:-40]) in ("corrupt-stream", "restored")
        finally:
            lepton._pool_owner.clear()


@needs_lepton
def test_a_forked_child_does_not_wait_for_ever() -> None:
    script = """
import os, signal, sys
from recbatch.codec import jpeg
data = sys.stdin.buffer.read()
stream = jpeg.recode(data).data
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(0 if jpeg.restore(stream) == data and jpeg.recode(data).data == stream else 1)
sys.exit(os.waitpid(child, 0)[1] != 0)
"""
    data = file_of(photograph(200, 150, "L"), "JPEG", quality=60)  # Lepton is smaller here
    assert subprocess.run([sys.executable, "-c", script], input=data, timeout=120).returncode == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_cut_stream_is_corrupt(method: str) -> None:
    stream = recoded(PLAIN, method)
    for length in range(0, len(stream) - 8, 23):
        assert outcome(stream[:length]) == "corrupt-stream"


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_stream_is_an_error_or_another_jpeg(method: str) -> None:
    stream = recoded(PLAIN, method)
    outcomes = []
    for seed in range(250):
        rng = random.Random(seed)
        damaged = bytearray(stream)
        for _ in range(rng.choice((1, 1, 4))):
            damaged[rng.randrange(len(stream))] ^= 1 << rng.randrange(8)
        outcomes.append(outcome(bytes(damaged)))
    assert outcomes.count("corrupt-stream") > 60


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", jpeg_xl.MAGIC, lepton.MAGIC, b"\xff\x0a"]))
@example(b"", b"")
def test_bytes_that_are_no_recoded_jpeg_are_corrupt(data: bytes, start: bytes) -> None:
    assert outcome(start + data) == "corrupt-stream"


def test_a_jpeg_xl_picture_without_a_jpeg_in_it_is_not_decoded() -> None:
    stream = imagecodecs.jpegxl_encode(np.asarray(SCENE), lossless=True, usecontainer=True, numthreads=1)
    assert not jpeg.is_recoded(stream)
    assert outcome(stream) == "corrupt-stream"


def test_a_stream_that_the_pillow_plugin_made_comes_back() -> None:
    plugin = pytest.importorskip("pillow_jxl")  # other versions of libjxl lay out the boxes in their own way
    encode = plugin.Encoder("RGB", lossless=True, effort=7, num_threads=0)
    for data in (PLAIN, with_metadata()):
        stream = encode(data, 0, 0, jpeg_encode=True)
        assert jpeg.is_recoded(stream)
        assert jpeg.restore(stream) == data


@pytest.mark.parametrize("first_bytes", [0, 1, 2, 3, 7, 10, 11, 12])
def test_a_size_in_several_boxes_is_seen(first_bytes: int) -> None:
    stream = recoded(PLAIN, "jxl")
    boxes = [(kind, bytes(content)) for kind, content in jpeg_xl._boxes(stream)]
    codestream = b"".join(
        content[4:] if kind == b"jxlp" else content for kind, content in boxes if kind[:3] == b"jxl"
    )
    parts = [
        struct.pack(">I", 0) + codestream[:first_bytes],
        struct.pack(">I", 1 + 2**31) + codestream[first_bytes:],
    ]
    others = [(kind, content) for kind, content in boxes if kind[:3] != b"jxl"]
    made = b"".join(
        struct.pack(">I4s", 8 + len(content), kind) + content
        for kind, content in [*others, *((b"jxlp", part) for part in parts)]
    )
    assert jpeg.restore(made, max_pixels=160 * 120) == PLAIN
    with pytest.raises(StreamTooLarge, match="160 x 120"):
        jpeg.restore(made, max_pixels=160 * 120 - 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_with_more_pixels_than_allowed_is_refused(method: str) -> None:
    stream = recoded(PLAIN, method)
    assert jpeg.restore(stream, max_pixels=160 * 120) == PLAIN
    with pytest.raises(StreamTooLarge, match="160 x 120"):
        jpeg.restore(stream, max_pixels=160 * 120 - 1)


@pytest.mark.parametrize(
    "size", [(160, 120), (1, 1), (8, 8), (256, 128), (300, 200), (17, 600), (20_000, 2), (160, 90)]
)
def test_the_size_read_from_a_stream_is_the_files(size: tuple[int, int]) -> None:
    data = file_of(Image.new("L", size, 100), "JPEG")
    assert jpeg_xl._size(recoded(data, "jxl")) == size
    frame = read_frame(data)
    assert frame is not None
    assert (frame.width, frame.height, frame.components) == (*size, 1)


@pytest.mark.parametrize(
    "header",
    [
        b"HDR" + struct.pack("<I", 2**32 - 1) + PLAIN[2:],
        b"HDR" + struct.pack("<I", len(PLAIN) - 2) + PLAIN[2:] + b"GRB" + struct.pack("<I", 2**31),
        b"HDR" + struct.pack("<I", len(PLAIN) - 2) + PLAIN[2:] + b"CRS" + struct.pack("<I", 2**30) + bytes(8),
        b"HDR" + struct.pack("<I", len(PLAIN) - 2) + PLAIN[2:] + b"HH\xff",
        b"HDR" + struct.pack("<I", len(PLAIN) - 2) + PLAIN[2:] + b"???",
        b"HDR\0\0\0\0",
        b"",
    ],
)
def test_lengths_in_a_lepton_header_are_checked_before_anything_is_allocated(header: bytes) -> None:
    packed = zlib.compress(header)
    stream = lepton.MAGIC.ljust(20, b"\0") + struct.pack("<II", len(PLAIN), len(packed)) + packed
    with pytest.raises(CorruptStream):
        jpeg.restore(stream)


def test_magic_tells_the_forms_apart() -> None:
    assert jpeg.is_jpeg(PLAIN)
    assert not jpeg.is_recoded(PLAIN)
    assert not jpeg.is_jpeg(b"")
    assert not jpeg.is_recoded(b"")
    assert not jpeg.is_recoded("τ is how a Greek text may begin".encode())


@pytest.mark.long
def test_many_damaged_files_and_streams_neither_crash_nor_pass_for_others() -> None:
    files = [make() for make in WHOLE.values()]
    streams = [recoded(data, "jxl") for data in files]
    for seed in range(20_000):
        rng = random.Random(seed)
        damaged = bytearray(rng.choice(files if seed % 2 else streams))
        for _ in range(rng.choice((1, 2, 8))):
            at = rng.randrange(len(damaged))
            if rng.random() < 0.8:
                damaged[at] = rng.randrange(256)
            else:
                del damaged[at : at + rng.randrange(1, 50)]
        if seed % 2:
            check(bytes(damaged))
        else:
            outcome(bytes(damaged))
