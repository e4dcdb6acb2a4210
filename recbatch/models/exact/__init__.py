"""Exact networks: convolutions whose integers are the same on every machine (docs/decisions/0002)."""

from __future__ import annotations

from recbatch.models.exact.compand import COMPAND_EXP, COMPAND_RANGE, THRESHOLDS, compand, compand_train
from recbatch.models.exact.errors import (
    ExactBoundExceeded,
    ExactLayerMisused,
    ExactOperandTooWide,
    InexactArithmetic,
    MalformedExactLayer,
)
from recbatch.models.exact.layers import ExactConv2d, FoldedConv2d, integer_bytes, quantise, to_int32
from recbatch.models.exact.mode import exact_mode, guard_environment
from recbatch.models.exact.selftest import RUNGS, Trial, at_least, ladder_report

__all__ = [
    "COMPAND_EXP",
    "COMPAND_RANGE",
    "RUNGS",
    "THRESHOLDS",
    "ExactBoundExceeded",
    "ExactConv2d",
    "ExactLayerMisused",
    "ExactOperandTooWide",
    "FoldedConv2d",
    "InexactArithmetic",
    "MalformedExactLayer",
    "Trial",
    "at_least",
    "compand",
    "compand_train",
    "exact_mode",
    "guard_environment",
    "integer_bytes",
    "ladder_report",
    "quantise",
    "to_int32",
]

guard_environment()  # must precede torch's first convolution in this process
