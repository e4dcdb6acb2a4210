"""What can go wrong between a trained network and its integers."""

from __future__ import annotations

from typing import ClassVar

from recbatch.errors import CorruptData, RecbatchError, UsageError


class ExactLayerMisused(UsageError):
    """An exact layer was built or called with arguments that its arithmetic doesn't allow."""

    code: ClassVar[str] = "exact-layer-misused"

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"The exact layer can't be used so: {self.problem}. {self.remedy}."


class ExactBoundExceeded(CorruptData):
    """A layer's sums may leave the integers that float32 holds exactly."""

    code: ClassVar[str] = "exact-bound-exceeded"

    def __init__(self, channel: int, value: int, limit: int) -> None:
        super().__init__(channel, value, limit)
        self.channel, self.value, self.limit = channel, value, limit

    def __str__(self) -> str:
        return (
            f"An exact layer's sums in output channel {self.channel} may reach {self.value}, the bound is "
            f"{self.limit}. Lower the layer's out_exp or call project_() in training; a stored model with "
            f"this error is damaged, fetch it again."
        )


class ExactOperandTooWide(CorruptData):
    """A weight, a range or a shift lies outside what every precision mode multiplies exactly."""

    code: ClassVar[str] = "exact-operand-too-wide"

    def __init__(self, what: str, value: str, allowed: str) -> None:
        super().__init__(what, value, allowed)
        self.what, self.value, self.allowed = what, value, allowed

    def __str__(self) -> str:
        return (
            f"An exact layer's {self.what} is {self.value}, allowed is {self.allowed}. Choose the layer's "
            f"ranges and exponents within that; a stored model with this error is damaged, fetch it again."
        )


class MalformedExactLayer(CorruptData):
    """A stored layer lacks a tensor, or one has the wrong type or shape."""

    code: ClassVar[str] = "malformed-exact-layer"

    def __init__(self, prefix: str, problem: str) -> None:
        super().__init__(prefix, problem)
        self.prefix, self.problem = prefix, problem

    def __str__(self) -> str:
        return f"Exact layer {self.prefix!r} can't be loaded: {self.problem}. Fetch the model file again."


class InexactArithmetic(RecbatchError):
    """This machine computed something that the exact arithmetic can't yield."""

    code: ClassVar[str] = "inexact-arithmetic"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"This machine's convolutions are not exact: {self.problem}. Remove fast-math settings, or run "
            f"under at_least('float64'); 'recbatch doctor' shows the paths in use."
        )
