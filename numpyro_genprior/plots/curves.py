"""Pictures of posteriors over curves."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_genprior.plots.style import DATA, PRIOR, pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curves(
    draws: np.ndarray,
    *,
    truth: Any,
    data: Any,
    residual: Any,
    mean: np.ndarray,
    sd: np.ndarray,
    num_draws: int,
    title: str | None,
    caption: str | None,
) -> Figure:
    """Mean and two standard deviations as a band, draws, truth and data in one panel.

    `draws` has shape ``(draw, size)``. A residual gets a panel of its own below.
    """
    words = textwrap.wrap(caption or "", 110)
    ratios = [3, 1] if residual is not None else [1]
    height = 3.4 + (1.2 if residual is not None else 0) + 0.16 * len(words)
    figure, panels = pyplot().subplots(
        len(ratios),
        1,
        figsize=(8.0, height),
        height_ratios=ratios,
        layout="constrained",
        squeeze=False,
        sharex=False,
    )
    axes, index = panels[0, 0], np.arange(len(mean))
    axes.fill_between(index, mean - 2 * sd, mean + 2 * sd, color=DATA, alpha=0.2, linewidth=0,
                      label="mean ± 2 sd")  # fmt: skip
    rows = np.linspace(0, len(draws) - 1, min(num_draws, len(draws))).round().astype(int)
    for place, row in enumerate(rows):
        axes.plot(index, draws[row], color=PRIOR, linewidth=0.8, label="" if place else "draws")
    axes.plot(index, mean, color=DATA, linewidth=1.6, label="posterior mean")
    if truth is not None:
        axes.plot(index, np.asarray(truth), color="black", linewidth=1.2, label="truth")
    if data is not None and np.shape(data) == mean.shape:  # data of another kind have other axes
        axes.plot(index, np.asarray(data), ".", color="black", markersize=4, label="data")
    axes.legend(frameon=False, fontsize=8, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    if residual is not None:
        below = panels[1, 0]
        below.axhline(0, color="black", linewidth=0.6)
        below.plot(np.asarray(residual).ravel(), ".", color=DATA, markersize=4)
        below.set_ylabel("residual", fontsize=9)
        below.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=12)
    if words:
        figure.supxlabel("\n".join(words), fontsize=9, x=0.02, ha="left")
    return figure
