"""Which models some settings need: asked by the driver of a job, which loads no network."""

from __future__ import annotations

from recbatch.codec.types import DEFAULT_MODELS, Settings
from recbatch.models import weights


def models_of(settings: Settings) -> list[tuple[bytes, bytes]]:
    """Digest (32 bytes) and safetensors bytes of the models that these settings need.

    The one that ``settings.model`` names, for previews the lossy one whose latents it knows, and a lossless one
    for ``auto``. Raises UnknownModel, WrongModel, BadWeights.
    """
    if settings.mode == "original":
        return []
    files = [weights.read(settings.model)]
    weights.check_kind(files[0], "photo" if settings.mode == "lossy" else "exact", name=settings.model)
    if settings.auto:
        files.append(weights.read(DEFAULT_MODELS["lossless"]))
    if settings.mode == "lossless" and settings.preview:
        head = weights.stored(files[0], "synthesis.latents_of")
        if head is not None:
            files.append(weights.find(head))
    return [(weights.digest(data), data) for data in files]
