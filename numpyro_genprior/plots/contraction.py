"""Plots of contraction: distance from the truth along a schedule, on logarithmic axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from numpyro_genprior.diagnostics import Contraction
from numpyro_genprior.plots.style import BAD, DATA, axes, check, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (DATA, BAD, "#5a8a3a", "#8a5aa8", "#c79a2b", "#444444")
MAX_TICKS = 8  # steps whose values are written at the axis
CURVES = {"radius": ("o", "black"), "error": ("s", BAD), "spread": ("^", DATA)}


def contraction(
    result: Contraction | Mapping[str, Contraction],
    *,
    theory: float | Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Distance of draws from the truth against noise level or sample size, with exponents.

    For one result, the radius, the error of the mean and the spread: a spread below the error means
    an overconfident posterior. For several, given by name, the radius of each. The band of a radius
    contains 80 % of its replications. Data get better to the right.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.contraction`, or a dictionary of results along
        one schedule.
    theory
        An exponent, shown by a dashed line below the first result, or an exponent for some of
        several results, by name.
    ax
        Axes to draw in; None for a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        If `result` has another type.
    """
    results = dict(result) if isinstance(result, Mapping) else {"": result}
    for one in results.values() or [None]:
        check(one, Contraction, "contraction", "contraction(model, key, ..., schedule={...})")
    ax, first = axes(ax, width=6.0, height=4.0), next(iter(results.values()))
    argument = first.argument
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(results)}
    if len(results) == 1:
        for name, (marker, colour) in CURVES.items():
            exponent = first.rates[name].exponent
            label = f"{name}, {argument}$^{{{exponent:.2f}}}$"
            _curve(ax, first.values, getattr(first, name), marker, colour, label, name == "radius")
        colours = dict.fromkeys(results, "black")
    else:
        for i, (name, one) in enumerate(results.items()):
            label = f"{name}, {argument}$^{{{one.rates['radius'].exponent:.2f}}}$"
            _curve(ax, one.values, one.radius, "osD^vP"[i % 6], colours[name], label, True)
    if theory is not None:
        exponents = theory if isinstance(theory, Mapping) else {next(iter(results)): theory}
        for name, exponent in exponents.items():
            suffix = f": {name}" if name else ""
            label = f"theory{suffix}, {argument}$^{{{exponent:.2f}}}$"
            _theory(ax, results[name], exponent, colours[name], label)
    _format_axes(ax, first)
    legend(ax, columns=2)
    return ax


def _curve(
    ax: Axes,
    values: Float[np.ndarray, " steps"],
    curves: Float[np.ndarray, "steps replications"],
    marker: str,
    colour: str,
    label: str,
    band: bool,
) -> None:
    middle = np.sqrt(np.mean(curves**2, axis=1))
    ax.plot(values, middle, marker=marker, markersize=4.5, linewidth=1.3, color=colour, label=label)
    if band:
        low, high = np.quantile(curves, [0.1, 0.9], axis=1)
        ax.fill_between(values, low, high, color=colour, alpha=0.15, linewidth=0)


def _theory(ax: Axes, result: Contraction, exponent: float, colour: str, label: str) -> None:
    start = 0.75 * np.sqrt(np.mean(result.radius[0] ** 2))
    line = start * (result.values / result.values[0]) ** exponent
    ax.plot(result.values, line, "--", color=colour, linewidth=1, label=label)


def _format_axes(ax: Axes, first: Contraction) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    if len(first.values) <= MAX_TICKS:
        ax.set_xticks(first.values, [f"{value:g}" for value in first.values])
        ax.set_xticks([], minor=True)
    falls = first.values[-1] < first.values[0]
    low, high = sorted(first.values[[0, -1]])
    margin = (high / low) ** 0.04
    ax.set_xlim(*((high * margin, low / margin) if falls else (low / margin, high * margin)))
    ax.set_xlabel(f"{first.argument} (better data to the right)")
    ax.set_ylabel("rms over entries and replications")
