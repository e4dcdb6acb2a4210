"""Golden lossless streams must decode, pixel for pixel, by code that knows only docs/format.md."""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import alpha, container, lossless, mixtures, stages
from .errors import Corrupt, Unsupported
from .stages import LosslessWeights, load_lossless
from .weights import Weights, load_weights

GOLDEN = Path(__file__).parents[1] / "golden"
CASES: dict[str, Any] = json.loads((GOLDEN / "lossless" / "cases.json").read_text())


@pytest.fixture(scope="module")
def exact() -> LosslessWeights:
    """The model of the golden streams."""
    return load_lossless(GOLDEN / "model" / "tiny-exact.safetensors")


@pytest.fixture(scope="module")
def photo() -> Weights:
    """The model of their previews."""
    return load_weights(GOLDEN / "model" / "tiny.safetensors")


def read(name: str) -> bytes:
    return (GOLDEN / "lossless" / f"{name}.rec").read_bytes()


def pixels_digest(image: lossless.Image) -> str:
    planes = image.pixels_HWC.astype(np.uint8).tobytes()
    return hashlib.sha256(planes + (b"" if image.alpha_HW is None else image.alpha_HW.tobytes())).hexdigest()


def test_golden_files_are_there() -> None:
    assert {path.stem for path in (GOLDEN / "lossless").glob("*.rec")} == set(CASES)
    modes = {container.parse(read(name))[0].mode for name in CASES}
    assert modes == {"L", "LA", "RGB", "RGBA"}
    assert {container.parse(read(name))[0].level for name in CASES} == {0, 1, 2}


@pytest.mark.parametrize("name", CASES)
def test_stream(name: str, exact: LosslessWeights, photo: Weights) -> None:
    assert pixels_digest(lossless.decode(read(name), exact, photo)) == CASES[name]["pixels"]


def rewritten(data: bytes, level: int | None = None, **sections: bytes) -> bytes:
    """A stream with other sections or another variant, its checksum right; "" leaves a section out."""
    header, held = container.parse(data)
    named = {getattr(container, name.upper()): section for name, section in sections.items()}
    kept = {kind: section for kind, section in sorted((held | named).items()) if section}
    start = data.index(header.pixels_digest) + 4
    head = bytearray(data[:start])
    head[start - 9] = header.level if level is None else level
    listed = varint(sum(1 << (kind - 1) for kind in kept))
    lengths = b"".join(varint(len(section)) for section in list(kept.values())[:-1])
    body = bytes(head) + listed + lengths + b"".join(kept.values())
    return body + struct.pack("<I", zlib.crc32(body))


def varint(value: int) -> bytes:
    """The shortest spelling."""
    groups = [value >> at & 127 for at in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


def residual(data: bytes) -> bytes:
    return container.parse(data)[1][container.RESIDUAL]


def tuned_by(data: bytes, mask: int, numbers: bytes) -> bytes:
    """The residual of an untuned grey image, with a tuning."""
    whole = residual(data)
    assert whole[1] == 0
    return whole[:1] + varint(mask) + numbers + whole[2:]


def untuned(data: bytes) -> bytes:
    """The residual of a tuned grey image without its tuning."""
    reader = container.Reader(residual(data))
    first = reader.take(1)
    assert lossless.read_tunings(reader).any()
    return first + b"\0" + reader.take(reader.left)


EDITS: list[tuple[str, str, Callable[[bytes], bytes]]] = [
    ("variant 3", "plain", lambda data: rewritten(data, level=3)),
    ("a variant that knows a preview", "plain", lambda data: rewritten(data, level=1)),
    ("a variant that knows none", "preview", lambda data: rewritten(data, level=0)),
    ("no preview", "preview", lambda data: rewritten(data, latents=b"")),
    ("a preview nobody asked for", "plain", lambda data: rewritten(data, latents=read("preview")[27:-4])),
    ("another variant's networks", "small-alpha", lambda data: rewritten(data, level=0)),
    ("a zero byte more", "one-row", lambda data: rewritten(data, residual=residual(data) + b"\0")),
    ("words more", "one-row", lambda data: rewritten(data, residual=residual(data) + b"\1" * 8)),
    (
        "a tuned plane that no level has",
        "one-column",
        lambda data: rewritten(data, residual=tuned_by(data, 1 << 27, b"")),
    ),
    ("a tuning cut short", "one-column", lambda data: rewritten(data, residual=b"a" + varint(1) + bytes(17))),
    ("a tuning left out", "plain-grey", lambda data: rewritten(data, residual=untuned(data))),
    ("a variant, and no model", "pixels-webp", lambda data: rewritten(data, level=1)),
    ("a preview, and no model", "pixels-webp", lambda data: rewritten(data, latents=read("preview")[27:-4])),
    ("both codes", "pixels-webp", lambda data: rewritten(data, residual=b"x")),
    ("no code", "plain", lambda data: rewritten(data, residual=b"")),
    ("half a WebP", "pixels-webp", lambda data: rewritten(data, pixels=container.parse(data)[1][6][:150])),
    ("less than a pixel", "one-row", lambda data: rewritten(data, residual=b"\1\2")),
    ("a lane beyond the end", "lanes-and-bands", lambda data: rewritten(data, residual=b"rgb\xff\x7f\0\0")),
    ("a first pixel changed", "one-row", lambda data: rewritten(data, residual=b"\0" + residual(data)[1:])),
    ("half of it", "one-row", lambda data: rewritten(data, residual=residual(data)[:150])),
]


@pytest.mark.parametrize(("name", "edit"), [edit[1:] for edit in EDITS], ids=[edit[0] for edit in EDITS])
def test_what_no_writer_makes_is_refused(
    name: str, edit: Callable[[bytes], bytes], exact: LosslessWeights, photo: Weights
) -> None:
    data = read(name)
    assert rewritten(data) == data
    with pytest.raises(Corrupt):
        lossless.decode(edit(data), exact, photo)


def test_tuning_of_a_plane_that_is_not_there_changes_nothing(exact: LosslessWeights) -> None:
    """A column has pixels of stage C alone; level 2 has others than level 3, and these are never tuned."""
    data = read("one-column")
    numbers = bytes(range(119, 137)) * 2
    edited = rewritten(data, residual=tuned_by(data, 1 | 1 << 25, numbers))
    assert pixels_digest(lossless.decode(edited, exact)) == CASES["one-column"]["pixels"]


def test_some_golden_streams_are_tuned() -> None:
    """All components of level 0, and planes of level 1."""
    used = np.zeros((4, 3, 3), bool)
    for name in CASES:
        header, sections = container.parse(read(name))
        if name != "two-tiles" and container.RESIDUAL in sections:
            reader = container.Reader(sections[container.RESIDUAL])
            reader.take(3 if header.mode.startswith("RGB") else 1)
            used |= lossless.read_tunings(reader).any(axis=-1)
    assert used[0].all()
    assert used[1].any()


def test_preview_of_another_size_or_codec_is_refused(exact: LosslessWeights, photo: Weights) -> None:
    data = read("preview")
    sections = container.parse(data)[1]
    other = (GOLDEN / "codec" / "trellis.rec").read_bytes()
    for wrong in (other, read("one-pixel"), sections[container.LATENTS][:-1]):
        with pytest.raises(Corrupt):
            lossless.decode(rewritten(data, latents=wrong), exact, photo)


def test_other_models_are_unsupported(exact: LosslessWeights, photo: Weights) -> None:
    data = bytearray(read("one-row"))
    at = data.index(exact.digest[:4])
    data[at] ^= 1
    data[-4:] = struct.pack("<I", zlib.crc32(data[:-4]))
    with pytest.raises(Unsupported):
        lossless.decode(bytes(data), exact, photo)


@pytest.mark.parametrize("bounds", [(0, 255), (-255, 255)])
def test_every_value_has_a_unit(bounds: tuple[int, int], exact: LosslessWeights) -> None:
    rng = np.random.default_rng(3)
    low, high = bounds
    for _ in range(30):
        raw = rng.integers(-2048, 2048, 9).tolist()
        law = mixtures.Mixture(raw, int(rng.integers(16 * low, 16 * high)), bounds, exact.law)
        below = [law.below(value) for value in range(low, high + 2)]
        assert (below[0], below[-1]) == (0, mixtures.UNITS)
        assert min(np.diff(below)) >= 1


def test_every_filter_of_alpha_is_known() -> None:
    rng = np.random.default_rng(4)
    plane = rng.integers(0, 256, (5, 7), np.uint8)
    rows, above = [], np.zeros(8, np.int64)
    for number, row in enumerate(plane.astype(np.int64)):
        left = np.concatenate([[0], row])
        guesses = [
            0 * row,
            left[:-1],
            above[1:],
            (left[:-1] + above[1:]) >> 1,
            [
                alpha.paeth(*near)
                for near in zip(left[:-1].tolist(), above[1:].tolist(), above[:-1].tolist(), strict=True)
            ],
        ]
        rows.append(bytes([number]) + ((row - guesses[number]) & 255).astype(np.uint8).tobytes())
        above = left
    chunk = zlib.compress(b"".join(rows))
    png = b"8 letters"[:8] + struct.pack(">I", len(chunk)) + b"IDAT" + chunk + bytes(4)
    assert (alpha.read_alpha(png, 7, 5) == plane).all()


def test_stages_look_around_their_pixel() -> None:
    plane = np.arange(64).reshape(1, 8, 8)
    for number, (_, (p, q), taps) in enumerate(stages.STAGES):
        seen = stages.taps_of(plane, number)[:, 0, 2 - p, 2 - q]
        row, column = 2 * (2 - p) + p, 2 * (2 - q) + q
        away = [(int(v) // 8 - row, int(v) % 8 - column) for v in seen]
        assert len(set(away)) == len(taps) == (16, 24, 36)[number]
        assert (
            sum(abs(i) + abs(j) == (2 if number == 0 else 1) for i, j in away) == 4
        )  # the nearest are all there


def test_joined_parts() -> None:
    assert lossless.joined(b"", 1) == [b""]
    assert lossless.joined(b"\2\0abcd", 3) == [b"ab", b"", b"cd"]
    with pytest.raises(Corrupt):
        lossless.joined(b"\5\0abcd", 3)
