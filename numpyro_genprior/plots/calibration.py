"""Calibration: ranks with their bands, coverage by level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.diagnostics import SBC, TARP, Coverage
from numpyro_genprior.plots.style import BAD, DATA, PRIOR, axes, check

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 6  # failing quantities that the legend names


def sbc_ranks(result: SBC | TARP, *, ax: Axes | None = None) -> Axes:
    """Empirical distribution functions of ranks minus the uniform one, with simultaneous bands.

    A line for each quantity. Lines that leave the grey band anywhere are miscalibrated; those that
    fail after correction for their number are red and named. A line that rises first and falls
    below zero later is a posterior that is too narrow.

    Parameters
    ----------
    result
        Of `numpyro_genprior.diagnostics.sbc` or `numpyro_genprior.diagnostics.tarp`.
    ax
        Axes to draw on; None for a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        For another object.
    """
    check(result, (SBC, TARP), "sbc_ranks", "sbc(model, key, ...)")
    ax, bands = axes(ax), result.simultaneous
    x = np.concatenate([[0], bands.points, [1]])

    def closed(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], values, [0]])

    ax.fill_between(x, closed(bands.lower), closed(bands.upper), color=PRIOR, alpha=0.35,
                    linewidth=0, step="mid",
                    label=f"{1 - result.level:.0%} of one quantity")  # fmt: skip
    failing = result.failing
    good = [name for name in bands.difference if name not in failing]
    for place, name in enumerate(good):
        label = f"{len(good)} that pass" if place == 0 else ""
        ax.plot(
            x, closed(bands.difference[name]), color=DATA, linewidth=0.8, alpha=0.6, label=label
        )
    for place, name in enumerate(failing):
        more = len(failing) - NAMED
        label = name if place < NAMED else f"and {more} more that fail" if place == NAMED else ""
        ax.plot(x, closed(bands.difference[name]), color=BAD, linewidth=1.2, label=label)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xlabel("rank of the truth among posterior draws (share)")
    ax.set_ylabel("share of ranks below, minus uniform")
    ax.legend(frameon=False, fontsize=8)
    return ax


def coverage(result: Coverage, *, ax: Axes | None = None) -> Axes:
    """Share of truths inside central intervals by nominal level, with standard errors.

    Below the diagonal intervals are too narrow, above it too wide.

    Parameters
    ----------
    result
        Of `numpyro_genprior.diagnostics.coverage`.
    ax
        Axes to draw on; None for a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        For another object.
    """
    check(result, Coverage, "coverage", "coverage(model, key, ..., events=held_out)")
    ax = axes(ax, width=4.2, height=4.0)
    ax.fill_between([0, 1], [0, 1], 0, color=BAD, alpha=0.06, linewidth=0)
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    ax.text(0.97, 0.04, "too narrow", ha="right", fontsize=8, color=BAD)
    failing = result.failing
    for name, covered in result.coverage.items():
        wrong = name in failing
        ax.errorbar(result.levels, covered, result.error[name], marker="o", markersize=4,
                    linewidth=1, color=BAD if wrong else DATA, alpha=1 if wrong else 0.7,
                    label=name)  # fmt: skip
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("nominal level")
    ax.set_ylabel("share of truths inside")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return ax
