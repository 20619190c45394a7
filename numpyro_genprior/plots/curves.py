"""Plots of posteriors over curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from numpyro_genprior.plots.style import (
    CAPTION_LINE,
    DATA,
    LABEL,
    PRIOR,
    finish,
    legend,
    open_frame,
    pyplot,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION_WIDTH = 110  # characters


def draw_curves(
    draws: np.ndarray,
    *,
    truth: ArrayLike | None,
    data: ArrayLike | None,
    residual: ArrayLike | None,
    mean: np.ndarray,
    sd: np.ndarray,
    num_draws: int,
    title: str | None,
    caption: str | None,
) -> Figure:
    """The mean, a band of two standard deviations, draws, truth and data in one panel.

    `draws` has shape ``(draw, size)``, and the other arguments are those of `posterior_images`. A
    residual is drawn in a second panel below.
    """
    lines = wrap(caption, CAPTION_WIDTH)
    ratios = [1] if residual is None else [3, 1]
    height = 3.4 + 1.2 * (len(ratios) - 1) + CAPTION_LINE * len(lines)
    figure, panels = pyplot().subplots(
        len(ratios),
        1,
        figsize=(8.0, height),
        height_ratios=ratios,
        layout="constrained",
        squeeze=False,
    )
    axes, index = panels[0, 0], np.arange(len(mean))
    band = {"color": DATA, "alpha": 0.2, "linewidth": 0, "label": "mean ± 2 sd"}
    axes.fill_between(index, mean - 2 * sd, mean + 2 * sd, **band)
    rows = np.linspace(0, len(draws) - 1, min(num_draws, len(draws))).round().astype(int)
    for i, row in enumerate(rows):
        axes.plot(index, draws[row], color=PRIOR, linewidth=0.8, label="" if i else "draws")
    axes.plot(index, mean, color=DATA, linewidth=1.6, label="posterior mean")
    if truth is not None:
        axes.plot(index, np.asarray(truth), color="black", linewidth=1.2, label="truth")
    if data is not None and np.shape(data) == mean.shape:  # other data have another axis
        axes.plot(index, np.asarray(data), ".", color="black", markersize=4, label="data")
    legend(axes, columns=5)
    open_frame(axes)
    axes.margins(x=0.01)
    if residual is not None:
        below = panels[1, 0]
        below.axhline(0, color="black", linewidth=0.6)
        values = np.asarray(residual).ravel()
        below.plot(values, ".", color=DATA, markersize=4)
        if len(values) == len(mean):  # residuals of other data have another axis
            below.set_xlim(axes.get_xlim())
        below.set_ylabel("residual", fontsize=LABEL)
        open_frame(below)
    finish(figure, title, lines)
    return figure
