"""A whole lossy stream: from bytes to latents, both digests compared."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from . import container, irec, trellis
from .calibration import calibrated, read_shifts
from .digests import array_bytes, short_digest
from .errors import Unsupported, require
from .networks import Networks, prior
from .tables import TRELLIS_FORM, irec_tables, trellis_tables
from .weights import Weights

SEED = 0
INT32 = 2**31


class Coder(Protocol):
    """What a payload's coder offers."""

    def decode_part(self, scale_N: np.ndarray) -> np.ndarray:
        """Residuals of the next part."""

    def finish(self) -> None:
        """Refuse a payload that is not used up."""


@dataclass(frozen=True)
class Latents:
    """What a stream's latents section decodes to."""

    header: container.Header
    z_Nhw: np.ndarray
    y_MHW: np.ndarray


def make_coder(
    number: int, parameters: bytes, payload: bytes, seed: int, weights: Weights | None = None
) -> Coder:
    """The coder of a number."""
    if number == 1:
        return trellis.Decoder(parameters, payload, seed, trellis_tables() | replaced_tables(weights))
    if number == 2:
        return irec.Decoder(parameters, payload, seed, irec_tables())
    raise Unsupported(f"coder {number}")


def replaced_tables(weights: Weights | None) -> dict[str, np.ndarray]:
    """Coder 1's tables that a model brings along."""
    tensors = weights.tensors if weights else {}
    names = [name for name in ("density", "mass", "centroid") if f"exact.{name}" in tensors]
    replaced = {name: tensors[f"exact.{name}"].astype(np.int64) for name in names}
    assert all(array.shape == TRELLIS_FORM[name][1] for name, array in replaced.items())
    assert "centroid" not in replaced or not replaced["centroid"][:, 0].any()
    return replaced


def sample_part(coder: Coder, mean_X: np.ndarray, index_X: np.ndarray) -> np.ndarray:
    """Samples of one part, in the shape of its means."""
    residual = coder.decode_part(index_X.ravel()).reshape(mean_X.shape)
    sample_X = 4 * mean_X + residual
    for array in (residual, sample_X):
        require(bool((array >= -INT32).all() and (array < INT32).all()), "sample is too large")
    return sample_X


def decode(stream: bytes, weights: Weights) -> Latents:
    """Latents of a stream, proven by its digests."""
    header, sections = container.parse(stream)
    if header.model != weights.digest[:8]:
        raise Unsupported("another model")
    shift_2M = read_shifts(sections.get(container.CALIBRATION), weights.latent)
    coder = make_coder(header.coder, header.parameters, sections[container.LATENTS], SEED, weights)
    z_Nhw, y_MHW, parameters = decode_latents(coder, header, weights, shift_2M)
    coder.finish()
    require(short_digest(parameters) == header.parameters_digest, "parameters digest")
    latents = array_bytes(z_Nhw, "<i4") + array_bytes(y_MHW, "<i4")
    require(short_digest(latents) == header.latents_digest, "latents digest")
    return Latents(header, z_Nhw, y_MHW)


def decode_latents(
    coder: Coder, header: container.Header, weights: Weights, shift_2M: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Hyper latents, latents, and the bytes that the parameters digest covers."""
    nets, (level, eighths) = Networks(weights), header.rate
    height, width = -(-header.height // 64), -(-header.width // 64)
    z_shape, y_shape = (weights.hyper, height, width), (weights.latent, 4 * height, 4 * width)
    z_means, z_indices = (
        np.broadcast_to(array[:, None, None], z_shape) for array in (nets.hyper_mean_N, nets.hyper_index_N)
    )
    z_Nhw = sample_part(coder, z_means, z_indices)
    parity_MHW = np.indices(y_shape).sum(axis=0) % 2
    y_MHW, parameters = np.zeros(y_shape, np.int64), b""
    h = beside = nets.features(z_Nhw, level)
    raw = nets.raw_first(h, level)
    for parity in (0, 1):
        if parity == 1:
            beside, raw = nets.raw_second(h, raw, y_MHW, level)
        for number, group in enumerate(nets.groups):
            mean, index = prior(
                nets.raw_of_group((parity, number), beside, raw, y_MHW, level), level, eighths
            )
            # the digest is of what the networks say, before any shift
            parameters += array_bytes(mean, "<i4") + array_bytes(index, "u1")
            here, moved = parity_MHW[group] == parity, calibrated(index, shift_2M[parity, group])
            y_MHW[group][here] = sample_part(coder, mean[here], moved[here])
    return z_Nhw, y_MHW, parameters
