"""SMC: effective sample size and acceptance along the temperatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpyro_genprior.infer.smc import SMCResult
from numpyro_genprior.plots.style import BAD, DATA, axes, check, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def smc(result: SMCResult, *, ax: Axes | None = None) -> Axes:
    """Effective sample size, as a share of the particles, and acceptance of moves against β.

    One marker for each temperature, on a logarithmic axis: the density of the markers shows where
    the likelihood changes the particles most. The effective sample size is the target at all
    temperatures but the last; an acceptance near zero means that particles do not move.

    Parameters
    ----------
    result
        The result of ``SMC(model).run(...)``.
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
    check(result, SMCResult, "smc", "SMC(model).run(key, ...)", module="infer")
    ax, temperatures = axes(ax), result.temperatures[1:]
    share = result.effective_sample_size / result.num_particles
    ax.plot(temperatures, share, marker="o", markersize=4, linewidth=1, color=DATA,
            label="effective sample size / particles")  # fmt: skip
    ax.plot(temperatures, result.acceptance, marker="s", markersize=3.5, linewidth=1, color=BAD,
            label="acceptance of moves")  # fmt: skip
    ax.set_xscale("log")
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("temperature β (exponent of the likelihood)")
    ax.set_ylabel("share")
    legend(ax)
    return ax
