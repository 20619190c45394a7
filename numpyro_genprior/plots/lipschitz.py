"""`lipschitz`: local Lipschitz constants of a generator, and their bounds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.diagnostics import Lipschitz
from numpyro_genprior.plots.style import BAD, DATA, PRIOR, axes, check, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def lipschitz(result: Lipschitz, *, ax: Axes | None = None) -> Axes:
    """Distribution function of the local constants, with the largest one and the upper bound.

    The Lipschitz constant lies between the two lines, in the grey band; without an upper bound the
    band has no right edge.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.lipschitz`.
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
    check(result, Lipschitz, "lipschitz", "lipschitz(prior, key)")
    ax = axes(ax)
    values = np.sort(np.asarray(result.values, float))
    tiny = 1e-6 * max(values[-1], 1e-30)  # the axis is logarithmic
    values = np.maximum(values, tiny)
    bounded = math.isfinite(result.bound)
    upper = max(result.bound, values[-1]) if bounded else 3 * values[-1]
    margin = (upper / values[0]) ** 0.05 * 1.02
    ax.set_xscale("log")
    ax.set_xlim(values[0] / margin, upper * margin if bounded else upper)
    ax.set_ylim(0, 1.02)
    ax.axvspan(values[-1], upper, color=PRIOR, alpha=0.25, linewidth=0)
    ax.ecdf(values, color=DATA, linewidth=1.6, label=f"{len(values)} prior draws")
    ax.axvline(values[-1], color=DATA, linewidth=1, linestyle="--",
               label=f"largest seen: {result.max:.3g}")  # fmt: skip
    if bounded:
        ax.axvline(upper, color=BAD, linewidth=1, linestyle="--",
                   label=f"upper bound: {result.bound:.3g}")  # fmt: skip
    else:
        ax.plot([], [], " ", label=f"no upper bound ({result.unbounded})")
    ax.set_xlabel("local Lipschitz constant (event units per prior sd)")
    ax.set_ylabel("share of draws below")
    legend(ax)
    return ax
