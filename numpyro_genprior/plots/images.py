"""Pictures of posteriors over images."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from numpyro_genprior.errors import message
from numpyro_genprior.plots.curves import draw_curves
from numpyro_genprior.plots.style import HIDDEN, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["posterior_images"]

WIDTH = 9.0  # inches


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
    """Truth, data, posterior mean, posterior standard deviation and some draws, as images.

    Parameters
    ----------
    events
        Posterior draws of the event, of shape ``(draw, row, col)`` or
        ``(chain, draw, row, col)``: ``trace.posterior["x"]``, say. With chains, the draws that are
        shown say from which chain they are, and come from all in turn.
    truth
        The image itself, where it is known.
    data
        The data as an image (NaN where nothing was observed: those pixels are blue), or as a
        curve when they have one dimension.
    residual
        Data minus prediction over its standard deviation, say; shown around zero.
    mean, sd
        Moments from `ngp.event_moments`, where `events` are only some of the draws. Those of
        `events` otherwise.
    num_draws
        How many draws are shown.
    event_ndim
        2 for images and maps; 3 for images with channels last, (row, col, 3 or 4); 1 for curves,
        which are drawn into one panel, with the mean and two standard deviations as a band.
    limits
        Values that are black and white; the extremes of truth and mean by default.
    title
        Above the figure.
    caption
        Below the figure, where findings about the chains belong.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``figure.savefig``.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        When the draws are not images.

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
                "posterior_images draws images",
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

    chosen = _spread(array.shape[: array.ndim - event_ndim], num_draws)
    top = [truth_ is not None, data is not None, True, True, residual is not None]
    aspect = mean_.shape[0] / mean_.shape[1]
    ratios = [1 / sum(top), 1 / len(chosen)]  # both rows are as wide as the figure
    words = textwrap.wrap(caption or "", 125)
    height = WIDTH * aspect * sum(ratios) + 1.3 + 0.16 * len(words)
    figure = pyplot().figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04, hspace=0.1, wspace=0.02)
    rows = figure.add_gridspec(2, 1, height_ratios=ratios)
    upper = rows[0].subgridspec(1, sum(top))
    panels = iter([upper[i] for i in range(sum(top))])
    lower = rows[1].subgridspec(1, len(chosen))

    def panel(name: str) -> Axes:
        axes = figure.add_subplot(next(panels))
        axes.set_title(name, fontsize=11)
        return axes

    if truth_ is not None:
        _image(panel("truth"), truth_, low, high)
    if data is not None:
        _data(panel("data"), np.asarray(data), low, high)
    shown = panel("posterior mean")
    _scale(shown, _image(shown, mean_, low, high))
    shown = panel("posterior sd")
    spread = sd_.mean(axis=-1) if event_ndim == 3 else sd_
    _scale(shown, _image(shown, spread, 0.0, _positive(spread), "magma"))
    if residual is not None:
        shown, values = panel("residual"), np.asarray(residual)
        extent = _positive(np.abs(values))
        _scale(shown, _image(shown, values, -extent, extent, "RdBu_r"))
    for place, index in enumerate(chosen):
        axes = figure.add_subplot(lower[place])
        _image(axes, array[index], low, high)
        axes.set_title(f"draw, chain {index[0]}" if len(index) > 1 else "draw", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=12)
    if words:
        figure.supxlabel("\n".join(words), fontsize=9, x=0.02, ha="left")
    return figure


def _limits(mean: np.ndarray, truth: np.ndarray | None) -> tuple[float, float]:
    """The extremes of what is finite, apart where there is one value or none."""
    values = mean.ravel() if truth is None else np.concatenate([mean.ravel(), truth.ravel()])
    values = values[np.isfinite(values)].astype(float)
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _positive(values: np.ndarray) -> float:
    """The largest value, or 1 where there is nothing above zero."""
    finite = values[np.isfinite(values)]
    largest = float(finite.max()) if finite.size else 0.0
    return largest if largest > 0 else 1.0


def _spread(lead: tuple[int, ...], number: int) -> list[tuple[int, ...]]:
    """Indices of draws that are far apart, from all chains in turn."""
    if len(lead) == 1:
        places = np.linspace(0, lead[0] - 1, min(number, lead[0])).round().astype(int)
        return [(int(place),) for place in places]
    chains, draws = math.prod(lead[:-1]), lead[-1]
    number = min(number, chains * draws)
    owners = np.sort(np.arange(number) % chains if number >= chains else _even(chains, number))
    chosen: list[tuple[int, ...]] = []
    for chain in np.unique(owners):
        count = int(np.sum(owners == chain))
        places = ((np.arange(count) + 0.5) * draws / count).astype(int)
        index = tuple(int(i) for i in np.unravel_index(int(chain), lead[:-1]))
        chosen += [(*index, int(place)) for place in places]
    return chosen


def _even(chains: int, number: int) -> np.ndarray:
    return np.linspace(0, chains - 1, number).round().astype(int)


def _image(axes: Axes, values: np.ndarray, low: float, high: float, colours: str = "gray") -> Any:
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
        axes.tick_params(labelsize=7)
        return
    _image(axes, values, low, high)


def _scale(axes: Axes, image: Any) -> None:
    """A colour bar inside the panel's own room, so that panels keep one size."""
    if image.get_array().ndim == 3:
        return
    bar = axes.figure.colorbar(
        image, cax=axes.inset_axes((0.06, -0.09, 0.88, 0.045)), orientation="horizontal"
    )
    bar.ax.tick_params(labelsize=7, length=2, pad=1)
