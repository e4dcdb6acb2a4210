"""Who runs in ``recbatch bench rec``: the shipped coders at several efforts, the baselines, exact posterior samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast

from recbatch import rec
from recbatch.bench.coders.registry import BASELINES, baseline
from recbatch.bench.ideal import IdealCoder, PosteriorCoder
from recbatch.codec import Settings
from recbatch.codec.refine import STEPS_OF_EFFORT
from recbatch.errors import UsageError
from recbatch.rec.base import Coder
from recbatch.rec.coders.registry import NUMBERS
from recbatch.rec.coders.trellis import Trellis

DEFAULT_EFFORTS = (1, 3, 5, 6, 7, 8, 9)
IREC = "irec"
IREC_PRESETS = ((5, "lossy"), (9, "lossless"))  # effort chooses; the paper's two settings
POSTERIOR, ECSQ = "posterior", "ecsq"
EXACT, CALIBRATED = (
    "exact",
    "calibrated",
)  # posterior samples under the networks' priors, under calibrated ones
PLAIN = {"trellis-14": 14, "trellis-16": 16}  # the search of efforts 8 and 9, without their refinement
SLOW = frozenset({IREC, "importance", "pfr"})  # run on some images only
THREADED = frozenset(
    {*NUMBERS, "importance", "pfr", "fixed-trellis", *PLAIN}
)  # search on as many threads as numba is set to

Key = tuple[str, int | None]  # coder and effort


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One coder with its setting."""

    coder: str
    effort: int | None  # None where a coder knows none
    setting: str

    @property
    def key(self) -> Key:
        return self.coder, self.effort

    @property
    def few(self) -> bool:
        """Slow: it runs on some images only."""
        return self.coder in SLOW

    @property
    def ideal(self) -> bool:
        """Without a stream; its bits are an ideal code length."""
        return self.coder == POSTERIOR

    @property
    def calibrated(self) -> bool:
        """Whether the coder's scale indices are calibrated image by image, as all archives' are."""
        return self.setting != EXACT

    @property
    def steps(self) -> int:
        """Steps of refinement before each pass, as archives of this effort have them; iREC has its paper's settings."""
        return STEPS_OF_EFFORT.get(self.effort or 0, 0) if self.coder != IREC else 0

    @property
    def threaded(self) -> bool:
        return self.coder in THREADED and not self.steps

    @property
    def default(self) -> bool:
        """Whether archives are written by it unless told otherwise."""
        return self.key == (Settings().coder, Settings().effort)

    @property
    def label(self) -> str:
        return f"{self.coder}, {self.setting}" if self.setting else self.coder


IREC_LOSSLESS: Key = (IREC, IREC_PRESETS[1][0])
REFERENCES: tuple[Key, ...] = (
    IREC_LOSSLESS,
    (ECSQ, None),
    (POSTERIOR, None),
)  # others are compared with these


def names() -> list[str]:
    """Coders that a run can be limited to."""
    return [*NUMBERS, *PLAIN, *BASELINES, POSTERIOR]


def contestants(
    efforts: Sequence[int] = DEFAULT_EFFORTS, coders: Sequence[str] | None = None, *, slow: bool = True
) -> list[Contestant]:
    """All that run, those with a stream first; the references run whatever ``coders`` says.

    Args:
        efforts: of the shipped coders but iREC, whose effort chooses among its two published settings.
        coders: only these; None means all.
        slow: without it the slow ones stay out.

    Raises:
        UsageError: there is no coder of such a name.
    """
    if unknown := [name for name in coders or () if name not in names()]:
        raise UsageError(f"There is no coder {unknown[0]!r} to measure. Take some of: {', '.join(names())}.")
    everyone: list[Contestant] = []
    for name in NUMBERS:
        settings = IREC_PRESETS if name == IREC else [(n, f"effort {n}") for n in dict.fromkeys(efforts)]
        everyone += [Contestant(coder=name, effort=effort, setting=setting) for effort, setting in settings]
    everyone += [Contestant(coder=name, effort=None, setting="") for name in PLAIN]
    everyone += [Contestant(coder=name, effort=None, setting="") for name in BASELINES]
    everyone += [Contestant(coder=POSTERIOR, effort=None, setting=EXACT)]
    everyone += [Contestant(coder=POSTERIOR, effort=1, setting=CALIBRATED)]
    return [
        one
        for one in everyone
        if (coders is None or one.coder in coders or one.key in REFERENCES) and (slow or not one.few)
    ]


def make_coder(contestant: Contestant, tables: rec.Tables | None) -> Coder:
    """The coder with the tables of a model, or with the shipped ones."""
    if contestant.coder in PLAIN:
        return Trellis(bits=PLAIN[contestant.coder], tables=tables or rec.Tables.default())
    if contestant.coder in BASELINES:
        return baseline(contestant.coder, tables)
    return rec.coder(contestant.coder, effort=contestant.effort or Settings().effort, tables=tables)


def make_ideal(seed: int = 0) -> IdealCoder:
    """Exact posterior samples."""
    return PosteriorCoder(seed)


def on_device(coder: Coder, device: str) -> Coder | None:
    """The same coder with its search on a torch device, None where it can't search there.

    A coder that can has a field ``device``; the samples it finds there may be others, as good.
    """
    if device == "cpu":
        return coder
    if is_dataclass(coder) and any(field.name == "device" for field in fields(coder)):
        return cast(Coder, replace(cast(Any, coder), device=device))
    return None
