"""The lossy model ``photo``: a VAE whose prior the decoder can plan for.

Shapes: B images, H x W pixels (multiples of 64), M latent channels on the 1/16 grid, N hyper channels on the 1/64
grid. Latents are in units of observation noise (the water level), which the gain of a rate level fixes.

A prior parameter pair (mean, scale index) is integer from end to end: see ``PriorGrid``. What feeds it (hyper
synthesis, context) is built of ``ExactConv2d``; analysis and synthesis are ordinary float networks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbatch.models.exact import COMPAND_EXP, COMPAND_RANGE, ExactConv2d, compand_train, quantise

LEVELS = 32
SCALE_RATIO = 1.085  # of neighbouring scale indices; one rate level is one index
SIGMA_MIN = 0.083  # sigma of scale index 1, in units of observation noise
SCALE_MAX = 150
LAMBDA_MIN = 0.0011  # of level 0; level q multiplies it by SCALE_RATIO ** (2 q)
NOISE_OF_LAMBDA = (
    3.33e-5  # ideal noise variance of an orthonormal transform is this over lambda (pixels in 0..1)
)

PARAMETER_EXP = 6  # raw outputs of the exact nets are integers / 2**6
INDEX_SHIFT = 3  # eight raw units of the scale output are one scale index
INDEX_OFFSET = 18  # scale index at raw output 0 and level 0
MEAN_EXP = 4  # means are integers / 2**4
INT16 = (-32768, 32767)
HIDDEN = (0, 255)
HIDDEN_EXP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LossyConfig:
    """Sizes of a ``photo`` model."""

    latent: int = 256  # M
    hyper: int = 96  # N
    widths: tuple[int, int, int] = (64, 128, 192)  # channels at 1/4, 1/8, 1/16
    blocks: tuple[int, int, int] = (1, 1, 1)
    groups: tuple[int, ...] = ()  # ends of all channel groups but the last; each group is coded in two passes

    def to_json(self) -> dict[str, object]:
        """Plain values; without groups as ``photo/1`` wrote it."""
        return {k: v for k, v in asdict(self).items() if k != "groups" or v}

    @classmethod
    def from_json(cls, text: str) -> LossyConfig:
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()
        }
        return cls(**values)

    @property
    def group_channels(self) -> tuple[tuple[int, int], ...]:
        """(first, end) channel of each group."""
        ends = (*self.groups, self.latent)
        return tuple(zip((0, *self.groups), ends, strict=True))

    @property
    def later_passes(self) -> tuple[tuple[int, int], ...]:
        """(parity, group) of the passes that have networks of their own: all of the groups but the first."""
        return tuple((parity, g) for parity in (0, 1) for g in range(1, len(self.groups) + 1))


PRESETS = {
    "photo-s": LossyConfig(latent=320, hyper=96, widths=(64, 128, 192), blocks=(1, 1, 1), groups=(32, 112)),
    "photo-m": LossyConfig(latent=320, hyper=128, widths=(96, 192, 256), blocks=(1, 2, 2), groups=(32, 112)),
}


def level_lambda(level: Tensor) -> Tensor:
    """Weight of the squared error (in grey levels) against bits per pixel at a rate level."""
    return LAMBDA_MIN * SCALE_RATIO ** (2.0 * level)


def level_features(level: Tensor) -> Tensor:
    """float32 [B, 3]: powers of the log of lambda, about -1.2..1.5."""
    t = (torch.log(level_lambda(level)) - math.log(0.01)) / 2
    return torch.stack([t, t * t, t**3], dim=1)


def scale_of_index(index: Tensor) -> Tensor:
    """log variance of the prior at a (real-valued) scale index."""
    return 2 * math.log(SIGMA_MIN) + (index - 1) * (2 * math.log(SCALE_RATIO))


class Res(nn.Module):
    """x + conv(act(conv(act(x)))), zero at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.expand = nn.Conv2d(channels // 2, channels, 3, padding=1)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.squeeze(F.leaky_relu(x, 0.1)), 0.1)
        out: Tensor = x + self.expand(h)
        return out


class Film(nn.Module):
    """Scale and shift per channel from the rate level; the identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        scale, shift = self.linear(features)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = x * (1 + scale) + shift
        return out


class Analysis(nn.Module):
    """Pixels [B, 3, H, W] minus 0.5 to latents [B, M, H/16, W/16]: a linear block transform plus a network."""

    def __init__(self, config: LossyConfig) -> None:
        super().__init__()
        a, b, c = config.widths
        self.down = nn.ModuleList(
            [nn.Conv2d(12, a, 3, 2, 1), nn.Conv2d(a, b, 3, 2, 1), nn.Conv2d(b, c, 3, 2, 1)]
        )
        self.res = nn.ModuleList(
            nn.Sequential(*(Res(w) for _ in range(n)))
            for w, n in zip(config.widths, config.blocks, strict=True)
        )
        self.film = nn.ModuleList(Film(w) for w in config.widths)
        self.out = nn.Conv2d(c, config.latent, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.linear = nn.Conv2d(3, config.latent, 16, 16)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        h = F.pixel_unshuffle(x, 2)
        for i, (down, res, film) in enumerate(zip(self.down, self.res, self.film, strict=True)):
            h = film(res(down(F.leaky_relu(h, 0.1) if i else h)), features)
        out: Tensor = self.linear(x) + self.out(F.leaky_relu(h, 0.1))
        return out


class Synthesis(nn.Module):
    """Latents [B, M, H/16, W/16] to pixels [B, 3, H, W] minus 0.5."""

    def __init__(self, config: LossyConfig) -> None:
        super().__init__()
        a, b, c = config.widths
        self.up = nn.ModuleList(
            [nn.Conv2d(config.latent, c, 3, padding=1), nn.Conv2d(c, 4 * b, 1), nn.Conv2d(b, 4 * a, 1)]
        )
        self.film = nn.ModuleList(Film(w) for w in (c, b, a))
        self.res = nn.ModuleList(
            nn.Sequential(*(Res(w) for _ in range(n)))
            for w, n in zip((c, b, a), config.blocks[::-1], strict=True)
        )
        self.out = nn.Conv2d(a, 48, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.linear = nn.Conv2d(config.latent, 768, 1)

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        h = y
        for i, (up, film, res) in enumerate(zip(self.up, self.film, self.res, strict=True)):
            h = up(h)
            h = res(film(F.pixel_shuffle(h, 2) if i else h, features))
        fine = F.pixel_shuffle(self.out(F.leaky_relu(h, 0.1)), 4)
        out: Tensor = F.pixel_shuffle(self.linear(y), 16) + fine
        return out


class HyperAnalysis(nn.Module):
    """Companded latents to hyper latents [B, N, H/64, W/64]."""

    def __init__(self, config: LossyConfig) -> None:
        super().__init__()
        m, n = config.latent, config.hyper
        self.layers = nn.Sequential(
            nn.Conv2d(m, n, 3, 1, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(n, n, 3, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(n, n, 3, 2, 1),
        )

    def forward(self, y: Tensor) -> Tensor:
        out: Tensor = self.layers(compand_train(y, False))
        return out


class LaterNet(nn.Module):
    """Exact networks of one pass of a later channel group: what the groups before it sent, to raw parameters."""

    def __init__(self, config: LossyConfig, first: int, end: int) -> None:
        super().__init__()
        n = config.hyper
        self.context = _hidden(first, n, 3, companded=True)
        self.mix = _hidden(3 * n, n, 1)
        self.second = _parameters(n, end - first)
        with torch.no_grad():
            self.second.weight.zero_()

    def forward(self, y: Tensor, base: Tensor, raw: Tensor, quantised: bool) -> Tensor:
        """Raw parameters of the group, from samples y of the channels before it and what is known without them."""
        c = self.context(compand_train(y, quantised))
        out: Tensor = self.second(self.mix(torch.cat([c, base], dim=1)), accumulate=raw)
        return out


class PriorNet(nn.Module):
    """The exact networks: hyper latents, then samples already sent, to raw prior parameters [B, 2M, H/16, W/16]."""

    def __init__(self, config: LossyConfig) -> None:
        super().__init__()
        m, n = config.latent, config.hyper
        self.up1 = _hidden(n, 4 * n, 1, companded=True)
        self.up2 = _hidden(n, 4 * n, 1)
        self.features = _hidden(n, 2 * n, 3, level_bias=LEVELS)
        self.level = nn.Linear(3, 2 * n)  # becomes one bias vector per level
        nn.init.zeros_(self.level.weight)
        nn.init.zeros_(self.level.bias)
        self.first = _parameters(2 * n, m)
        self.context = _hidden(m, 2 * n, 3, companded=True)
        self.mix = _hidden(4 * n, 2 * n, 1)
        self.second = _parameters(2 * n, m)
        self.later = nn.ModuleDict(
            {
                later_name(*which): LaterNet(config, *config.group_channels[which[1]])
                for which in config.later_passes
            }
        )
        with torch.no_grad():
            self.first.weight.mul_(0.1)
            self.second.weight.mul_(0.1)

    def hyper(self, z: Tensor, features: Tensor, quantised: bool) -> tuple[Tensor, Tensor]:
        """Features [B, 2N, H/16, W/16] and the raw parameters of pass 0."""
        h = F.pixel_shuffle(self.up1(compand_train(z, quantised)), 2)
        h = F.pixel_shuffle(self.up2(h), 2)
        h = self.features(h, self.level(features)[:, :, None, None])
        return h, self.first(h)

    def refine(self, y: Tensor, h: Tensor, first: Tensor, quantised: bool) -> tuple[Tensor, Tensor]:
        """Features [B, 2N, H/16, W/16] and raw parameters of parity 1, from samples of parity 0 (zero elsewhere)."""
        c = self.context(compand_train(y, quantised))
        mixed = self.mix(torch.cat([c, h], dim=1))
        return mixed, self.second(mixed, accumulate=first)


def later_name(parity: int, group: int) -> str:
    """Name of the networks of a later pass."""
    return f"parity{parity}group{group}"


def of_channels(raw: Tensor, first: int, end: int) -> Tensor:
    """The part of raw parameters [B, 2M, h, w] (means, then scales) that is about some channels."""
    half = raw.shape[1] // 2
    return torch.cat([raw[:, first:end], raw[:, half + first : half + end]], dim=1)


def _hidden(
    inputs: int, outputs: int, kernel: int, *, companded: bool = False, level_bias: int = 0
) -> ExactConv2d:
    return ExactConv2d(
        inputs,
        outputs,
        kernel,
        in_exp=COMPAND_EXP if companded else HIDDEN_EXP,
        in_range=COMPAND_RANGE if companded else HIDDEN,
        out_exp=HIDDEN_EXP,
        out_range=HIDDEN,
        level_bias=level_bias,
    )


def _parameters(inputs: int, latent: int) -> ExactConv2d:
    return ExactConv2d(
        inputs,
        2 * latent,
        1,
        in_exp=HIDDEN_EXP,
        in_range=HIDDEN,
        out_exp=PARAMETER_EXP,
        out_range=INT16,
    )


def pass_mask(channels: int, height: int, width: int, first: int = 0) -> Tensor:
    """bool [channels, height, width]: of parity 0, coded first (a checkerboard, inverted on odd channels).

    ``first`` is the number of the first channel.
    """
    grid = (torch.arange(height)[:, None] + torch.arange(width)[None, :]) % 2 == 0
    mask = torch.empty(channels, height, width, dtype=torch.bool)
    mask[first % 2 :: 2], mask[1 - first % 2 :: 2] = grid, ~grid
    return mask


def _straight(rounded: Tensor, x: Tensor) -> Tensor:
    return x + (rounded - x).detach()


def prior_parameters(raw: Tensor, level: Tensor, quantised: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, log variance and a mask of what is coded, from raw outputs at rate levels [B].

    The training twin of the integer law in ``recbatch.models.prior``; equal to it where ``quantised``.
    """
    mean, scale = raw.chunk(2, dim=1)
    q = level[:, None, None, None]
    mean = mean * (2.0 ** (PARAMETER_EXP - MEAN_EXP) * SCALE_RATIO ** (q - (LEVELS - 1)))
    index = scale * 2.0 ** (PARAMETER_EXP - INDEX_SHIFT) + INDEX_OFFSET + q
    if quantised:
        mean = _straight(torch.floor(mean * 2**MEAN_EXP + 0.5) / 2**MEAN_EXP, mean)
        index = _straight(torch.floor(index + 0.5), index)
    coded = index > 0.5 if quantised else torch.ones_like(index, dtype=torch.bool)
    return mean, scale_of_index(index.clamp(max=SCALE_MAX)), coded


def channel(y: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """KL in nats, mean and deviation of the posterior of a Gaussian with unit observation noise.

    With a = sigmoid(log variance): posterior N(mean + a (y - mean), a), prior N(mean, exp(log variance)).
    """
    a = torch.sigmoid(log_variance)
    e = y - mean
    kl = 0.5 * F.softplus(log_variance) + 0.5 * (a * (1 - a) * e * e - a)
    return kl, mean + a * e, torch.exp(0.5 * F.logsigmoid(log_variance))


Watch = Callable[[Tensor, Tensor, Tensor, Tensor], None]


class LossyNet(nn.Module):
    """All networks of a ``photo`` model, as trained."""

    def __init__(self, config: LossyConfig) -> None:
        super().__init__()
        self.config = config
        self.analysis = Analysis(config)
        self.synthesis = Synthesis(config)
        self.hyper_analysis = HyperAnalysis(config)
        self.prior = PriorNet(config)
        self.gain = nn.Linear(3, config.latent)  # log gain of each channel by level, beside the ideal one
        self.ungain = nn.Linear(3, config.latent)
        for linear in (self.gain, self.ungain):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.hyper_mean = nn.Parameter(torch.zeros(1, config.hyper, 1, 1))
        self.hyper_index = nn.Parameter(torch.full((1, config.hyper, 1, 1), 45.0))
        self.quantised = False

    def set_quantised(self, quantised: bool) -> None:
        """Switch the exact networks and their inputs to the integer grid (straight-through gradients)."""
        self.quantised = quantised
        quantise(self, quantised)

    def ideal_gain(self, level: Tensor) -> Tensor:
        return 0.5 * torch.log(level_lambda(level) / NOISE_OF_LAMBDA)[:, None]

    def latents(self, x: Tensor, level: Tensor) -> Tensor:
        """Pixels in 0..1 to latents y [B, M, H/16, W/16], in units of observation noise."""
        features = level_features(level)
        log_gain = self.ideal_gain(level) + self.gain(features)
        y: Tensor = self.analysis(x - 0.5, features) * torch.exp(log_gain)[:, :, None, None]
        return y

    def pixels(self, y: Tensor, level: Tensor) -> Tensor:
        """Latent samples to pixels, about 0..1."""
        features = level_features(level)
        log_gain = self.ungain(features) - self.ideal_gain(level)
        out: Tensor = self.synthesis(y * torch.exp(log_gain)[:, :, None, None], features) + 0.5
        return out

    def hyper_prior(self) -> tuple[Tensor, Tensor]:
        """Mean and log variance [1, N, 1, 1] of the hyper latents."""
        mean: Tensor = self.hyper_mean
        index: Tensor = self.hyper_index
        if self.quantised:
            mean = _straight(torch.floor(mean * 2**MEAN_EXP + 0.5) / 2**MEAN_EXP, mean)
            index = _straight(torch.floor(index + 0.5), index)
        return mean, scale_of_index(index.clamp(1, SCALE_MAX))

    def forward(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction [B, 3, H, W] and the KL in nats of latents and of hyper latents, each [B]."""
        features = level_features(level)
        y = self.latents(x, level)
        z = self.hyper_analysis(y)
        kl_z, mean, deviation = channel(z, *self.hyper_prior())
        z_sample = mean + deviation * torch.randn_like(z)
        h, raw = self.prior.hyper(z_sample, features, self.quantised)
        sample, kl_y = self.sample_latents(y, h, raw, level)
        return self.pixels(sample, level), kl_y, kl_z.sum((1, 2, 3))

    def sample_latents(
        self, y: Tensor, h: Tensor, raw: Tensor, level: Tensor, watch: Watch | None = None
    ) -> tuple[Tensor, Tensor]:
        """Samples [B, M, h, w] of all passes in their order, and their KL [B].

        ``h`` and ``raw`` are those of ``PriorNet.hyper``; ``watch`` sees each pass: latents, mean and log variance
        of its channels, and which of them it codes.
        """
        even = pass_mask(y.shape[1], *y.shape[2:]).to(y.device)
        groups = self.config.group_channels
        sent = [torch.zeros_like(y[:, first:end]) for first, end in groups]
        kl_y = torch.zeros_like(y[:, 0, 0, 0])
        for parity in (0, 1):
            if parity:
                h, raw = self.prior.refine(torch.cat(sent, dim=1), h, raw, self.quantised)
            for g, (first, end) in enumerate(groups):
                part = of_channels(raw, first, end)
                if g:
                    later = self.prior.later[later_name(parity, g)]
                    part = later(torch.cat(sent[:g], dim=1), h, part, self.quantised)
                kl, sample = self._sample(y[:, first:end], part, level)
                mask = even[first:end] if parity == 0 else ~even[first:end]
                if watch is not None:
                    mean, log_variance, coded = prior_parameters(part, level, self.quantised)
                    watch(y[:, first:end], mean, log_variance, coded & mask)
                kl_y = kl_y + torch.where(mask, kl, 0.0).sum((1, 2, 3))
                sent[g] = torch.where(mask, sample, sent[g])
        return torch.cat(sent, dim=1), kl_y

    def _sample(self, y: Tensor, raw: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance, coded = prior_parameters(raw, level, self.quantised)
        kl, posterior, deviation = channel(y, mean, log_variance)
        sample = posterior + deviation * torch.randn_like(y)
        if not self.quantised:
            return kl, sample
        # index 0 is not coded: the mean, at no cost; gradients pass as if it were, so that it can come back
        return _straight(torch.where(coded, kl, 0.0), kl), _straight(torch.where(coded, sample, mean), sample)
