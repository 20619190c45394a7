"""Plots by direction or latent: sensitivity, collapse, the spectrum of a Jacobian."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numpyro_genprior.diagnostics import (
    DecoderCollapse,
    EffectiveDimension,
    PosteriorCollapse,
    Sensitivity,
)
from numpyro_genprior.plots.style import BAD, DATA, PRIOR, TICK, axes, check, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_SHARE = 1e-3  # of the largest value: the lower end of a logarithmic axis
UNDETERMINED = "#777777"


def sensitivity_spectrum(sensitivity: Sensitivity, *, ax: Axes | None = None) -> Axes:
    """Singular values in order, with the line s = 1 between data and prior.

    Parameters
    ----------
    sensitivity
        The result of `numpyro_genprior.diagnostics.sensitivity`.
    ax
        Axes to draw in; None for a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        If `sensitivity` has another type.
    ImportError
        If matplotlib is not installed.
    """
    check(sensitivity, Sensitivity, "sensitivity_spectrum", "sensitivity(model, values, ...)")
    ax = axes(ax)
    s = np.asarray(sensitivity.singular_values, float)
    index, identified = np.arange(1, len(s) + 1), s > 1
    floor = min(0.3, MIN_SHARE * max(s.max(), 1.0)) if s.size else 0.3
    shown = np.maximum(s, floor)
    ax.axhspan(floor / 2, 1, color=PRIOR, alpha=0.18, linewidth=0)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.plot(index[identified], shown[identified], "o", color=DATA, markersize=5,
            label=f"identified: {int(identified.sum())}")  # fmt: skip
    ax.plot(index[~identified], shown[~identified], "o", color=UNDETERMINED, markersize=5,
            markerfacecolor="white",
            label=f"left to the prior: {int((~identified).sum())}")  # fmt: skip
    ax.set_yscale("log")
    ax.set_ylim(floor / 1.5, max(2.0, 1.6 * shown.max()))
    if (s < floor).any():
        ax.annotate("at or below", (index[-1], floor), xytext=(0, 6), fontsize=TICK,
                    textcoords="offset points", ha="right", color=UNDETERMINED)  # fmt: skip
    ax.set_xlabel("direction")
    ax.set_ylabel("prior sd / data resolution, s")
    _integer_ticks(ax)
    legend(ax)
    return ax


def latent_shrinkage(
    result: PosteriorCollapse | Sensitivity, *, max_directions: int = 60, ax: Axes | None = None
) -> Axes:
    """Posterior standard deviation relative to the prior along each direction, and its mean.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.posterior_collapse` (posterior mean and sd
        over the prior's band) or of `numpyro_genprior.diagnostics.sensitivity` (the linearised
        sd alone).
    max_directions
        Maximum number of directions; the first ones are shown.
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
    check(result, (PosteriorCollapse, Sensitivity), "latent_shrinkage", "posterior_collapse(mcmc)")
    ax = axes(ax)
    if isinstance(result, Sensitivity):
        sd = np.sqrt(np.asarray(result.posterior_shrinkage, float))[:max_directions]
        index = np.arange(1, len(sd) + 1)
        colours = [DATA if value < np.sqrt(0.5) else PRIOR for value in sd]
        ax.bar(index, sd, color=colours, width=0.8)
        ax.axhline(1, color="black", linewidth=0.8)
        ax.set_ylim(0, 1.08)
        ax.set_ylabel("posterior sd / prior sd")
        ax.set_xlabel("direction")
        _integer_ticks(ax)
        return ax
    mean, sd = result.mean[:max_directions], result.sd[:max_directions]
    index = np.arange(1, len(mean) + 1)
    ax.axhspan(-1, 1, color=PRIOR, alpha=0.3, linewidth=0, label="prior ± sd")
    for state, colour in (("informed", DATA), ("prior", UNDETERMINED), ("undecided", BAD)):
        which = result.state[:max_directions] == state
        if which.any():
            ax.errorbar(index[which], mean[which], sd[which], fmt="o", markersize=3.5,
                        color=colour, elinewidth=1.2, label=state)  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_ylabel("posterior mean ± sd (prior sd)")
    if len(result.names) <= 20 and any(len(name) for name in result.names):
        ax.set_xticks(index, result.names[:max_directions], rotation=60, ha="right", fontsize=TICK)
    else:
        ax.set_xlabel("direction")
        _integer_ticks(ax)
    legend(ax, columns=4)
    return ax


def decoder_collapse(result: DecoderCollapse, *, ax: Axes | None = None) -> Axes:
    """How far a unit step of each latent moves the event, with collapsed latents in red.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.decoder_collapse`.
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
    check(result, DecoderCollapse, "decoder_collapse", "decoder_collapse(prior, key)")
    ax = axes(ax)
    s, active = np.asarray(result.sensitivity, float), np.asarray(result.active)
    index = np.arange(len(s))
    floor = MIN_SHARE * max(s.max(), 1e-12)
    shown = np.maximum(s, 1.5 * floor)
    for which, colour, label in (
        (active, DATA, f"active: {int(active.sum())}"),
        (~active, BAD, f"collapsed: {int((~active).sum())}"),
    ):
        if which.any():
            ax.bar(index[which], shown[which], color=colour, width=0.8, label=label)
    ax.set_yscale("log")
    ax.set_ylim(floor, None)
    ax.set_xlabel("latent")
    ax.set_ylabel(f"event moved by a unit step\n({result.unit})")
    if result.kl is not None:
        twin = ax.twinx()
        twin.plot(index, np.asarray(result.kl), "ko", markersize=4.5, markeredgecolor="white",
                  clip_on=False)  # fmt: skip
        twin.set_ylabel("encoder's KL (nats, points)")
        twin.set_ylim(0, None)
        twin.spines["top"].set_visible(False)
    _integer_ticks(ax)
    legend(ax)
    return ax


def jacobian_spectrum(result: EffectiveDimension, *, ax: Axes | None = None) -> Axes:
    """Singular values of a generator's Jacobian: the median over draws and its range.

    Parameters
    ----------
    result
        The result of `numpyro_genprior.diagnostics.effective_dimension`.
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
    check(result, EffectiveDimension, "jacobian_spectrum", "effective_dimension(prior, key)")
    ax = axes(ax)
    s = np.asarray(result.spectrum, float)
    index = np.arange(1, s.shape[1] + 1)
    floor = 1e-7 * s.max()
    low, middle, high = np.maximum(np.quantile(s, (0.05, 0.5, 0.95), axis=0), floor)
    ax.fill_between(
        index, low, high, color=DATA, alpha=0.25, linewidth=0, label="5 to 95 % of draws"
    )
    ax.plot(index, middle, color=DATA, marker="o" if len(index) < 40 else None, markersize=3)
    ax.axvline(result.dimension, color="black", linewidth=0.8, linestyle="--",
               label=f"effective dimension {result.dimension:.1f}")  # fmt: skip
    ax.set_yscale("log")
    ax.set_xlabel("direction")
    ax.set_ylabel("singular value of the Jacobian")
    legend(ax)
    return ax


def _integer_ticks(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
