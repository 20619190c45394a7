"""`adequacy`: the residual of the best event, and the part of it that no event reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from numpyro_genprior.diagnostics import Adequacy
from numpyro_genprior.errors import message
from numpyro_genprior.plots.style import (
    BAD,
    CAPTION_LINE,
    DATA,
    PANEL_TITLE,
    PRIOR,
    SMALL,
    check,
    colour_bar,
    finish,
    open_frame,
    pyplot,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "RdBu_r"  # colour map of signed values, symmetric about 0
TITLES = {
    "adequate": "Adequate",
    "noise_too_small": "Noise too small",
    "out_of_range": "Out of range",
}


def adequacy(result: Adequacy, *, site: str | None = None, ax: Axes | None = None) -> Figure | Axes:
    """The residual at the mode, the part of it that no latent reaches, and its distribution.

    Data of two dimensions are shown as images, others as points in their order. Residuals are in
    units of the noise; the grey curve is their expected distribution. The middle panel is the
    residual minus whatever a movement of the latent could explain, scaled to unit length: it is
    noise if the prior is adequate, and shows the pattern that the prior lacks if the data are out
    of range.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.adequacy`.
    site
        Which data, if several sites are observed. None: the only ones.
    ax
        Axes for the distribution alone; None for a new figure with all three panels.

    Returns
    -------
    matplotlib.figure.Figure
        Or `ax`, if it is given.

    Raises
    ------
    TypeError
        If `result` has another type.
    ValueError
        If several sites are observed and `site` names none of them.
    """
    check(result, Adequacy, "adequacy", "adequacy(model, key, ...)")
    residual = _part(result.residual, site)
    if ax is not None:
        _distribution(ax, residual, result)
        return ax
    direction = _part(result.direction, site)
    images = residual.ndim == 2 and min(residual.shape) > 1
    aspect = np.clip(residual.shape[0] / residual.shape[1], 0.3, 1.6) if images else 0.8
    lines = wrap("; ".join(result.evidence) + ".", 120)
    figure, panels = pyplot().subplots(
        1, 3, figsize=(9.0, 2.8 * aspect + 0.9 + CAPTION_LINE * len(lines)), layout="constrained"
    )
    extent = float(np.max(np.abs(residual[np.isfinite(residual)]), initial=0.0)) or 1.0
    _data(panels[0], residual, extent, images, bar=True)
    panels[0].set_title("residual / noise", fontsize=PANEL_TITLE)
    _data(panels[1], direction, float(np.max(np.abs(direction))) or 1.0, images, bar=False)
    panels[1].set_title(_direction_title(result), fontsize=PANEL_TITLE)
    _distribution(panels[2], residual, result)
    panels[2].set_title("distribution", fontsize=PANEL_TITLE)
    finish(figure, TITLES[result.verdict], lines)
    return figure


def _direction_title(result: Adequacy) -> str:
    if result.verdict == "out_of_range":
        return "direction out of range"
    return "part that no latent reaches"


def _part(values: ArrayLike | Mapping[str, ArrayLike], site: str | None) -> np.ndarray:
    if isinstance(values, Mapping):
        if site is None or site not in values:
            raise ValueError(
                message(
                    "plots.adequacy: several sites are observed",
                    expected=f"site= one of {sorted(values)}",
                    got=site,
                    remedy=f"pass site={next(iter(values))!r}",
                )
            )
        values = values[site]
    return np.asarray(values, float)


def _data(ax: Axes, values: np.ndarray, extent: float, images: bool, *, bar: bool) -> None:
    if not images:
        flat = values.ravel()
        ax.axhline(0, color="black", linewidth=0.6)
        if bar:
            ax.axhspan(-2, 2, color=PRIOR, alpha=0.3, linewidth=0)
        ax.plot(flat, ".-", color=DATA, markersize=3, linewidth=0.4)
        ax.set_ylim(-1.1 * extent, 1.1 * extent)
        ax.set_xlabel("datum")
        ax.tick_params(labelsize=SMALL)
        open_frame(ax)
        return
    ax.set_xticks([])
    ax.set_yticks([])
    image = ax.imshow(values, cmap=COLOURS, vmin=-extent, vmax=extent, interpolation="nearest")
    if bar:
        colour_bar(ax, image)


def _distribution(ax: Axes, residual: np.ndarray, result: Adequacy) -> None:
    flat = residual[np.isfinite(residual)]
    unmasked = flat[flat != 0]  # masked data are 0
    expected = np.sqrt(result.degrees / max(result.degrees, _size(result.residual)))
    half_width = max(4.0, 1.05 * float(np.max(np.abs(unmasked), initial=0.0)))
    bins = np.linspace(-half_width, half_width, int(np.clip(2 * np.sqrt(len(unmasked)), 9, 61)) | 1)
    colour = DATA if result.verdict == "adequate" else BAD
    counts, edges = np.histogram(unmasked, bins=bins)
    narrow = bins[1] - bins[0] > expected  # too narrow to compare densities: scale both to height 1
    height = counts.max(initial=1) if narrow else len(unmasked) * (edges[1] - edges[0])
    ax.stairs(counts / height, edges, fill=True, color=colour, alpha=0.6, label="observed")
    x = np.linspace(-half_width, half_width, 2001)
    normal = np.exp(-0.5 * (x / expected) ** 2)
    normal = normal if narrow else normal / (expected * np.sqrt(2 * np.pi))
    ax.fill_between(x, normal, color=PRIOR, alpha=0.5, linewidth=0, label="expected")
    ax.set_yticks([])
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("residual / noise")
    ax.legend(frameon=False, fontsize=SMALL, handlelength=1.2)


def _size(residual: ArrayLike | Mapping[str, ArrayLike]) -> int:
    parts = residual.values() if isinstance(residual, Mapping) else [residual]
    return sum(int(np.sum(np.asarray(part) != 0)) for part in parts)
