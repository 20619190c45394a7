"""Parallel tempering: how often swaps and local moves are accepted, by inverse temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.infer.tempering import TemperingReport
from numpyro_genprior.plots.style import BAD, DATA, axes, check, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINEAR_DECADES = 0.5  # width of the linear part of the β axis, in decades


def tempering(result: TemperingReport, *, ax: Axes | None = None) -> Axes:
    """Mean acceptance of swaps and of local moves against β, one line for each ensemble.

    Swap rates that are equal for all pairs mean that the schedule is well adapted; a dip is a
    bottleneck between the prior (β = 0, on the left) and the posterior (β = 1). The axis of β is
    logarithmic above the smallest positive β.

    Parameters
    ----------
    result
        The result of ``ParallelTempering.report(mcmc)``.
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
    remedy = "ParallelTempering.report(mcmc)"
    check(result, TemperingReport, "tempering", remedy, module="infer")
    ax = axes(ax)
    for chain, betas in enumerate(result.betas):
        first = chain == 0
        middle = np.concatenate([betas[1:2] / 2, np.sqrt(betas[1:-1] * betas[2:])])
        ax.plot(middle, result.swap_rates[chain], marker="o", markersize=4, linewidth=1,
                color=DATA, alpha=0.7, label="swaps of neighbours" if first else "")  # fmt: skip
        ax.plot(betas[1:], result.acceptance[chain], marker="s", markersize=3.5, linewidth=1,
                color=BAD, alpha=0.7, label="local moves" if first else "")  # fmt: skip
    smallest = float(result.betas[:, 1].min())
    ax.set_xscale("symlog", linthresh=smallest, linscale=LINEAR_DECADES)
    ax.set_xlim(0, 1.05)
    ax.set_ylim(0, 1)
    ax.set_xlabel("inverse temperature β")
    ax.set_ylabel("mean acceptance")
    legend(ax)
    return ax
