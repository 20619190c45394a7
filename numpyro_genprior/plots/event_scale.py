"""`event_scale`: the representation error of a generator by entry and by event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.diagnostics import EventScale
from numpyro_genprior.plots.style import BAD, DATA, PANEL_TITLE, SMALL, check, open_frame, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def event_scale(result: EventScale) -> Figure:
    """What the generator misses, by entry of the event and by held-out event.

    Events of two dimensions are shown as an image, others as points in their order. The line is
    the estimate over all entries and events, with two standard errors; the dashed one, if any, is
    the decoder's own noise.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.estimate_event_scale`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError
        If `result` has another type.
    """
    check(result, EventScale, "event_scale", "estimate_event_scale(prior, key, held_out_events)")
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(8.0, 3.2), layout="constrained")
    entries = np.asarray(result.by_entry, float)
    if entries.ndim == 3 and entries.shape[-1] in (1, 3):
        entries = np.sqrt(np.mean(entries**2, -1))
    if entries.ndim == 2 and min(entries.shape) > 1:
        left.set_xticks([])
        left.set_yticks([])
        shown = left.imshow(entries, cmap="viridis", vmin=0, interpolation="nearest")
        figure.colorbar(shown, ax=left).ax.tick_params(labelsize=SMALL)
    else:
        left.plot(entries.ravel(), ".", color=DATA, markersize=4, label="each entry")
        _lines(left, result)
        left.set_xlabel("entry")
    left.set_title("error by entry of the event", fontsize=PANEL_TITLE)
    errors = np.sort(np.asarray(result.errors, float))
    right.plot(np.arange(1, len(errors) + 1), errors, ".", color=DATA, markersize=4)
    _lines(right, result)
    right.set_title("error by held-out event, sorted", fontsize=PANEL_TITLE)
    right.set_xlabel("event")
    right.legend(frameon=False, fontsize=SMALL, loc="upper left")
    return figure


def _lines(ax: Axes, result: EventScale) -> None:
    """The estimate with two standard errors, and the decoder's own noise."""
    label = f"all events: {result.scale:.3g} ± {result.standard_error:.1g}"
    ax.axhline(result.scale, color="black", linewidth=1, label=label)
    low, high = (result.scale + k * result.standard_error for k in (-2, 2))
    ax.axhspan(low, high, color="black", alpha=0.12, linewidth=0)
    if result.decoder_scale is not None:
        ax.axhline(result.decoder_scale, color=BAD, linewidth=1, linestyle="--",
                   label=f"decoder noise: {result.decoder_scale:.3g}")  # fmt: skip
    ax.set_ylim(0, None)
    ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
    ax.tick_params(labelsize=SMALL)
    open_frame(ax)
