"""Latents of a known law: Gaussian, with rates spread in one of two ways, and a plan that is right or wrong.

    uniform       true rates uniform in 0..0.5 bit: many dimensions that share one index
    log-uniform   true rates log-uniform in 1e-4..4 bits: most of the KL in few dimensions

The rate of a dimension is the expected KL of its posterior, log2(1 + v) / 2 for a true prior variance v in units of the
observation noise. The plan is the scale index that both sides know. A known plan is the index nearest to the true
prior, and the latents are drawn from just that prior. A wrong plan names another rate: the true one times exp(0.5 N), N
a standard normal of each dimension, or times exp(0.3 N), N one of each block of BLOCK dimensions. It is the plan that
errs and not the source: a source with the factor would have dimensions of dozens of bits, and nothing else would count.

As in a model, a dimension is not coded (index 0) where the plan gives it less than about 0.0046 bit.

Shapes: N dimensions of one piece; a piece stands for an image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import UsageError
from recbatch.rec.base import SCALES, Scales, Targets
from recbatch.rec.tables import sigma

SIZE = 1 << 16  # dimensions of a piece
BLOCK = 1000  # dimensions whose plan errs alike
UNIFORM_TO = 0.5  # bits
LOG_FROM, LOG_TO = 1e-4, 4.0  # bits
ERROR_OF_DIMENSION, ERROR_OF_BLOCK = 0.5, 0.3  # deviation of ln(planned rate / true rate)

SIGMA_S = np.array([sigma(index) for index in range(SCALES)])

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """One kind of latents."""

    rates: str  # "uniform" or "log-uniform"
    plan: str  # "known", "dimension" or "block": what the plan's error is drawn for


LAWS: Mapping[str, Law] = {
    f"synthetic {rates}{tail}": Law(rates=rates, plan=plan)
    for rates in ("uniform", "log-uniform")
    for plan, tail in (
        ("known", ""),
        ("dimension", ", wrong plan"),
        ("block", ", wrong plan in blocks"),
    )
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Targets under their planned scales."""

    target_N: Targets
    scale_N: Scales


def known_plan(name: str) -> bool:
    """Whether the latents of this name follow the prior that they are coded by."""
    return LAWS[name].plan == "known"


def piece(name: str, number: int, size: int = SIZE) -> Piece:
    """The piece of this number of one of LAWS; the same on every call. Raises UsageError."""
    if name not in LAWS:
        raise UsageError(f"There are no latents called {name!r}. Take one of: {'; '.join(LAWS)}.")
    law = LAWS[name]
    generator = np.random.default_rng((list(LAWS).index(name), number, 20_200_612))
    rate_N = _rates(law.rates, generator, size)
    scale_N = nearest_scale(rate_N * _errors(law.plan, generator, size))
    if law.plan == "known":
        variance_N = SIGMA_S[scale_N] ** 2
    else:
        variance_N = np.expm1(2 * math.log(2) * rate_N)
    target_N = np.sqrt(1 + variance_N) * generator.standard_normal(size)
    return Piece(target_N.astype(np.float32), scale_N)


def nearest_scale(rate_N: Floats) -> Scales:
    """Scale indices whose deviation is nearest, by its logarithm, to that of a rate in bits."""
    deviation_N = np.sqrt(np.expm1(2 * math.log(2) * np.minimum(rate_N, 64.0)))
    with np.errstate(divide="ignore"):  # a rate of nothing has the index below all
        steps_N = np.log(deviation_N / SIGMA_S[1]) / math.log(SIGMA_S[2] / SIGMA_S[1])
    index_N: Scales = np.clip(np.rint(1 + steps_N), 0, SCALES - 1).astype(np.uint8)
    return index_N


def _rates(kind: str, generator: np.random.Generator, size: int) -> Floats:
    """True rates in bits."""
    if kind == "uniform":
        return generator.uniform(0.0, UNIFORM_TO, size)
    return np.exp(generator.uniform(math.log(LOG_FROM), math.log(LOG_TO), size))


def _errors(plan: str, generator: np.random.Generator, size: int) -> Floats:
    """Planned rate over true rate."""
    if plan == "dimension":
        return np.exp(ERROR_OF_DIMENSION * generator.standard_normal(size))
    if plan == "block":
        blocks = generator.standard_normal(-(-size // BLOCK))
        return np.repeat(np.exp(ERROR_OF_BLOCK * blocks), BLOCK)[:size]
    return np.ones(size)
