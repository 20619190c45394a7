"""`chain_modes`: the separation of the chains of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.diagnostics import ChainModes
from numpyro_genprior.plots.style import BAD, PANEL_TITLE, SMALL, axes, check

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED = 24  # chains whose numbers are written at the axes
MAX_ENERGIES = 12  # modes whose energies are written beside their squares


def chain_modes(result: ChainModes, *, ax: Axes | None = None) -> Axes:
    """Separation of each pair of chains, ordered by mode, with a square around each mode.

    White pairs overlap fully, dark ones are in separate modes. Beside each square is the mean
    energy of its chains, in nats.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.modes`.
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
    check(result, ChainModes, "chain_modes", "modes(mcmc)")
    ax = axes(ax, width=5.2, height=3.8)
    order = np.concatenate([np.asarray(members, int) for members in result.chains_by_mode])
    image = ax.imshow(
        result.separation[np.ix_(order, order)], cmap="Blues", vmin=0.5, vmax=1.0,
        interpolation="nearest",
    )  # fmt: skip
    ax.spines[["top", "right"]].set_visible(True)
    start, centres, energies = 0, [], []
    for members in result.chains_by_mode:
        size = len(members)
        corners = np.array([[0, 0, size, size, 0], [0, size, size, 0, 0]]) + start - 0.5
        ax.plot(*corners, color=BAD, linewidth=1.6, clip_on=False)
        centres.append(start + size / 2 - 0.5)
        energies.append(f"energy {result.energies[list(members)].mean():.1f}")
        start += size
    if result.num_modes <= MAX_ENERGIES:
        right = ax.secondary_yaxis("right")
        right.set_yticks(centres, energies, fontsize=SMALL, color=BAD)
        right.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("share of pairs of draws in the same order", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    named = len(order) <= MAX_NAMED
    positions = range(len(order)) if named else []
    names = [str(chain) for chain in order] if named else []
    ax.set_xticks(positions, names, fontsize=SMALL)
    ax.set_yticks(positions, names, fontsize=SMALL)
    ax.set_xlabel("chain" if named else "chains, by mode")
    ax.set_ylabel("chain" if named else "chains, by mode")
    title = "1 mode" if result.num_modes == 1 else f"{result.num_modes} separate modes"
    ax.set_title(f"{title}, r_hat {result.r_hat:.3g}", fontsize=PANEL_TITLE)
    return ax
