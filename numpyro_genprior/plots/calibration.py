"""Plots of calibration: ranks with their simultaneous bands, coverage by level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.diagnostics import Coverage
from numpyro_genprior.diagnostics.calibration.uniformity_test import RankTest
from numpyro_genprior.plots.style import BAD, DATA, PRIOR, axes, check, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))  # of failing quantities
MAX_NAMED = len(LINE_STYLES)  # failing quantities that the legend names


def sbc_ranks(result: RankTest, *, ax: Axes | None = None) -> Axes:
    """Empirical distribution functions of ranks minus the uniform one, with simultaneous bands.

    A line for each quantity. A quantity whose line leaves the grey band is miscalibrated; those
    that fail after correction for their number are red and named. A line that rises first and falls
    below zero later means a posterior that is too narrow.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.sbc` or `numpyro_genprior.diagnostics.tarp`.
    ax
        Axes to draw in; None for a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        If `result` has another type.
    """
    check(result, RankTest, "sbc_ranks", "sbc(model, key, ...)")
    ax, bands = axes(ax, width=6.4, height=3.8), result.simultaneous
    x = np.concatenate([[0], bands.points, [1]])

    def closed(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], values, [0]])

    ax.fill_between(x, closed(bands.lower), closed(bands.upper), color=PRIOR, alpha=0.35,
                    linewidth=0, step="mid",
                    label=f"{1 - result.level:.0%} band of one quantity")  # fmt: skip
    failing = result.failing
    passing = [name for name in bands.difference if name not in failing]
    for i, name in enumerate(passing):
        label = f"{len(passing)} that pass" if i == 0 else ""
        ax.plot(
            x, closed(bands.difference[name]), color=DATA, linewidth=0.8, alpha=0.6, label=label
        )
    for i, name in enumerate(failing):
        more, named = len(failing) - MAX_NAMED, i < MAX_NAMED
        label = name if named else f"and {more} more that fail" if i == MAX_NAMED else ""
        ax.plot(x, closed(bands.difference[name]), color=BAD, linewidth=1.2 if named else 0.6,
                alpha=1.0 if named else 0.5, label=label,
                linestyle=LINE_STYLES[i] if named else "-")  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xlabel("rank of the truth among posterior draws (share)")
    ax.set_ylabel("share of ranks below,\nminus uniform")
    legend(ax)
    return ax


def coverage(result: Coverage, *, ax: Axes | None = None) -> Axes:
    """Share of truths inside central intervals by nominal level, with standard errors.

    Below the diagonal intervals are too narrow, above it too wide.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.coverage`.
    ax
        Axes to draw in; None for a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        If `result` has another type.
    """
    check(result, Coverage, "coverage", "coverage(model, key, ..., events=held_out)")
    ax = axes(ax, width=4.2, height=4.4)
    ax.fill_between([0, 1], [0, 1], 0, color=BAD, alpha=0.06, linewidth=0, label="too narrow")
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="nominal")
    failing = result.failing
    for i, (name, covered) in enumerate(result.coverage.items()):
        wrong = name in failing
        ax.errorbar(result.levels, covered, result.error[name], marker="os^Dv"[i % 5],
                    markersize=4, linewidth=1, color=BAD if wrong else DATA,
                    alpha=1 if wrong else 0.7, label=name)  # fmt: skip
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("nominal level")
    ax.set_ylabel("share of truths inside")
    legend(ax)
    return ax
