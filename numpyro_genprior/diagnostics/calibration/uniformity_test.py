"""`RankTest`: what tests of uniform ranks have in common."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Self

import numpy as np

from numpyro_genprior.diagnostics.calibration.convergence import Health
from numpyro_genprior.diagnostics.calibration.ranks import Bands, bands, chi_squared, holm, shape_of

CALIBRATED, MISCALIBRATED, UNDECIDED = "calibrated", "miscalibrated", "undecided"


@dataclass(frozen=True, repr=False)
class RankTest(ABC):
    """Ranks of the truth among posterior draws, and whether they are uniform.

    Attributes
    ----------
    ranks
        For each quantity (``"x_latent[3]"``), its ranks, integers from 0 to `num_draws`, of shape
        ``(replications,)``. Replications whose draws are not finite are left out.
    num_draws
        Draws that each truth was ranked among, after thinning.
    p_values
        For each quantity, of Pearson's χ² for uniform ranks.
    simultaneous
        Bands for the differences of empirical distribution functions, with the test by them.
    level
        Probability of calling any quantity miscalibrated when none is.
    health
        In how many replications inference had trouble.
    """

    ranks: dict[str, np.ndarray]
    num_draws: int
    p_values: dict[str, float]
    simultaneous: Bands
    level: float
    health: Health

    @property
    def adjusted(self) -> dict[str, float]:
        """p-values by the bands, adjusted for the number of quantities (Holm)."""
        raw = self.simultaneous.p_values
        return dict(zip(raw, holm(np.array(list(raw.values()))).tolist(), strict=True))

    @property
    def failing(self) -> dict[str, str]:
        """What is wrong with the quantities whose ranks are not uniform, worst first."""
        adjusted = self.adjusted
        wrong = [name for name, p in adjusted.items() if p <= self.level]
        wrong.sort(key=lambda name: (adjusted[name], self.p_values[name]))
        return {name: shape_of(self.ranks[name], self.num_draws) for name in wrong}

    @property
    def verdict(self) -> str:
        """``"calibrated"``, ``"miscalibrated"`` or ``"undecided"`` (inference had trouble)."""
        if self.failing:
            return MISCALIBRATED
        return CALIBRATED if self.health.sound else UNDECIDED

    @classmethod
    def of(cls, ranks: dict[str, np.ndarray], num_draws: int, level: float, health: Health) -> Self:
        """The tests of ranks."""
        p_values = {name: chi_squared(rank, num_draws) for name, rank in ranks.items()}
        return cls(ranks, num_draws, p_values, bands(ranks, num_draws, level), level, health)
