"""Every golden stream and payload must decode, bit for bit, by code that knows only docs/format.md."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from . import ancillary, container, entropy, randomness, stream, trellis
from .digests import array_bytes, short_digest
from .errors import Corrupt, Unsupported
from .weights import Weights, load_weights

GOLDEN = Path(__file__).parents[1] / "golden"
STREAMS = sorted((GOLDEN / "codec").glob("*.rec"))
CONTAINERS = sorted((GOLDEN / "stream").glob("*.rec"))
PAYLOADS = [
    pytest.param(case, id=f"{path.stem}-{number}")
    for path in sorted((GOLDEN / "rec").glob("*.json"))
    for number, case in enumerate(json.loads(path.read_text()))
]


@pytest.fixture(scope="module")
def tiny() -> Weights:
    """The model of the golden streams."""
    return load_weights(GOLDEN / "model" / "tiny.safetensors")


def decode_payload(case: dict[str, Any], payload: bytes) -> list[np.ndarray]:
    """Residuals of a payload's parts."""
    coder = stream.make_coder(case["number"], bytes.fromhex(case["parameters"]), payload, case["seed"])
    parts = [coder.decode_part(np.array(scales, np.int64)) for scales in case["scales"]]
    coder.finish()
    return parts


def resealed(data: bytes) -> bytes:
    """The stream with its checksum made right."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def test_golden_files_are_there() -> None:
    assert len(STREAMS) >= 4
    assert len(PAYLOADS) >= 7
    assert {path.stem for path in CONTAINERS} >= {"rgb", "la", "ancillary"}


@pytest.mark.parametrize("case", PAYLOADS)
def test_payload(case: dict[str, Any]) -> None:
    decoded = decode_payload(case, bytes.fromhex(case["payload"]))
    assert [part.tolist() for part in decoded] == case["samples"]


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
        assert [part.tolist() for part in decoded] != case["samples"]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_stream(path: Path, tiny: Weights) -> None:
    # decode compares both digests and refuses what is left of the payload
    latents = stream.decode(path.read_bytes(), tiny)
    cases = json.loads((GOLDEN / "codec" / "cases.json").read_text())
    assert short_digest(array_bytes(latents.y_MHW, "<i4")).hex() == cases[path.stem]["samples"]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_digests_are_compared(path: Path, tiny: Weights) -> None:
    data = path.read_bytes()
    header, _ = container.parse(data)
    for name in ("parameters_digest", "latents_digest"):
        at = data.index(getattr(header, name))
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(Corrupt, match=name.replace("_", " ")):
            stream.decode(resealed(changed), tiny)


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
    ("lossless", lambda data: data[:9] + b"\x09" + data[10:], Unsupported),
    ("alpha is missing", lambda data: data[:9] + b"\x07" + data[10:], Corrupt),
    ("version 0", lambda data: data[:8] + b"\x01" + data[9:], Corrupt),
    ("version 2", lambda data: data[:8] + b"\x20" + data[9:], Unsupported),
    ("coder 0", lambda data: data[:21] + b"\x01" + data[22:], Corrupt),
    ("nine bytes of parameters", lambda data: data[:21] + b"\x19" + data[22:], Corrupt),
    ("empty section list", lambda data: data[:31] + b"\0" + data[32:], Corrupt),
    ("no latents", lambda data: data[:31] + b"\x02" + data[32:], Corrupt),
    ("residual", lambda data: data[:31] + b"\x09\x01" + data[32:], Unsupported),
    ("unknown section", lambda data: data[:31] + b"\x11\x01" + data[32:], Unsupported),
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
    for width, height, data in ((65, 33, png), (33, 65, png[:-1]), (33, 65, b"\0" + png[1:])):
        with pytest.raises(Corrupt):
            ancillary.check_alpha(data, width, height)


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
