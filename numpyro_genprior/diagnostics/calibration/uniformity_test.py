"""Tests of whether ranks are uniform: simultaneous bands, Pearson's χ², kinds of deviation."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from numpyro_genprior.diagnostics.calibration.convergence import Convergence
from numpyro_genprior.diagnostics.calibration.ranks import Ranks, jittered
from numpyro_genprior.diagnostics.multiple_testing import holm
from numpyro_genprior.results import Result, dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

CALIBRATED, MISCALIBRATED, UNDECIDED = "calibrated", "miscalibrated", "undecided"
NUM_NULL_SETS = 20_000  # simulated sets of uniform ranks that the bands are computed from
MAX_BINS = 32  # of Pearson's χ²


def chi_squared(ranks: Int[np.ndarray, " replications"], num_draws: int) -> float:
    """p-value of Pearson's χ² test that ranks are uniform on ``0 .. num_draws``."""
    number = len(ranks)
    bins = int(min(num_draws + 1, max(2, number // 8), MAX_BINS))
    bin_of = np.arange(num_draws + 1) * bins // (num_draws + 1)
    expected = np.bincount(bin_of, minlength=bins) * number / (num_draws + 1)
    counts = np.bincount(bin_of[ranks], minlength=bins)
    return float(stats.chi2.sf(np.sum((counts - expected) ** 2 / expected), bins - 1))


@dataclass(frozen=True)
class SimultaneousBands:
    """Differences between the empirical distribution functions of ranks and the uniform one.

    Attributes
    ----------
    points
        Where they are evaluated, between 0 and 1, of shape ``(points,)``.
    lower, upper
        Bounds between which the difference of uniform ranks stays at all points at once with
        probability ``1 - level``; of shape ``(points,)``.
    difference
        For each quantity, its difference.
    outside
        For each quantity, whether it leaves the bands anywhere.
    p_values
        For each quantity, the p-value of the test by these bands.
    """

    points: Float[np.ndarray, " points"]
    lower: Float[np.ndarray, " points"]
    upper: Float[np.ndarray, " points"]
    difference: dict[str, Float[np.ndarray, " points"]]
    outside: dict[str, bool]
    p_values: dict[str, float]


def simultaneous_bands(
    ranks: dict[str, Int[np.ndarray, " replications"]], num_draws: int, level: float
) -> SimultaneousBands:
    """Simultaneous bands and the test by them, after Säilynoja et al. 2022.

    At each point the number of uniform ranks below it is binomial. The statistic of a set of ranks
    is the smallest two-sided binomial p-value over the points; its distribution for uniform ranks
    is simulated with a fixed seed. All quantities must have the same number of ranks.
    """
    number = len(next(iter(ranks.values())))
    points = np.arange(1, num_draws + 1) / (num_draws + 1)
    counts = np.arange(number + 1)
    cdf = stats.binom.cdf(counts[None, :], number, points[:, None])
    survival = stats.binom.sf(counts[None, :] - 1, number, points[:, None])
    two_sided = np.minimum(1.0, 2 * np.minimum(cdf, survival))  # (points, counts)
    null = _null_statistics(two_sided, number, num_draws)
    critical = np.quantile(null, level)
    difference, p_values, outside = {}, {}, {}
    for name, values in ranks.items():
        below = np.cumsum(np.bincount(values, minlength=num_draws + 1))[:-1]
        statistic = two_sided[np.arange(num_draws), below].min()
        p_values[name] = float((1 + np.sum(null <= statistic)) / (1 + len(null)))
        outside[name] = bool(statistic < critical)
        difference[name] = below / number - points
    inside = two_sided >= critical
    lower = inside.argmax(1) / number - points
    upper = (number - inside[:, ::-1].argmax(1)) / number - points
    return SimultaneousBands(points, lower, upper, difference, outside, p_values)


def _null_statistics(two_sided: np.ndarray, number: int, num_draws: int) -> np.ndarray:
    """The statistic of simulated sets of uniform ranks, in 20 parts to save memory."""
    rng = np.random.default_rng(0)
    uniform = np.full(num_draws + 1, 1 / (num_draws + 1))
    parts = []
    for size in np.full(20, NUM_NULL_SETS // 20):
        below = np.cumsum(rng.multinomial(number, uniform, size=size), axis=1)[:, :-1]
        parts.append(two_sided[np.arange(num_draws)[None, :], below].min(1))
    return np.concatenate(parts)


def describe_deviation(ranks: Int[np.ndarray, " replications"], num_draws: int) -> str:
    """The largest deviation of ranks from uniform, of location or of spread, in words."""
    u = (ranks + 0.5) / (num_draws + 1)
    location = (u.mean() - 0.5) * np.sqrt(12 * len(u))
    spread = (u.var() * 12 - 1) * np.sqrt(len(u) / 0.8)
    if abs(location) > abs(spread):
        return "posterior too low" if location > 0 else "posterior too high"
    return "posterior too narrow" if spread > 0 else "posterior too wide"


@dataclass(frozen=True, repr=False, eq=False)
class RankTest(Result):
    """Ranks of the truth among posterior draws, and whether they are uniform.

    Attributes
    ----------
    ranks
        For each quantity, its ranks, integers from 0 to `num_draws`, of shape
        ``(replications,)``. Replications whose draws are not finite are left out.
    num_draws
        Number of draws that each truth was ranked among, after thinning.
    p_values
        For each quantity, the p-value of Pearson's χ² test for uniform ranks.
    simultaneous
        Simultaneous bands for the empirical distribution functions, with the test by them.
    level
        Probability of calling any quantity miscalibrated if none is.
    convergence
        Convergence of the inference runs.
    """

    ranks: dict[str, Int[np.ndarray, " replications"]]
    num_draws: int
    p_values: dict[str, float]
    simultaneous: SimultaneousBands
    level: float
    convergence: Convergence

    @classmethod
    def from_ranks(cls, ranked: Ranks, names: list[str], level: float) -> Self:
        """Test the ranks of the named quantities."""
        ranks, num_draws = dict(zip(names, ranked.ranks.T, strict=True)), ranked.num_draws
        p_values = {name: chi_squared(rank, num_draws) for name, rank in ranks.items()}
        bands = simultaneous_bands(ranks, num_draws, level)
        return cls(ranks, num_draws, p_values, bands, level, ranked.convergence)

    @property
    def num_replications(self) -> int:
        """Number of replications with finite draws."""
        return len(next(iter(self.ranks.values())))

    @property
    def adjusted(self) -> dict[str, float]:
        """p-values by the bands, adjusted for the number of quantities by Holm's method."""
        raw = self.simultaneous.p_values
        return dict(zip(raw, holm(np.array(list(raw.values()))).tolist(), strict=True))

    @property
    def failing(self) -> dict[str, str]:
        """The quantities whose ranks are not uniform, worst first, and what is wrong with each."""
        adjusted = self.adjusted
        wrong = [name for name, p in adjusted.items() if p <= self.level]
        wrong.sort(key=lambda name: (adjusted[name], self.p_values[name]))
        return {name: describe_deviation(self.ranks[name], self.num_draws) for name in wrong}

    @property
    def verdict(self) -> str:
        """``"calibrated"``, ``"miscalibrated"``, or ``"undecided"`` if inference was unreliable."""
        if self.failing:
            return MISCALIBRATED
        return CALIBRATED if self.convergence.acceptable else UNDECIDED

    @property
    def warnings(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Reasons to doubt the inference runs, one sentence each."""
        return self.convergence.warnings(self.num_draws)

    @abstractmethod
    def __str__(self) -> str: ...

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(verdict={self.verdict!r}, quantities={len(self.ranks)}, "
            f"failing={len(self.failing)}, replications={self.num_replications})"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the empirical distribution functions of the ranks with their bands."""
        from numpyro_genprior.plots import sbc_ranks

        return sbc_ranks(self, ax=ax)

    def to_dataset(self) -> xarray.Dataset:
        """Ranks, p-values and bands, with dimensions quantity, replication and point."""
        bands, names, by_quantity = self.simultaneous, list(self.ranks), ("quantity",)
        adjusted = self.adjusted
        return dataset(
            {
                "rank": (("quantity", "replication"), np.stack(list(self.ranks.values()))),
                "difference": (("quantity", "point"), np.stack(list(bands.difference.values()))),
                "lower": (("point",), bands.lower),
                "upper": (("point",), bands.upper),
                "p_value": (by_quantity, [bands.p_values[name] for name in names]),
                "adjusted_p_value": (by_quantity, [adjusted[name] for name in names]),
                "chi_squared_p_value": (by_quantity, [self.p_values[name] for name in names]),
            },
            coords={"quantity": names, "point": bands.points},
            attrs={"num_draws": self.num_draws, "level": self.level, "verdict": self.verdict},
        )

    def to_datatree(self) -> xarray.DataTree:
        """Ranks in the form that ``arviz_plots.plot_ecdf_pit`` (ArviZ 1.x) reads. Needs no ArviZ.

        The group ``prior_sbc`` has a variable for each quantity, its ranks as numbers between 0
        and 1 (jittered within each rank), with dimensions ``chain`` (one) and ``draw`` (one
        for each replication). Choose among many quantities by ``var_names=``. A "/" in a name
        becomes "|".
        """
        import xarray

        transforms = {
            name.replace("/", "|"): (
                ("chain", "draw"),
                jittered(rank, self.num_draws, seed=i)[None],
            )
            for i, (name, rank) in enumerate(self.ranks.items())
        }
        coords = {"chain": [0], "draw": np.arange(self.num_replications)}
        attrs = {"num_draws": self.num_draws}
        return xarray.DataTree.from_dict({"prior_sbc": xarray.Dataset(transforms, coords, attrs)})
