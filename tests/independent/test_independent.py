"""Every golden stream and payload must decode, bit for bit, by code that knows only docs/format.md."""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from . import ancillary, calibration, container, entropy, randomness, stream, trellis
from .digests import array_bytes, short_digest
from .errors import Corrupt, Unsupported
from .networks import Networks
from .weights import Weights, load_weights

GOLDEN = Path(__file__).parents[1] / "golden"
CASES: dict[str, Any] = json.loads((GOLDEN / "codec" / "cases.json").read_text())
STREAMS = [GOLDEN / "codec" / f"{name}.rec" for name in CASES]
CONTAINERS = sorted((GOLDEN / "stream").glob("*.rec"))


def payload_cases(path: Path) -> list[Any]:
    """A file's cases; a large one stands alone, its only part's scales in hexadecimal."""
    content = json.loads(path.read_text())
    if isinstance(content, list):
        return content
    return [content | {"scales": [list(bytes.fromhex(content["scales"]))]}]


PAYLOADS = [
    pytest.param(case, id=f"{path.stem}-{number}")
    for path in sorted((GOLDEN / "rec").glob("*.json"))
    for number, case in enumerate(payload_cases(path))
]


@pytest.fixture(scope="module")
def tiny() -> Weights:
    """The model of most golden streams."""
    return load_weights(GOLDEN / "model" / "tiny.safetensors")


@pytest.fixture(scope="module")
def tiny_groups() -> Weights:
    """The model of the golden streams with groups of channels."""
    return load_weights(GOLDEN / "model" / "tiny-groups.safetensors")


@pytest.fixture
def model(request: pytest.FixtureRequest, path: Path) -> Weights:
    """The model of the stream at a test's `path`; the name says which."""
    return request.getfixturevalue("tiny_groups" if path.stem.startswith("groups") else "tiny")


def decode_payload(case: dict[str, Any], payload: bytes) -> list[np.ndarray]:
    """Residuals of a payload's parts."""
    coder = stream.make_coder(case["number"], bytes.fromhex(case["parameters"]), payload, case["seed"])
    parts = [coder.decode_part(np.array(scales, np.int64)) for scales in case["scales"]]
    coder.finish()
    return parts


def is_right(parts: Sequence[np.ndarray], case: dict[str, Any]) -> bool:
    """Whether these are the case's samples, which large cases name by their digest only."""
    if "samples" in case:
        return [part.tolist() for part in parts] == case["samples"]
    values = b"".join(array_bytes(part, "<i4") for part in parts)
    return hashlib.sha256(values).hexdigest() == case["samples_sha256"]


class Recorder:
    """A coder of zeros that keeps the indices it was asked about."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []

    def decode_part(self, scale_N: np.ndarray) -> np.ndarray:
        self.parts.append(scale_N)
        return np.zeros(len(scale_N), np.int64)

    def finish(self) -> None:
        pass


def resealed(data: bytes) -> bytes:
    """The stream with its checksum made right."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def test_golden_files_are_there() -> None:
    assert len(STREAMS) >= 10
    assert sum(path.stem.startswith("groups") for path in STREAMS) >= 4
    assert set(STREAMS) == set((GOLDEN / "codec").glob("*.rec"))
    assert len(PAYLOADS) >= 9
    assert {path.stem for path in CONTAINERS} >= {"rgb", "la", "ancillary"}


@pytest.mark.parametrize("case", PAYLOADS)
def test_payload(case: dict[str, Any]) -> None:
    assert is_right(decode_payload(case, bytes.fromhex(case["payload"])), case)


@pytest.mark.parametrize("case", PAYLOADS)
def test_damaged_payload_is_refused_or_differs(case: dict[str, Any]) -> None:
    payload = bytearray.fromhex(case["payload"])
    for at in range(0, len(payload), len(payload) // 8):
        damaged = bytearray(payload)
        damaged[at] ^= 1 << at % 8
        try:
            decoded = decode_payload(case, bytes(damaged))
        except Corrupt:
            continue
        assert not is_right(decoded, case)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_stream(path: Path, model: Weights) -> None:
    # decode compares both digests and refuses what is left of the payload
    latents = stream.decode(path.read_bytes(), model)
    assert short_digest(array_bytes(latents.y_MHW, "<i4")).hex() == CASES[path.stem]["samples"]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_digests_are_compared(path: Path, model: Weights) -> None:
    data = path.read_bytes()
    header, _ = container.parse(data)
    for name in ("parameters_digest", "latents_digest"):
        at = data.index(getattr(header, name))
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(Corrupt, match=name.replace("_", " ")):
            stream.decode(resealed(changed), model)


@pytest.mark.parametrize("path", [*STREAMS, *CONTAINERS], ids=lambda path: path.stem)
def test_damaged_or_cut_stream_is_refused(path: Path) -> None:
    data = path.read_bytes()
    container.parse(data)
    for at in range(len(data)):
        with pytest.raises((Corrupt, Unsupported)):
            container.parse(data[:at])
        with pytest.raises((Corrupt, Unsupported)):
            container.parse(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])


def test_containers() -> None:
    parsed = {path.stem: container.parse(path.read_bytes()) for path in CONTAINERS}
    header, sections = parsed["rgb"]
    assert header == container.Header(
        "RGB", 3, 2, 16, bytes(range(8)), 1, b"\x0c", b"\1\2\3\4", b"\xfa\xfb\xfc\xfd"
    )
    assert sections == {container.LATENTS: b"latents"}
    header, sections = parsed["la"]
    assert (header.mode, header.width, header.coder, len(header.parameters)) == ("LA", 300, 2, 8)
    assert sections[container.LATENTS] == b""
    assert sections[container.ALPHA] == b"alpha"
    assert set(sections[container.METADATA]) == {ord("m")}
    assert parsed["ancillary"][1] == {container.LATENTS: b"x", 8: b"new"}


RGB_EDITS: list[tuple[str, Callable[[bytes], bytes], type[Exception]]] = [
    ("long varint", lambda data: data[:10] + b"\x83\0" + data[11:], Corrupt),
    ("no width", lambda data: data[:10] + b"\0" + data[11:], Corrupt),
    ("side of 2^31", lambda data: data[:10] + b"\x80\x80\x80\x80\x08" + data[11:], Corrupt),
    ("too many pixels", lambda data: data[:10] + b"\xff\xff\xff\xff\x07" + data[11:], Corrupt),
    ("unknown bit of kind", lambda data: data[:9] + b"\x25" + data[10:], Corrupt),
    ("codec 3", lambda data: data[:9] + b"\x0d" + data[10:], Unsupported),
    ("lossless, no residual", lambda data: data[:9] + b"\x09" + data[10:21] + data[31:], Corrupt),
    ("lossless, calibration", lambda data: data[:9] + b"\x09" + data[10:21] + b"\x18\1" + data[32:], Corrupt),
    ("alpha is missing", lambda data: data[:9] + b"\x07" + data[10:], Corrupt),
    ("version 0", lambda data: data[:8] + b"\x01" + data[9:], Corrupt),
    ("version 2", lambda data: data[:8] + b"\x20" + data[9:], Unsupported),
    ("coder 0", lambda data: data[:21] + b"\x01" + data[22:], Corrupt),
    ("nine bytes of parameters", lambda data: data[:21] + b"\x19" + data[22:], Corrupt),
    ("empty section list", lambda data: data[:31] + b"\0" + data[32:], Corrupt),
    ("no latents", lambda data: data[:31] + b"\x02" + data[32:], Corrupt),
    ("residual", lambda data: data[:31] + b"\x09\x01" + data[32:], Corrupt),
    ("empty calibration", lambda data: data[:31] + b"\x11\x07" + data[32:], Corrupt),
    ("section 6, of a lossless stream", lambda data: data[:31] + b"\x21\x01" + data[32:], Corrupt),
    ("section 7", lambda data: data[:31] + b"\x41\x01" + data[32:], Unsupported),
    ("section beyond the end", lambda data: data[:31] + b"\x81\x01\x7f" + data[32:], Corrupt),
    ("empty metadata", lambda data: data[:31] + b"\x05\x07" + data[32:], Corrupt),
]


@pytest.mark.parametrize(("name", "edit", "error"), RGB_EDITS, ids=[edit[0] for edit in RGB_EDITS])
def test_header_rules(name: str, edit: Callable[[bytes], bytes], error: type[Exception]) -> None:
    data = (GOLDEN / "stream" / "rgb.rec").read_bytes()
    with pytest.raises(error):
        container.parse(resealed(edit(data)))


def test_minor_version_is_ignored() -> None:
    data = (GOLDEN / "stream" / "rgb.rec").read_bytes()
    container.parse(resealed(data[:8] + b"\x1f" + data[9:]))


def test_short_digest_of_nothing() -> None:
    assert short_digest(b"").hex() == "c294d338"


def test_words_one_by_one_and_together() -> None:
    key = randomness.make_key(3, 1, randomness.DRAWS)
    several = randomness.words(key, np.arange(100)).tolist()
    assert several == [randomness.word(key, i) for i in range(100)]
    assert randomness.octets(key, 13).tobytes() == b"".join(w.to_bytes(8, "little") for w in several)[:13]


def test_columns_are_permutations() -> None:
    assert (np.sort(trellis.COLUMNS, axis=1) == np.arange(256)).all()


@pytest.mark.parametrize("symbols", [1, 2, 3, 16, 64, 128, 256])
def test_rows_fill_the_range(symbols: int) -> None:
    uniform = np.diff(entropy.uniform_starts(symbols))
    assert uniform.max() - uniform.min() <= 1
    empty = np.diff(entropy.weighted_starts(np.zeros((1, symbols), np.int64)))
    assert empty.sum() == entropy.TOTAL
    assert empty.min() >= 1


def test_codewords_of_several_blocks_depend_on_their_own_bits() -> None:
    # blocks of a long part end where their state began, so each can be decoded without the others
    L, steps = 12, 3 * trellis.BLOCK
    bits = np.unpackbits(randomness.octets(7, steps // 8)).tolist()
    codes = trellis.walk(bits, (0, 1), L)
    blocks = (2 * steps + trellis.BLOCK // 2) // trellis.BLOCK
    assert blocks == 6
    end = steps // blocks
    changed = trellis.walk([1 - bits[0], *bits[1:]], (0, 1), L)
    assert (changed[end:] == codes[end:]).all()
    assert (changed[:L] != codes[:L]).any()
    assert (changed[L : end - L] == codes[L : end - L]).all()


def test_model_may_bring_tables() -> None:
    tensors = {"exact.mass": np.ones((151, 9), np.uint32)}
    replaced = stream.replaced_tables(Weights(b"", 24, 8, tensors))
    tables = stream.trellis_tables() | replaced
    assert list(replaced) == ["mass"]
    assert set(np.diff(trellis.scalar_starts(tables)[5])[[0, 6]]) == {(entropy.TOTAL - 16) // 18 + 1}


def test_plan_starts_a_new_step_with_each_window() -> None:
    tables = stream.trellis_tables()
    scales = np.full(trellis.WINDOW + 2, 28)
    plan = trellis.make_plan(scales, tables)
    assert plan.step_D[trellis.WINDOW] == plan.step_D[trellis.WINDOW - 1] + 1
    assert plan.place_D[trellis.WINDOW] == 0
    assert plan.place_D.max() == 4
    assert plan.steps == plan.step_D[-1] + 1


def test_alpha_frame() -> None:
    _, sections = container.parse((GOLDEN / "codec" / "trellis-alpha.rec").read_bytes())
    png = sections[container.ALPHA]
    ancillary.check_alpha(png, 33, 65)
    middle = len(png) // 2
    wrong = [b"\0" + png[1:], png[:-1], png + png[-12:-1], png[:41] + png[-12:]]
    wrong.append(png[:middle] + bytes([png[middle] ^ 1]) + png[middle + 1 :])
    for width, height, data in [(65, 33, png), *((33, 65, data) for data in wrong)]:
        with pytest.raises(Corrupt):
            ancillary.check_alpha(data, width, height)


def test_latents_outlive_damaged_alpha(tiny: Weights) -> None:
    data = (GOLDEN / "codec" / "trellis-alpha.rec").read_bytes()
    _, sections = container.parse(data)
    at = data.index(sections[container.ALPHA]) + 40
    damaged = resealed(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    whole, rest = stream.decode(data, tiny), stream.decode(damaged, tiny)
    assert (rest.y_MHW == whole.y_MHW).all()


def test_layers_take_what_feeds_them(tiny: Weights) -> None:
    Networks(tiny)
    for name, ranges in (("up1", (-126, 127)), ("mix", (-127, 0)), ("first", (1, 127))):
        wrong = tiny.tensors[f"exact.{name}.ranges"].copy()
        wrong[:2] = ranges
        with pytest.raises(AssertionError):
            Networks(replace(tiny, tensors=tiny.tensors | {f"exact.{name}.ranges": wrong}))


def test_samples_fit_32_bits() -> None:
    class Constant(Recorder):
        def decode_part(self, scale_N: np.ndarray) -> np.ndarray:
            return np.full(len(scale_N), 2**31 - 4)

    indices = np.array([1])
    assert stream.sample_part(Constant(), np.array([0]), indices).tolist() == [2**31 - 4]
    with pytest.raises(Corrupt):
        stream.sample_part(Constant(), np.array([1]), indices)


def test_metadata() -> None:
    fields = b"".join(struct.pack("<BI", tag, 2) + b"ab" for tag in (1, 3, 70))
    pack = zstandard.ZstdCompressor().compress
    assert ancillary.read_metadata(pack(fields)) == {1: b"ab", 3: b"ab"}
    assert ancillary.read_metadata(pack(big := struct.pack("<BI", 2, 2**20) + bytes(2**20))) == {2: big[5:]}
    with pytest.raises(Corrupt, match="large"):
        ancillary.unpack(pack(bytes(2**26 + 1)))
    wrong = [fields[7:] + fields[:7], fields[:-1], struct.pack("<BI", 4, 1) + b"a", struct.pack("<BI", 1, 0)]
    for section in [*map(pack, wrong), pack(fields) + b"\0", b"mmmm", pack(fields)[:-1]]:
        with pytest.raises(Corrupt):
            ancillary.read_metadata(section)


def coded(symbols: Sequence[int], rows: Sequence[Sequence[int]]) -> bytes:
    """The stack that yields these symbols: the law of decoding, backwards."""
    state, words = 0, []
    for symbol, starts in reversed(list(zip(symbols, rows, strict=True))):
        start, weight = starts[symbol], starts[symbol + 1] - starts[symbol]
        if state >= weight << 40:
            words.append(state & 0xFFFFFFFF)
            state >>= 32
        state = (state // weight << 24) + start + state % weight
    while state:
        words.append(state & 0xFFFFFFFF)
        state >>= 32
    return np.array(words, "<u4").tobytes().rstrip(b"\0")


def calibration_section(shifts: Sequence[Sequence[int]], chances: int) -> bytes:
    """The section of these shifts of both parities."""
    rows: list[list[int]] = [calibration.plain_starts(chances & 15)] * len(shifts[0])
    for first in shifts[0]:
        other = calibration.plain_starts(chances >> 4)
        rows.append(calibration.following_starts(first) if first else other)
    return bytes([chances]) + coded([shift + 4 for parity in shifts for shift in parity], rows)


@pytest.mark.parametrize("chances", [0x00, 0x0F, 0xF0, 0x5A])
@pytest.mark.parametrize("density", [0.01, 0.3, 1])
def test_calibration(chances: int, density: float) -> None:
    rng = np.random.default_rng(chances)
    shift_2M = np.where(rng.random((2, 320)) < density, rng.integers(-4, 5, (2, 320)), 0)
    section = calibration_section(shift_2M.tolist(), chances)
    assert (calibration.read_shifts(section, 320) == shift_2M).all()
    for wrong in (section + b"\0", section + b"\1", section[:1] + b"\1" + section[1:], section[:-4]):
        try:
            assert (calibration.read_shifts(wrong, 320) != shift_2M).any()
        except Corrupt:
            continue


def test_calibration_of_nothing() -> None:
    assert not calibration.read_shifts(None, 24).any()
    with pytest.raises(Corrupt, match="shifts nothing"):
        calibration.read_shifts(calibration_section([[0] * 24] * 2, 0x73), 24)
    with pytest.raises(Corrupt, match="used up"):
        calibration.read_shifts(calibration_section([[0] * 24 + [1], [0] * 25], 0x73), 24)
    with pytest.raises(Corrupt, match="empty"):
        calibration.read_shifts(b"", 24)
    # an empty stack holds nothing but first symbols
    assert (calibration.read_shifts(b"\0", 24) == -4).all()


def test_calibration_rows() -> None:
    weights = [753, 884, 2949, 11797, 32768, 11797, 2949, 884, 753]
    share = [weight * (entropy.TOTAL - 9) // sum(weights) for weight in weights]
    share[4] += entropy.TOTAL - 9 - sum(share)
    assert np.diff(calibration.plain_starts(0)).tolist() == [k + 1 for k in share]
    after = np.diff(calibration.following_starts(2))
    assert after.argmax() == 4
    assert (np.diff(calibration.following_starts(-2)) == after[::-1]).all()


def test_calibration_moves_indices() -> None:
    index_MHW = np.array([[[0, 1, 12, 13, 139, 150]]] * 3)
    moved = calibration.calibrated(index_MHW, np.array([-4, 0, 4]))
    assert moved[:, 0].tolist() == [
        [0, 1, 1, 1, 127, 138],
        [0, 1, 12, 13, 139, 150],
        [0, 13, 24, 25, 150, 150],
    ]


@pytest.mark.parametrize("path", [STREAMS[0], GOLDEN / "codec" / "groups.rec"], ids=lambda path: path.stem)
def test_calibration_is_not_in_the_parameters_digest(path: Path, model: Weights) -> None:
    header, _ = container.parse(path.read_bytes())
    shift_2M = np.zeros((2, model.latent), np.int64)
    plain, moved = Recorder(), Recorder()
    before = stream.decode_latents(plain, header, model, shift_2M)
    shift_2M[0, 3] = 2
    shift_2M[1, 4] = -1
    after = stream.decode_latents(moved, header, model, shift_2M)
    assert after[2] == before[2]
    assert (moved.parts[0] == plain.parts[0]).all()
    groups = len(model.groups)
    for first, (channel, shift) in ((1, (3, 6)), (1 + groups, (4, -3))):
        # as many positions of each channel are of either parity, and groups come in the order of channels
        was, now = (
            np.concatenate(parts[first : first + groups]).reshape(model.latent, -1)
            for parts in (plain.parts, moved.parts)
        )
        expected = was.copy()
        expected[channel] = np.where(was[channel] > 0, np.clip(was[channel] + shift, 1, 150), 0)
        assert (expected != was).any()
        assert (now == expected).all()


def with_calibration(data: bytes, section: bytes | None) -> bytes:
    """The stream with another calibration section as its last, or with none."""
    header, sections = container.parse(data)
    assert set(sections) <= {container.LATENTS, container.CALIBRATION}
    payload = sections[container.LATENTS]
    head = data[: data.index(header.latents_digest) + 4]
    tail = b"\x01" + payload if section is None else b"\x11" + varint(len(payload)) + payload + section
    return resealed(head + tail + bytes(4))


def varint(value: int) -> bytes:
    """The shortest spelling."""
    groups = [value >> at & 127 for at in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


CALIBRATED = [path for path in STREAMS if path.stem.endswith("-calibrated")]


@pytest.mark.parametrize("path", CALIBRATED, ids=lambda path: path.stem)
def test_calibration_of_a_stream_matters(path: Path, model: Weights) -> None:
    data = path.read_bytes()
    _, sections = container.parse(data)
    section = sections[container.CALIBRATION]
    assert with_calibration(data, section) == data
    shift_2M = calibration.read_shifts(section, model.latent)
    assert calibration_section(shift_2M.tolist(), section[0]) == section
    others = [None, calibration_section((-shift_2M).tolist(), section[0]), section + b"\1"]
    for other in [*others, calibration_section([[0] * model.latent] * 2, section[0])]:
        with pytest.raises(Corrupt):
            stream.decode(with_calibration(data, other), model)
