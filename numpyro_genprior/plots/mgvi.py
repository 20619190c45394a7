"""MGVI: how far the mean moved, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.infer.mgvi import MGVIResult
from numpyro_genprior.infer.mgvi.result import MAX_LAST_MOVE
from numpyro_genprior.plots.style import BAD, DATA, PRIOR, axes, check, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def mgvi(result: MGVIResult, *, ax: Axes | None = None) -> Axes:
    """Convergence: the distance that the mean moved in each step, and the last Newton step.

    Distances are in posterior standard deviations. The curve levels off at the Monte Carlo noise
    of the samples, after which more steps do not help; above the dashed line the last step gives
    a warning. The lower curve is the last Newton step of the minimisation within each step.

    Parameters
    ----------
    result
        The result of ``MGVI(model).run(...)``.
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
    from matplotlib.ticker import MaxNLocator

    check(result, MGVIResult, "mgvi", "MGVI(model).run(key, num_steps, ...)", module="infer")
    ax, steps = axes(ax), np.arange(1, len(result.kl) + 1)
    ax.plot(steps, result.moved, marker="o", markersize=4, linewidth=1, color=DATA,
            label="mean moved by")  # fmt: skip
    ax.plot(steps, result.decrement, marker="s", markersize=3.5, linewidth=1, color=PRIOR,
            label="last Newton step")  # fmt: skip
    ax.axhline(MAX_LAST_MOVE, linestyle="--", linewidth=0.8, color=BAD,
               label="warning above")  # fmt: skip
    ax.set_yscale("log", nonpositive="mask")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("step")
    ax.set_ylabel("posterior standard deviations")
    legend(ax)
    return ax
