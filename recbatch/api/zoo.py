"""The models that come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbatch.api.single import encode_measured
from recbatch.errors import RecbatchError

if TYPE_CHECKING:
    from PIL import Image

TEST_PSNR_DB = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One model of the package."""

    name: str
    digest: str
    size_bytes: int
    parameters: int
    architecture: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """How a model did on a test picture; ``problem`` is None where it did well."""

    name: str
    psnr: float | None  # None for a model of the lossless codec: every pixel came back, or it is a problem
    bpp: float | None
    problem: str | None


def model_names() -> list[str]:
    from recbatch.models import weights

    return weights.names()


def model(name: str) -> ModelInfo:
    """What is known of a model. Raises UnknownModel, BadWeights."""
    from recbatch.models import weights

    data = weights.read(name)
    tensors, metadata = weights.parse(data)
    return ModelInfo(
        name=name,
        digest=weights.digest(data).hex(),
        size_bytes=len(data),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        architecture=metadata.get("architecture", ""),
        metadata={key: value for key, value in metadata.items() if key not in {"name", "architecture"}},
    )


def verify_model(name: str) -> ModelCheck:
    """Load a model and code a test picture with it, there and back. Raises UnknownModel."""
    from recbatch.models import weights

    try:
        lossy = weights.architecture(weights.read(name)).startswith("photo/")
        encoded = encode_measured(_test_picture(), quality=50 if lossy else None, model=name)
    except weights.UnknownModel:
        raise
    except RecbatchError as error:
        return ModelCheck(name=name, psnr=None, bpp=None, problem=str(error))
    bpp = 8 * len(encoded.stream) / (encoded.width * encoded.height)
    problem = None
    if lossy and (encoded.psnr is None or encoded.psnr < TEST_PSNR_DB):
        problem = f"the test picture comes back at less than {TEST_PSNR_DB:.0f} dB"
    if not lossy and encoded.codec != "lossless":
        problem = "the test picture is not coded by it"
    return ModelCheck(name=name, psnr=encoded.psnr, bpp=bpp, problem=problem)


def _test_picture() -> Image.Image:
    """Smooth colours: what any trained model restores well."""
    from PIL import Image

    ramp = Image.linear_gradient("L").resize((192, 128))
    return Image.merge("RGB", (ramp, ramp.rotate(180), Image.radial_gradient("L").resize((192, 128))))
