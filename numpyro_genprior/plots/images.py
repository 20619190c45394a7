"""Plots of posteriors over images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.plots.curves import draw_curves
from numpyro_genprior.plots.style import (
    CAPTION_LINE,
    HIDDEN,
    LABEL,
    PANEL_TITLE,
    TICK,
    colour_bar,
    finish,
    pyplot,
    wrap,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["posterior_images"]

WIDTH = 9.0  # inches
CAPTION_WIDTH = 125  # characters


def posterior_images(
    events: ArrayLike,
    *,
    truth: ArrayLike | None = None,
    data: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    mean: ArrayLike | None = None,
    sd: ArrayLike | None = None,
    num_draws: int = 6,
    event_ndim: int = 2,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
    caption: str | None = None,
) -> Figure:
    """Truth, data, posterior mean, posterior standard deviation and a few draws, as images.

    Parameters
    ----------
    events
        Posterior draws of the event, of shape ``(draw, row, col)`` or
        ``(chain, draw, row, col)``, e.g. ``trace.posterior["x"]``. If there are chains, the draws
        shown come from all of them in turn, and their titles name the chain.
    truth
        The true image, if it is known.
    data
        The data as an image (pixels that are NaN, because nothing was observed there, are blue),
        or as a curve if they have one dimension.
    residual
        For instance (data minus prediction) over its standard deviation; the colour scale is
        symmetric about zero.
    mean, sd
        Moments from `ngp.event_moments`, if `events` are only some of the draws. None for those
        of `events`.
    num_draws
        Number of draws that are shown.
    event_ndim
        2 for images and maps; 3 for images with channels last, (row, col, 3 or 4); 1 for curves,
        which are drawn in one panel, with the mean and two standard deviations as a band.
    limits
        Values shown as black and white; the extremes of truth and mean by default.
    title
        Text above the figure.
    caption
        Text below the figure, e.g. the finding of a diagnostic.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``figure.savefig``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the draws are not images.

    Examples
    --------
    >>> import numpy as np, numpyro_genprior as ngp
    >>> draws = np.random.default_rng(0).normal(size=(4, 100, 8, 8))
    >>> figure = ngp.plots.posterior_images(draws, truth=np.zeros((8, 8)), caption="r_hat 1.00")
    >>> len(figure.axes) > 8
    True
    """
    array = np.asarray(events)
    if event_ndim not in (1, 2, 3) or array.ndim <= event_ndim or num_draws < 1:
        raise ValueError(
            message(
                "posterior_images: these draws are not images",
                expected=f"draws of shape (draw, row, col) or (chain, draw, row, col), "
                f"event_ndim 1, 2 or 3 (got {event_ndim}), and num_draws of at least 1",
                got=array.shape,
                remedy="reshape the events into images first",
            )
        )
    flat = array.reshape(-1, *array.shape[array.ndim - event_ndim :])
    mean_ = np.asarray(flat.mean(axis=0) if mean is None else mean)
    sd_ = np.asarray(flat.std(axis=0) if sd is None else sd)
    truth_ = None if truth is None else np.asarray(truth)
    if event_ndim == 1:
        return draw_curves(
            flat,
            truth=truth,
            data=data,
            residual=residual,
            mean=mean_,
            sd=sd_,
            num_draws=num_draws,
            title=title,
            caption=caption,
        )
    low, high = _limits(mean_, truth_) if limits is None else limits

    indices = _choose_draws(array.shape[: array.ndim - event_ndim], num_draws)
    num_panels = 2 + sum(part is not None for part in (truth, data, residual))
    aspect = mean_.shape[0] / mean_.shape[1]
    ratios = [1 / num_panels, 1 / len(indices)]  # both rows are as wide as the figure
    lines = wrap(caption, CAPTION_WIDTH)
    height = WIDTH * aspect * sum(ratios) + 1.3 + CAPTION_LINE * len(lines)
    figure = pyplot().figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04, hspace=0.1, wspace=0.02)
    rows = figure.add_gridspec(2, 1, height_ratios=ratios)
    upper, lower = rows[0].subgridspec(1, num_panels), rows[1].subgridspec(1, len(indices))
    panels = (figure.add_subplot(upper[i]) for i in range(num_panels))

    if truth_ is not None:
        _image(_panel(panels, "truth"), truth_, low, high)
    if data is not None:
        _data(_panel(panels, "data"), np.asarray(data), low, high)
    _scaled(_panel(panels, "posterior mean"), mean_, low, high)
    spread = sd_.mean(axis=-1) if event_ndim == 3 else sd_
    _scaled(_panel(panels, "posterior sd"), spread, 0.0, _positive(spread), "magma")
    if residual is not None:
        values = np.asarray(residual)
        extent = _positive(np.abs(values))
        _scaled(_panel(panels, "residual"), values, -extent, extent, "RdBu_r")
    for column, index in enumerate(indices):
        axes = figure.add_subplot(lower[column])
        _image(axes, array[index], low, high)
        axes.set_title(f"draw, chain {index[0]}" if len(index) > 1 else "draw", fontsize=LABEL)
    finish(figure, title, lines)
    return figure


def _panel(panels: Iterator[Axes], title: str) -> Axes:
    axes = next(panels)
    axes.set_title(title, fontsize=PANEL_TITLE)
    return axes


def _limits(mean: np.ndarray, truth: np.ndarray | None) -> tuple[float, float]:
    """The finite extremes; if they coincide, half a unit to either side."""
    values = mean.ravel() if truth is None else np.concatenate([mean.ravel(), truth.ravel()])
    values = values[np.isfinite(values)].astype(float)
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _positive(values: np.ndarray) -> float:
    """The largest finite value, or 1 if none is positive."""
    finite = values[np.isfinite(values)]
    largest = float(finite.max()) if finite.size else 0.0
    return largest if largest > 0 else 1.0


def _choose_draws(lead: tuple[int, ...], number: int) -> list[tuple[int, ...]]:
    """Indices of draws far apart from each other, taken from all chains in turn."""
    if len(lead) == 1:
        positions = np.linspace(0, lead[0] - 1, min(number, lead[0])).round().astype(int)
        return [(int(position),) for position in positions]
    chains, draws = math.prod(lead[:-1]), lead[-1]
    number = min(number, chains * draws)
    chain_of_draw = np.sort(
        np.arange(number) % chains if number >= chains else _evenly_spaced(chains, number)
    )
    indices: list[tuple[int, ...]] = []
    for chain in np.unique(chain_of_draw):
        count = int(np.sum(chain_of_draw == chain))
        positions = ((np.arange(count) + 0.5) * draws / count).astype(int)
        index = tuple(int(i) for i in np.unravel_index(int(chain), lead[:-1]))
        indices += [(*index, int(position)) for position in positions]
    return indices


def _evenly_spaced(chains: int, number: int) -> np.ndarray:
    return np.linspace(0, chains - 1, number).round().astype(int)


def _image(
    axes: Axes, values: np.ndarray, low: float, high: float, colours: str = "gray"
) -> AxesImage:
    from matplotlib import colormaps

    axes.set_xticks([])
    axes.set_yticks([])
    if values.ndim == 3:
        return axes.imshow(np.clip((values - low) / (high - low), 0, 1))
    shades = colormaps[colours].with_extremes(bad=HIDDEN)
    return axes.imshow(values, cmap=shades, vmin=low, vmax=high, interpolation="nearest")


def _data(axes: Axes, values: np.ndarray, low: float, high: float) -> None:
    if values.ndim == 1:
        axes.plot(values, ".", color="black", markersize=2)
        axes.set_box_aspect(1)
        axes.tick_params(labelsize=TICK)
        return
    _image(axes, values, low, high)


def _scaled(axes: Axes, values: np.ndarray, low: float, high: float, colours: str = "gray") -> None:
    """An image with a colour bar; one with channels has none."""
    image = _image(axes, values, low, high, colours)
    if values.ndim == 2:
        colour_bar(axes, image)


def show_image(
    axes: Axes, values: np.ndarray, *, low: float | None = None, colours: str = "gray"
) -> None:
    """An image of two dimensions with a colour bar over its finite values, from `low` if given."""
    lowest, highest = _limits(values, None)
    _scaled(axes, values, lowest if low is None else low, highest, colours)
