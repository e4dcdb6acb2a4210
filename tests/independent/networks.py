"""The exact networks, in int64.

Shapes: channels first. O outputs and I inputs of a layer, H x W positions, K x K taps.
"""

from dataclasses import dataclass

import numpy as np

from .weights import Weights

# fmt: off
THRESHOLDS = np.array([
    2, 6, 10, 15, 19, 24, 30, 35, 41, 47, 54, 61, 68, 76, 84, 93, 102, 112, 123, 134, 146, 158, 171,
    185, 200, 216, 232, 250, 268, 288, 309, 331, 355, 380, 406, 434, 464, 495, 528, 563, 600, 640, 682,
    726, 773, 823, 876, 931, 991, 1053, 1120, 1190, 1264, 1343, 1427, 1516, 1610, 1709, 1815, 1926,
    2045, 2170, 2303, 2443, 2592, 2750, 2918, 3095, 3283, 3482, 3693, 3916, 4153, 4403, 4669, 4950,
    5248, 5564, 5899, 6253, 6629, 7027, 7449, 7895, 8369, 8870, 9401, 9964, 10560, 11192, 11861, 12570,
    13322, 14117, 14961, 15854, 16801, 17803, 18866, 19991, 21184, 22447, 23786, 25204, 26707, 28298,
    29985, 31772, 33665, 35670, 37795, 40046, 42431, 44958, 47635, 50472, 53477, 56660, 60033, 63607,
    67393, 71404, 75654, 80156, 84926, 89980, 95334,
])
MULTIPLIERS = [
    2613, 2835, 3076, 3337, 3621, 3929, 4263, 4625, 5018, 5445, 5908, 6410, 6955, 7546, 8187, 8883,
    9638, 10458, 11347, 12311, 13357, 14493, 15725, 17061, 18512, 20085, 21792, 23645, 25654, 27835,
    30201, 32768,
]
EIGHTHS = [31458, 31781, 32106, 32436, 32768, 33104, 33443, 33786]  # of -4..3
# fmt: on
LEVELS = len(MULTIPLIERS)
COMPANDED = (-127, 127)
# each layer with what feeds it; "" is compand
FED_BY = {
    "up1": ("",),
    "up2": ("up1",),
    "features": ("up2",),
    "first": ("features",),
    "context": ("",),
    "mix": ("context", "features"),
    "second": ("mix",),
}
# what the layers of a later group see beside their context: features in parity 0, in parity 1 what the main mix says
BESIDE = ("features", "mix")
MAX_SUM = 2**24 - 1


def compand(sample: np.ndarray) -> np.ndarray:
    """Samples of any size to -127..127."""
    return np.sign(sample) * np.searchsorted(THRESHOLDS, np.abs(sample), side="right")


def shuffle(x_CHW: np.ndarray) -> np.ndarray:
    """Four channels to one of twice the height and width."""
    channels, height, width = x_CHW.shape
    x_CabHW = x_CHW.reshape(channels // 4, 2, 2, height, width)
    return x_CabHW.transpose(0, 3, 1, 4, 2).reshape(channels // 4, 2 * height, 2 * width)


@dataclass(frozen=True)
class Layer:
    """A convolution with integer rounding."""

    weight_OIKK: np.ndarray
    bias_LO: np.ndarray
    shift_O: np.ndarray
    ranges: tuple[int, int, int, int]
    levels: int = LEVELS  # rows of biases where there is more than one

    def check(self) -> None:
        """The bounds under which float arithmetic is exact too."""
        in_low, in_high, _, _ = self.ranges
        assert -128 <= in_low <= 0 <= in_high <= 255
        assert np.abs(self.weight_OIKK).max() <= 127
        assert len(self.bias_LO) in (1, self.levels)
        assert (self.shift_O >= 0).all()
        assert (self.shift_O <= 20).all()
        sums_O = np.abs(self.weight_OIKK).sum(axis=(1, 2, 3)) * max(abs(in_low), abs(in_high))
        assert (sums_O + np.abs(self.bias_LO).max(axis=0) + self.half_O <= MAX_SUM).all()

    @property
    def half_O(self) -> np.ndarray:
        """What makes the shift round to nearest."""
        return (1 << self.shift_O) >> 1

    def __call__(self, x_IHW: np.ndarray, level: int, addend: np.ndarray | int = 0) -> np.ndarray:
        """Plane to plane of the same size [O, H, W]; the taps are not mirrored."""
        assert self.ranges[0] <= x_IHW.min()
        assert x_IHW.max() <= self.ranges[1]
        taps = self.weight_OIKK.shape[-1]
        _, height, width = x_IHW.shape
        margin = (taps - 1) // 2
        padded = np.pad(x_IHW, ((0, 0), (margin, margin), (margin, margin)))
        acc = np.zeros((len(self.weight_OIKK), height, width), np.int64)
        for a in range(taps):
            for b in range(taps):
                seen = padded[:, a : a + height, b : b + width]
                acc += np.einsum("oi,ihw->ohw", self.weight_OIKK[:, :, a, b], seen)
        bias_O = self.bias_LO[level if len(self.bias_LO) > 1 else 0]
        acc += (bias_O + self.half_O)[:, None, None]
        return np.clip((acc >> self.shift_O[:, None, None]) + addend, self.ranges[2], self.ranges[3])


class Networks:
    """What gives the priors of the latents."""

    def __init__(self, weights: Weights) -> None:
        exact = {name.removeprefix("exact."): array for name, array in weights.tensors.items()}
        self.hyper_mean_N = exact["hyper_mean"].astype(np.int64)
        self.hyper_index_N = exact["hyper_index"].astype(np.int64)
        assert self.hyper_mean_N.shape == self.hyper_index_N.shape == (weights.hyper,)
        self.groups = weights.groups
        fed_by = FED_BY | later_layers(len(self.groups))
        self.layers = {name: load_layer(exact, name) for name in fed_by}
        for name, layer in self.layers.items():
            layer.check()
            for source in fed_by[name]:
                low, high = self.layers[source].ranges[2:] if source else COMPANDED
                assert layer.ranges[0] <= low <= high <= layer.ranges[1], name

    def features(self, z_Nhw: np.ndarray, level: int) -> np.ndarray:
        """Hyper latents to the features that all priors share."""
        h = compand(z_Nhw)
        for name in ("up1", "up2"):
            h = shuffle(self.layers[name](h, level))
        return self.layers["features"](h, level)

    def raw_first(self, h: np.ndarray, level: int) -> np.ndarray:
        """Raw outputs for parity 0 from the features alone [2M, H, W]."""
        return self.layers["first"](h, level)

    def raw_second(
        self, h: np.ndarray, raw_first: np.ndarray, y_MHW: np.ndarray, level: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """What mix says, and raw outputs for parity 1 [2M, H, W]; `y_MHW` is zero where parity 1 is to come."""
        context = self.layers["context"](compand(y_MHW), level)
        mixed = self.layers["mix"](np.concatenate([context, h]), level)
        return mixed, self.layers["second"](mixed, level, raw_first)

    def raw_of_group(
        self, part: tuple[int, int], beside: np.ndarray, raw: np.ndarray, y_MHW: np.ndarray, level: int
    ) -> np.ndarray:
        """Raw outputs [2m, H, W] of the m channels of a part, which is a parity and a group.

        `raw` [2M, H, W] and `beside` are those of the parity; `y_MHW` is zero where nothing is known yet.
        """
        parity, number = part
        group = self.groups[number]
        own = np.concatenate([half[group] for half in np.split(raw, 2)])
        if number == 0:
            return own
        layers = [self.layers[name] for name in later_names(parity, number)]
        context = layers[0](compand(y_MHW[: group.start]), level)
        mixed = layers[1](np.concatenate([context, beside]), level)
        return layers[2](mixed, level, own)


def later_names(parity: int, number: int) -> list[str]:
    """The layers of a part of a later group, in the order of their use."""
    return [f"later.parity{parity}group{number}.{name}" for name in ("context", "mix", "second")]


def later_layers(groups: int) -> dict[str, tuple[str, ...]]:
    """The layers of all later groups, each with what feeds it."""
    fed_by: dict[str, tuple[str, ...]] = {}
    for parity, beside in enumerate(BESIDE):
        for number in range(1, groups):
            context, mix, second = later_names(parity, number)
            fed_by |= {context: ("",), mix: (context, beside), second: (mix,)}
    return fed_by


def load_layer(exact: dict[str, np.ndarray], name: str, levels: int = LEVELS) -> Layer:
    """One layer's arrays, as int64."""
    parts = {part: exact[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias", "shift", "ranges")}
    low_in, high_in, low_out, high_out = parts["ranges"].tolist()
    ranges = (low_in, high_in, low_out, high_out)
    return Layer(parts["weight"], parts["bias"], parts["shift"], ranges, levels)


def multiplier(level: int, eighths: int) -> int:
    """What raw means are multiplied with, in 2^-15."""
    return (MULTIPLIERS[level] * EIGHTHS[eighths + 4] + (1 << 14)) >> 15


def prior(raw: np.ndarray, level: int, eighths: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw outputs [2M, H, W] to means and scale indices [M, H, W]."""
    raw_mean, raw_scale = np.split(raw, 2)
    mean = (raw_mean * multiplier(level, eighths) + (1 << 14)) >> 15
    return mean, np.clip(((raw_scale + eighths + 4) >> 3) + 18 + level, 0, 150)
