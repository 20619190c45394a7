"""Contraction: distance from the truth along a ladder, on logarithmic axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.diagnostics import Contraction
from numpyro_genprior.plots.style import BAD, DATA, axes, check

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (DATA, BAD, "#5a8a3a", "#8a5aa8", "#c79a2b", "#444444")
STEPS = 8  # most steps whose values are written at the axis
CURVES = {"radius": ("o", "black"), "error": ("s", BAD), "spread": ("^", DATA)}


def contraction(
    result: Contraction | Mapping[str, Contraction],
    *,
    theory: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Distance of draws from the truth against what makes data better, with fitted exponents.

    Of one result its radius, the error of the mean and the spread: a spread below the error is a
    posterior that is too sure of itself. Of several, by name, the radius of each, with 10 to 90 %
    of its replications as a band. Data get better to the right.

    Parameters
    ----------
    result
        Of `numpyro_genprior.diagnostics.contraction`, or a dictionary of results along one ladder.
    theory
        An exponent; a dashed line below the first result shows it.
    ax
        Axes to draw on; None for a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        For another object.
    """
    results = dict(result) if isinstance(result, Mapping) else {"": result}
    for one in results.values() or [None]:
        check(one, Contraction, "contraction", "contraction(model, key, ..., ladder={...})")
    ax, first = axes(ax, width=5.2, height=3.8), next(iter(results.values()))
    what = first.argument
    if len(results) == 1:
        for name, (marker, colour) in CURVES.items():
            exponent = first.rates[name].exponent
            label = f"{name}, {what}$^{{{exponent:.2f}}}$"
            _curve(ax, first.values, getattr(first, name), marker, colour, label, name == "radius")
    else:
        for place, (name, one) in enumerate(results.items()):
            colour, marker = COLOURS[place % len(COLOURS)], "osD^vP"[place % 6]
            label = f"{name}, {what}$^{{{one.rates['radius'].exponent:.2f}}}$"
            _curve(ax, one.values, one.radius, marker, colour, label, True)
    if theory is not None:
        start = 0.75 * np.sqrt(np.mean(first.radius[0] ** 2))
        ax.plot(first.values, start * (first.values / first.values[0]) ** theory, "--",
                color="black", linewidth=1, label=f"theory, {what}$^{{{theory:.2f}}}$")  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    if len(first.values) <= STEPS:
        ax.set_xticks(first.values, [f"{value:g}" for value in first.values])
        ax.set_xticks([], minor=True)
    falls = first.values[-1] < first.values[0]
    low, high = sorted(first.values[[0, -1]])
    room = (high / low) ** 0.04
    ax.set_xlim(*((high * room, low / room) if falls else (low / room, high * room)))
    ax.set_xlabel(f"{what} (better data to the right)")
    ax.set_ylabel("rms over entries and replications")
    ax.legend(frameon=False, fontsize=9)
    return ax


def _curve(
    ax: Axes,
    values: np.ndarray,
    curve: np.ndarray,
    marker: str,
    colour: str,
    label: str,
    band: bool,
) -> None:
    middle = np.sqrt(np.mean(curve**2, axis=1))
    ax.plot(values, middle, marker=marker, markersize=4.5, linewidth=1.3, color=colour, label=label)
    if band:
        low, high = np.quantile(curve, [0.1, 0.9], axis=1)
        ax.fill_between(values, low, high, color=colour, alpha=0.15, linewidth=0)
