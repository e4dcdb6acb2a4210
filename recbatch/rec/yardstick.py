"""How good a coder is: excess and overhead at equal quality, against the exact Gaussian posterior.

The channel is base.py's: prior N(0, v) with v = sigma^2, observation e with noise 1, sample z. With q the posterior,
log q(z)/p(z) is (log(1 + v) + e^2/(1 + v) - (z - e)^2) / 2: only the squared error of z depends on the sample.

    excess  (B - L) / KL: bits beyond the realised log q/p, per bit of KL. Nothing that draws under p gets below 0; a
            better prior may.
    eq      B / R - 1: R the rate at which the tilted family q_beta ~ p (q/p)^beta reaches the same squared error. Its
            precision is 1/v + beta; of all laws with that error it is nearest to the prior. A coder whose samples
            don't follow the prior can be cheaper and far poorer: then look at excess.

Source: docs/theory.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbatch.errors import UsageError
from recbatch.rec.base import UNIT, Samples, Scales, Targets
from recbatch.rec.tables import sigma

Floats = NDArray[np.float64]

LN2 = float(np.log(2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """One measurement; bits are sums over all dimensions with a prior of more than a point."""

    kl_bits: float  # of the exact posterior from the prior
    realised_bits: float  # log2 q/p at the samples: L
    spent_bits: float  # what the coder sent: B
    equal_quality_bits: float  # R
    beta: float  # tilt at which R is taken
    error_mean: float  # of (z - posterior mean) / posterior deviation
    error_variance: float

    @property
    def excess(self) -> float:
        return (self.spent_bits - self.realised_bits) / self.kl_bits

    @property
    def eq(self) -> float:
        return self.spent_bits / self.equal_quality_bits - 1


class NothingToMeasure(UsageError):
    """No dimension has a prior to code against."""

    code = "nothing-to-measure"

    def __str__(self) -> str:
        return "No latent dimension is coded, so there is no overhead. Measure an image with detail."


def measure(targets_N: Targets, scales_N: Scales, samples_N: Samples, spent_bits: float) -> Yardstick:
    """Measure samples of base.py's channel that cost ``spent_bits``; scale index 0 is left out."""
    coded = scales_N > 0
    if not coded.any():
        raise NothingToMeasure()
    sigma_S = np.array([sigma(k) for k in range(256)])
    return measure_variances(
        targets_N[coded].astype(np.float64),
        sigma_S[scales_N[coded]] ** 2,
        samples_N[coded] / UNIT,
        spent_bits,
    )


def measure_variances(e: Floats, v: Floats, z: Floats, spent_bits: float) -> Yardstick:
    """The same for any prior variances ``v`` > 0, all in units of the observation noise."""
    squared = float(((z - e) ** 2).sum())
    posterior = v / (1 + v)
    kl = 0.5 * float((np.log1p(v) + posterior * (e * e / (1 + v) - 1)).sum())
    realised = 0.5 * (float((np.log1p(v) + e * e / (1 + v)).sum()) - squared)
    low, high = -12.0, 12.0  # ln beta; the tilted family's squared error falls as beta grows
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _tilted_error(e, v, float(np.exp(middle))) > squared else (low, middle)
    beta = float(np.exp((low + high) / 2))
    tilted = v / (1 + beta * v)
    rate = 0.5 * float((tilted / v + (beta * tilted * e) ** 2 / v - 1 + np.log1p(beta * v)).sum())
    error = (z - posterior * e) / np.sqrt(posterior)
    return Yardstick(
        kl_bits=kl / LN2,
        realised_bits=realised / LN2,
        spent_bits=float(spent_bits),
        equal_quality_bits=rate / LN2,
        beta=beta,
        error_mean=float(error.mean()),
        error_variance=float(error.var()),
    )


def _tilted_error(e: Floats, v: Floats, beta: float) -> float:
    """Expected squared error of the tilted family."""
    return float((v / (1 + beta * v) + (e / (1 + beta * v)) ** 2).sum())
