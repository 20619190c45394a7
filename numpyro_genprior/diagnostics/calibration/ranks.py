"""Ranks of a truth among draws, and whether they are uniform."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

NUM_NULL = 20_000  # sets of uniform ranks that the simultaneous bands are made of


def rank(values: np.ndarray, truth: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """How many draws lie below the truth, ties broken at random.

    Parameters
    ----------
    values
        Draws, of shape ``(..., draws, quantities)``.
    truth, chance
        The truth, and numbers uniform on [0, 1), of shape ``(..., quantities)``.
    """
    below = (values < truth[..., None, :]).sum(-2)
    ties = (values == truth[..., None, :]).sum(-2)
    return below + np.floor(chance * (ties + 1)).astype(int)


def chi_squared(ranks: np.ndarray, num_draws: int) -> float:
    """p-value of Pearson's χ² for ranks uniform on ``0 .. num_draws``."""
    number = len(ranks)
    bins = int(min(num_draws + 1, max(2, number // 8), 32))
    bin_of = np.arange(num_draws + 1) * bins // (num_draws + 1)
    expected = np.bincount(bin_of, minlength=bins) * number / (num_draws + 1)
    counts = np.bincount(bin_of[ranks], minlength=bins)
    return float(stats.chi2.sf(np.sum((counts - expected) ** 2 / expected), bins - 1))


@dataclass(frozen=True)
class Bands:
    """Differences of empirical distribution functions of ranks from the uniform one.

    Attributes
    ----------
    points
        Where, of shape ``(points,)``, between 0 and 1.
    lower, upper
        Between which all points of the difference of uniform ranks lie at once, with probability
        ``1 - level``; of shape ``(points,)``.
    difference
        For each quantity, its difference.
    outside
        For each quantity, whether it leaves the bands anywhere.
    p_values
        For each quantity, how probable it is for uniform ranks to go so far out of the ordinary
        at any point.
    """

    points: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    difference: dict[str, np.ndarray]
    outside: dict[str, bool]
    p_values: dict[str, float]


def bands(ranks: dict[str, np.ndarray], num_draws: int, level: float) -> Bands:
    """Simultaneous bands, and the test by them.

    At each point the number of ranks below it is binomial. The statistic of a set of ranks is the
    smallest two-sided binomial p-value over points; its law for uniform ranks is simulated, with a
    fixed seed. Quantities must have the same number of ranks.
    """
    number = len(next(iter(ranks.values())))
    inner = np.arange(1, num_draws + 1) / (num_draws + 1)
    counts = np.arange(number + 1)
    cdf = stats.binom.cdf(counts[None, :], number, inner[:, None])
    above = stats.binom.sf(counts[None, :] - 1, number, inner[:, None])
    tail = np.minimum(1.0, 2 * np.minimum(cdf, above))  # (points, counts)
    null = _null(tail, number, num_draws)
    rows = np.arange(num_draws)
    difference, p_values, outside = {}, {}, {}
    cut = np.quantile(null, level)
    for name, values in ranks.items():
        below = np.cumsum(np.bincount(values, minlength=num_draws + 1))[:-1]
        least = tail[rows, below].min()
        p_values[name] = float((1 + np.sum(null <= least)) / (1 + len(null)))
        outside[name] = bool(least < cut)
        difference[name] = below / number - inner
    inside = tail >= cut
    low = inside.argmax(1) / number - inner
    high = (number - inside[:, ::-1].argmax(1)) / number - inner
    return Bands(inner, low, high, difference, outside, p_values)


def _null(tail: np.ndarray, number: int, num_draws: int) -> np.ndarray:
    """The statistic for sets of uniform ranks."""
    rng = np.random.default_rng(0)
    uniform = np.full(num_draws + 1, 1 / (num_draws + 1))
    parts = []
    for size in np.full(20, NUM_NULL // 20):
        below = np.cumsum(rng.multinomial(number, uniform, size=size), axis=1)[:, :-1]
        parts.append(tail[np.arange(num_draws)[None, :], below].min(1))
    return np.concatenate(parts)


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number (Holm 1979)."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def shape_of(ranks: np.ndarray, num_draws: int) -> str:
    """What is most wrong with ranks, in words."""
    u = (ranks + 0.5) / (num_draws + 1)
    shift = (u.mean() - 0.5) * np.sqrt(12 * len(u))
    spread = (u.var() * 12 - 1) * np.sqrt(len(u) / 0.8)
    if abs(shift) > abs(spread):
        return "posterior too low" if shift > 0 else "posterior too high"
    return "posterior too narrow" if spread > 0 else "posterior too wide"
