"""`event_directions`: what directions of the latents do to an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from numpyro_genprior.diagnostics import Sensitivity
from numpyro_genprior.errors import message
from numpyro_genprior.plots.style import DATA, LABEL, PRIOR, SMALL, TICK, check, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "RdBu_r"  # of signed values, symmetric about 0
UNDETERMINED = "#777777"


def event_directions(
    sensitivity: Sensitivity,
    *,
    num_directions: int = 6,
    site: str | None = None,
    observed: ArrayLike | None = None,
) -> Figure:
    """Changes of the event along the best and the least determined directions.

    Each panel is the change of the event by a step of one prior standard deviation; all share one
    scale, symmetric about 0. The upper row has the directions that the data determine best, the
    lower row those that they determine least. A title says whether the data determine the
    direction (s > 1, blue frame) or not (grey frame): what events show along the latter comes from
    the prior.

    Parameters
    ----------
    sensitivity
        The result of `numpyro_genprior.diagnostics.sensitivity`.
    num_directions
        Number of directions in each row.
    site
        Name of the event, if the model has several.
    observed
        Which entries of the event are observed, a boolean array of its shape (without channels):
        they are outlined in images, and shaded in curves. None: not shown.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError
        If `sensitivity` has another type.
    ValueError
        If the event is neither a curve nor an image, `site` is not among the events, or the shape
        of `observed` differs from the event's.
    """
    check(sensitivity, Sensitivity, "event_directions", "sensitivity(model, values, ...)")
    moved = _moved(sensitivity.event_directions, site)
    mask = _mask(observed, moved.shape[1:])
    s, number = np.asarray(sensitivity.singular_values), min(num_directions, len(moved))
    best = list(range(number))
    worst = [i for i in range(len(moved) - number, len(moved)) if i not in best]
    rows = [row for row in (best, worst) if row]
    aspect = moved.shape[1] / moved.shape[2] if moved.ndim == 3 else 0.7
    width = min(9.0, 1.4 + 3.0 * number)
    figure, panels = pyplot().subplots(
        len(rows),
        number,
        figsize=(width, len(rows) * ((width - 1.4) / number * aspect + 0.55) + 0.2),
        layout="constrained",
        squeeze=False,
        sharey=moved.ndim == 2,
    )
    shown = moved[best + worst]
    extent = float(np.max(np.abs(shown[np.isfinite(shown)]), initial=0.0)) or 1.0
    for row, indices in zip(panels, rows, strict=True):
        for ax in row[len(indices) :]:
            ax.set_visible(False)
        for ax, index in zip(row, indices, strict=False):
            _panel(ax, moved[index], extent, mask)
            _label(ax, index, float(s[index]))
    if len(rows) > 1:
        panels[0, 0].set_ylabel("best determined", fontsize=LABEL)
        panels[1, 0].set_ylabel("least determined", fontsize=LABEL)
    if moved.ndim == 3:
        bar = figure.colorbar(panels[0, 0].images[0], ax=panels, fraction=0.04, pad=0.015)
        bar.set_label("change per prior sd", fontsize=LABEL)
        bar.ax.tick_params(labelsize=SMALL)
    else:
        figure.supylabel("change of the event per prior sd", fontsize=LABEL)
    return figure


def _moved(directions: ArrayLike | Mapping[str, ArrayLike], site: str | None) -> np.ndarray:
    """Changes of one event, of shape ``(k, size)`` or ``(k, row, col)``."""
    if isinstance(directions, Mapping):
        if site is None or site not in directions:
            raise ValueError(
                message(
                    "The model has several events",
                    expected=f"site= one of {sorted(directions)}",
                    got=site,
                    remedy=f"pass site={next(iter(directions))!r}",
                )
            )
        directions = directions[site]
    moved = np.asarray(directions)
    if moved.ndim not in (2, 3) and not (moved.ndim == 4 and moved.shape[-1] in (1, 3)):
        raise ValueError(
            message(
                "plots.event_directions draws curves and images",
                expected="events of one or two dimensions, or images with channels last",
                got=moved.shape[1:],
                remedy="draw sensitivity.event_directions yourself",
            )
        )
    return moved.mean(-1) if moved.ndim == 4 else moved


def _mask(observed: ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray | None:
    if observed is None:
        return None
    mask = np.asarray(observed).astype(bool)
    if mask.shape != shape:
        raise ValueError(
            message(
                "plots.event_directions: observed does not fit the event",
                expected=f"shape {shape}",
                got=mask.shape,
                remedy="pass a boolean array with an entry for each entry of the event",
            )
        )
    return mask


def _panel(ax: Axes, values: np.ndarray, extent: float, mask: np.ndarray | None) -> None:
    ax.set_xticks([])
    if values.ndim == 1:
        if mask is not None:
            index = np.arange(len(values))
            ax.fill_between(
                index, 0, 1, where=mask, step="mid", transform=ax.get_xaxis_transform(),
                color=DATA, alpha=0.12, linewidth=0,
            )  # fmt: skip
        ax.axhline(0, color="black", linewidth=0.5)
        ax.plot(values, color=DATA, linewidth=1)
        ax.set_ylim(-1.1 * extent, 1.1 * extent)
        ax.tick_params(labelsize=TICK)
        return
    ax.set_yticks([])
    ax.imshow(values, cmap=COLOURS, vmin=-extent, vmax=extent, interpolation="nearest")
    if mask is not None:
        for start, end in _outline(mask):
            ax.plot((start[1], end[1]), (start[0], end[0]), color="black", linewidth=1.2,
                    clip_on=False, zorder=3)  # fmt: skip


def _outline(mask: np.ndarray) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Edges between pixels inside and outside a mask, as pairs of points ``(row, col)``."""
    padded = np.pad(mask, 1)
    edges = []
    for row, col in zip(*np.nonzero(padded[1:] != padded[:-1]), strict=True):
        edges.append(((row - 0.5, col - 1.5), (row - 0.5, col - 0.5)))
    for row, col in zip(*np.nonzero(padded[:, 1:] != padded[:, :-1]), strict=True):
        edges.append(((row - 1.5, col - 0.5), (row - 0.5, col - 0.5)))
    return edges


def _label(ax: Axes, index: int, s: float) -> None:
    """A title and a frame that show whether the data determine the direction."""
    determined = s > 1
    words = "determined" if determined else "undetermined"
    colour = DATA if determined else UNDETERMINED
    ax.set_title(f"{index + 1}\n{words}, s = {s:.2g}", fontsize=SMALL, color=colour)
    for spine in ax.spines.values():
        spine.set(color=DATA if determined else PRIOR, linewidth=1.5)
