"""Index coding of Gaussian latents: relative entropy coding as a lossy compressor of numbers.

A coder takes, for each latent dimension, an observation and the index of a prior scale, and sends a sample of the
posterior in about as many bits as the posterior differs from the prior. ``coder(name_or_number)`` gives one:
"trellis" (1), the default, or "irec" (2). This floor knows numbers only: no image, no model, no file. What decides a
decoded value is integers (``tables``, ``noise``); floats, in the encoder, only decide which value is sent.

The contract is ``base``, the format of the payload ``docs/format.md``, the law and its measurements ``docs/theory.md``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbatch.rec.base import Bits as Bits
from recbatch.rec.base import Coder as Coder
from recbatch.rec.base import Reader as Reader
from recbatch.rec.base import Writer as Writer

if TYPE_CHECKING:
    from recbatch.rec.coders.registry import coder as coder
    from recbatch.rec.tables import Tables as Tables

_HOMES = {"coder": "coders.registry", "Tables": "tables"}  # imported when first used: tables need numba


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
