"""Mean and standard deviation of an event over draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.errors import message
from numpyro_genprior.plots.images import show_image
from numpyro_genprior.plots.style import DATA, PANEL_TITLE, axes, check, legend, pyplot
from numpyro_genprior.traces.moments import EventMoments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def event_moments(result: EventMoments, *, ax: Axes | None = None) -> Axes | Figure:
    """The mean of a curve with a band of two standard deviations, or both moments as images.

    Parameters
    ----------
    result
        The result of ``ngp.event_moments(prior, draws)``.
    ax
        Axes to draw a curve in; None for a new figure. Images are two panels of a new figure.

    Returns
    -------
    matplotlib.axes.Axes or matplotlib.figure.Figure
        The Axes of a curve, or the figure of an image.

    Raises
    ------
    TypeError
        If `result` has another type.
    ValueError
        If the event, its batch dimensions included, has neither one nor two dimensions.
    """
    check(result, EventMoments, "event_moments", "event_moments(prior, draws)", module="traces")
    mean, sd = result.mean, result.sd
    if mean.ndim == 2:
        return _images(mean, sd)
    if mean.ndim != 1:
        raise ValueError(
            message(
                "plots.event_moments draws curves and images",
                expected="moments with one or two dimensions",
                got=mean.shape,
                remedy="plot parts of result.mean and result.sd yourself",
            )
        )
    ax = axes(ax)
    index = np.arange(len(mean))
    band = {"color": DATA, "alpha": 0.2, "linewidth": 0, "label": "mean ± 2 sd"}
    ax.fill_between(index, mean - 2 * sd, mean + 2 * sd, **band)
    ax.plot(index, mean, color=DATA, linewidth=1.6, label="mean")
    for level, quantile in zip(result.probabilities, result.quantiles, strict=True):
        ax.plot(index, quantile, color=DATA, linewidth=0.8, linestyle="--", label=f"{level:.0%}")
    ax.margins(x=0.01)
    legend(ax, columns=5)
    return ax


def _images(mean: np.ndarray, sd: np.ndarray) -> Figure:
    aspect = mean.shape[0] / mean.shape[1]
    figure, panels = pyplot().subplots(
        1, 2, figsize=(6.0, 3.0 * aspect + 0.8), layout="constrained"
    )
    for ax, values, title in zip(panels, (mean, sd), ("mean", "standard deviation"), strict=True):
        show_image(ax, values, low=0.0 if title != "mean" else None,
                   colours="gray" if title == "mean" else "magma")  # fmt: skip
        ax.set_title(title, fontsize=PANEL_TITLE)
    return figure
