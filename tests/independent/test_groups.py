"""Groups of channels and rate levels in eighths: what the golden streams alone would not tell apart."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from . import container, networks, stream
from .errors import Corrupt
from .weights import Weights, load_weights

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem for path in (GOLDEN / "codec").glob("groups*.rec"))
GROUPS = 3


@pytest.fixture(scope="module")
def tiny_groups() -> Weights:
    """The model of the golden streams."""
    return load_weights(GOLDEN / "model" / "tiny-groups.safetensors")


def read(name: str) -> bytes:
    return (GOLDEN / "codec" / f"{name}.rec").read_bytes()


class Scripted:
    """A coder that gives zeros, but noise in one part, and keeps the indices it was asked about."""

    def __init__(self, noisy: int = -1) -> None:
        self.noisy, self.asked = noisy, list[np.ndarray]()

    def decode_part(self, scale_N: np.ndarray) -> np.ndarray:
        self.asked.append(scale_N)
        if len(self.asked) - 1 != self.noisy:
            return np.zeros(len(scale_N), np.int64)
        return np.random.default_rng(5).integers(-300, 300, len(scale_N))

    def finish(self) -> None:
        pass


def priors_of_parts(weights: Weights, noisy: int) -> tuple[list[bytes], list[int]]:
    """What the networks say of each part of the latents, and the sizes of all parts."""
    header = replace(container.parse(read("groups"))[0], width=130, height=60)
    coder, shift_2M = Scripted(noisy), np.zeros((2, weights.latent), np.int64)
    _, y_MHW, parameters = stream.decode_latents(coder, header, weights, shift_2M)
    said, at = [], 0
    for group in weights.groups * 2:
        size = 5 * y_MHW[group].size
        said.append(parameters[at : at + size])
        at += size
    assert at == len(parameters)
    return said, [len(scale_N) for scale_N in coder.asked]


def test_groups_are_cut_at_their_ends(tiny_groups: Weights) -> None:
    assert tiny_groups.groups == [slice(0, 4), slice(4, 10), slice(10, 24)]
    assert load_weights(GOLDEN / "model" / "tiny.safetensors").groups == [slice(0, 24)]
    for ends in ((10, 4), (4, 4), (0, 4), (4, 24)):
        with pytest.raises(AssertionError):
            _ = replace(tiny_groups, group_ends=ends).groups


def test_parts_are_those_of_parity_0_then_those_of_parity_1(tiny_groups: Weights) -> None:
    sizes = priors_of_parts(tiny_groups, -1)[1]
    positions = 4 * 12
    assert sizes == [8 * 1 * 3, *[channels * positions // 2 for channels in (4, 6, 14)] * 2]


@pytest.mark.parametrize(
    ("noisy", "changed"),
    [
        (1, {2, 3, 4, 5, 6}),
        (2, {3, 4, 5, 6}),
        (3, {4, 5, 6}),
        (4, {5, 6}),
        (5, {6}),
        (6, set()),
    ],
)
def test_a_part_knows_the_parts_before_it(noisy: int, changed: set[int], tiny_groups: Weights) -> None:
    plain, other = (priors_of_parts(tiny_groups, part)[0] for part in (-1, noisy))
    differ = {part + 1 for part, pair in enumerate(zip(plain, other, strict=True)) if pair[0] != pair[1]}
    assert differ == changed


def test_without_groups_there_are_three_parts(tiny_groups: Weights) -> None:
    said, sizes = priors_of_parts(replace(tiny_groups, group_ends=()), -1)
    assert len(said) == 2
    assert len(sizes) == 3


def test_layers_of_later_groups_take_what_feeds_them(tiny_groups: Weights) -> None:
    names = [
        f"parity{p}group{g}.{layer}" for p in (0, 1) for g in (1, 2) for layer in ("context", "mix", "second")
    ]
    assert set(networks.later_layers(GROUPS)) == {f"later.{name}" for name in names}
    networks.Networks(tiny_groups)
    for name in names:
        key = f"exact.later.{name}.ranges"
        wrong = tiny_groups.tensors[key].copy()
        wrong[:2] = (0, 126)
        with pytest.raises(AssertionError):
            networks.Networks(replace(tiny_groups, tensors=tiny_groups.tensors | {key: wrong}))
        without = {other: array for other, array in tiny_groups.tensors.items() if other != key}
        with pytest.raises(KeyError):
            networks.Networks(replace(tiny_groups, tensors=without))


@pytest.mark.parametrize(
    ("byte", "rate"),
    [(0, (0, 0)), (31, (31, 0)), (0x72, (18, 3)), (0x97, (23, -4)), (0xCC, (12, -2)), (0xFF, (31, -1))],
)
def test_level_byte(byte: int, rate: tuple[int, int]) -> None:
    header = container.parse(with_level(read("groups"), byte))[0]
    assert header.rate == rate


def test_eighths_are_even_steps_between_levels() -> None:
    assert [networks.multiplier(level, 0) for level in range(32)] == networks.MULTIPLIERS
    assert [round(2**15 * 1.085 ** (eighths / 8)) for eighths in range(-4, 4)] == networks.EIGHTHS
    steps = [networks.multiplier(level, eighths) for level in range(32) for eighths in range(-4, 4)]
    assert all(low < high for low, high in pairwise(steps))


def with_level(data: bytes, byte: int) -> bytes:
    """The stream with another level, its checksum right."""
    model_at = data.index(container.parse(data)[0].model)
    changed = data[: model_at - 1] + bytes([byte]) + data[model_at:-4]
    return changed + struct.pack("<I", zlib.crc32(changed))


def other_levels(byte: int) -> Sequence[int]:
    """The same level with other eighths, and the same eighths with the next level."""
    return [byte ^ eighths << 5 for eighths in range(1, 8)] + [byte ^ 1]


def test_eighths_of_a_stream_matter(tiny_groups: Weights) -> None:
    data = read("groups-irec")
    byte = container.parse(data)[0].level
    assert byte >> 5 > 0
    assert with_level(data, byte) == data
    for other in other_levels(byte):
        with pytest.raises(Corrupt):
            stream.decode(with_level(data, other), tiny_groups)


def test_golden_streams_have_eighths_of_both_signs() -> None:
    eighths = [container.parse(read(name))[0].rate[1] for name in NAMES]
    assert min(eighths) == -4
    assert max(eighths) == 3
    assert 0 in eighths
