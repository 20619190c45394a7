"""Losses of a training loop by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpyro_genprior.plots.style import BAD, axes, check, legend
from numpyro_genprior.train import FitResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def losses(result: FitResult, *, ax: Axes | None = None) -> Axes:
    """All losses of a training loop by epoch, and the epoch whose weights were kept.

    Parameters
    ----------
    result
        The result of ``train.fit_flow``, ``fit_vae`` or ``fit_gan``.
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
    check(result, FitResult, "losses", "fit_vae(...)", module="train")
    ax = axes(ax)
    for name, values in result.losses.items():
        ax.plot(range(1, len(values) + 1), values, linewidth=1.2, label=name)
    if result.best_epoch:
        ax.axvline(result.best_epoch, color=BAD, linewidth=0.8, label="weights kept")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    legend(ax, columns=5)
    return ax
