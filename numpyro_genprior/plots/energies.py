"""Energies at the ends of a search for modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from numpyro_genprior.infer.map_result import MAPEstimate


def start_energies(estimate: MAPEstimate, *, ax: Axes | None = None) -> Axes:
    """Draw the energy at the end of each start above that of the best mode, lowest first.

    Parameters
    ----------
    estimate
        The result of `numpyro_genprior.infer.find_map`.
    ax
        Axes to draw in; None for a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With one marker for each start whose energy is finite: a colour for each mode, grey for
        those that did not converge, and a line at 3 nats, within which modes compete.
    """
    from numpyro_genprior.infer.map_result import MAX_COMPETING_GAP

    axes = style.axes(ax)
    starts = estimate.starts
    order = np.argsort(starts.energy)[: int(starts.finite.sum())]
    rank = np.empty(len(starts), int)
    rank[order] = np.arange(len(order))
    above = starts.energy - estimate.energy
    assigned = {i for mode in estimate.modes for i in mode.starts}
    rest = [i for i in order if i not in assigned]
    for index, mode in enumerate(estimate.modes):
        members = np.array(mode.starts)
        label = f"mode {index + 1}, {mode.share:.0%}"
        axes.plot(rank[members], above[members], "o", ms=5, label=label)
    if rest:
        axes.plot(rank[rest], above[rest], "o", ms=5, mfc="none", color=style.PRIOR,
                  label="not converged")  # fmt: skip
    axes.axhline(MAX_COMPETING_GAP, color=style.PRIOR, lw=1, ls=":", label="3 nats")
    axes.set_yscale("symlog", linthresh=MAX_COMPETING_GAP)
    top = float(np.max(above[order], initial=MAX_COMPETING_GAP))
    axes.set_ylim(-0.3, 2 * top)
    axes.set_xlabel("start, by energy")
    axes.set_ylabel("energy above the best [nats]")
    style.legend(axes, columns=4)
    return axes
