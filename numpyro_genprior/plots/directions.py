"""Directions of the latents as what they do to an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_genprior.diagnostics import Sensitivity
from numpyro_genprior.errors import message
from numpyro_genprior.plots.style import DATA, check, pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def event_directions(
    sensitivity: Sensitivity, *, num_directions: int = 6, site: str | None = None
) -> Figure:
    """The event moved along the best and the worst identified directions, as images or curves.

    The upper row are the directions that the data determine best, the lower row those of which
    they say least: what an event shows along these is the prior's. Each panel is the change of the
    event by one prior standard deviation.

    Parameters
    ----------
    sensitivity
        The result of `numpyro_genprior.diagnostics.sensitivity`.
    num_directions
        Directions in each row.
    site
        Which event, where the model has several.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError
        For another object.
    ValueError
        When the event is neither a curve nor an image, or `site` is not among the events.
    """
    check(sensitivity, Sensitivity, "event_directions", "sensitivity(model, values, ...)")
    moved = _moved(sensitivity.event_directions, site)
    if moved.ndim not in (2, 3) and not (moved.ndim == 4 and moved.shape[-1] in (1, 3)):
        raise ValueError(
            message(
                "plots.event_directions draws curves and images",
                expected="events of one or two dimensions, or images with channels last",
                got=moved.shape[1:],
                remedy="draw sensitivity.event_directions yourself",
            )
        )
    moved = moved.mean(-1) if moved.ndim == 4 else moved
    s, number = np.asarray(sensitivity.singular_values), min(num_directions, len(moved))
    best = list(range(number))
    worst = [i for i in range(len(moved) - number, len(moved)) if i not in best]
    rows = [row for row in (best, worst) if row]
    aspect = moved.shape[1] / moved.shape[2] if moved.ndim == 3 else 0.7
    size = 9.0 / number
    figure, panels = pyplot().subplots(
        len(rows),
        number,
        figsize=(9.0, len(rows) * (size * aspect + 0.45) + 0.2),
        layout="constrained",
        squeeze=False,
    )
    for row, indices in zip(panels, rows, strict=True):
        for axes in row[len(indices) :]:
            axes.set_visible(False)
        for axes, index in zip(row, indices, strict=False):
            _panel(axes, moved[index])
            axes.set_title(f"{index + 1}: s = {s[index]:.2g}", fontsize=9)
    panels[0, 0].set_ylabel("best seen", fontsize=9)
    if len(rows) > 1:
        panels[1, 0].set_ylabel("least seen", fontsize=9)
    return figure


def _moved(directions: Any, site: str | None) -> np.ndarray:
    if not isinstance(directions, dict):
        return np.asarray(directions)
    if site not in directions:
        raise ValueError(
            message(
                "The model has several events",
                expected=f"site= one of {sorted(directions)}",
                got=site,
                remedy=f"pass site={next(iter(directions))!r}",
            )
        )
    return np.asarray(directions[site])


def _panel(axes: Any, values: np.ndarray) -> None:
    axes.set_xticks([])
    extent = float(np.max(np.abs(values))) or 1.0
    if values.ndim == 1:
        axes.axhline(0, color="black", linewidth=0.5)
        axes.plot(values, color=DATA, linewidth=1)
        axes.set_ylim(-1.1 * extent, 1.1 * extent)
        axes.tick_params(labelsize=7)
        return
    axes.set_yticks([])
    axes.imshow(values, cmap="RdBu_r", vmin=-extent, vmax=extent, interpolation="nearest")
