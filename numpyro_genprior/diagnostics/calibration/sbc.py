"""`sbc`: simulation-based calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpyro.infer.mcmc import MCMCKernel

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.calibration.experiment import prepare
from numpyro_genprior.diagnostics.calibration.inference import Method, choose_method, limit_draws
from numpyro_genprior.diagnostics.calibration.ranked_quantities import (
    Functional,
    Quantities,
    default_quantities,
)
from numpyro_genprior.diagnostics.calibration.ranking import ranked
from numpyro_genprior.diagnostics.calibration.uniformity_test import (
    CALIBRATED,
    MISCALIBRATED,
    UNDECIDED,
    RankTest,
)

SHOWN = 6


@dataclass(frozen=True, repr=False)
class SBC(RankTest):
    """Ranks of the truth among posterior draws, and whether they are uniform. Print it to read it.

    Attributes
    ----------
    ranks
        For each quantity (``"x_latent[3]"``), its ranks, integers from 0 to `num_draws`, of shape
        ``(replications,)``. Replications whose draws are not finite are left out.
    num_draws
        Draws that each truth was ranked among, after thinning.
    p_values
        For each quantity, of Pearson's χ² for uniform ranks.
    simultaneous
        Bands for the differences of empirical distribution functions, with the test by them.
    level
        Probability of calling any quantity miscalibrated when none is.
    health
        In how many replications inference had trouble.
    """

    def __repr__(self) -> str:
        used = len(next(iter(self.ranks.values())))
        what = f"{len(self.ranks)} quantit{'y' if len(self.ranks) == 1 else 'ies'}"
        head = {
            CALIBRATED: f"Calibrated, as far as {used} replications can tell",
            MISCALIBRATED: "Miscalibrated"
            + ("" if self.health.sound else ", and inference had trouble, which may be why"),
            UNDECIDED: "Undecided: no quantity fails, and inference had trouble",
        }[self.verdict]
        worst, p = min(self.adjusted.items(), key=lambda item: item[1])
        lines = [
            f"{head}: {len(self.failing)} of {what} leave the bands (level {self.level:g} over "
            "all)."
        ]
        lines += rows_of_failing(self)
        if not self.failing:
            lines.append(f"  closest to failing: {worst} (p = {p:.2g} after Holm)")
        lines.append(f"  {used} replications, each truth ranked among {self.num_draws} draws")
        lines += self.health.lines(self.num_draws)
        width = float(np.max(self.simultaneous.upper))
        lines.append(
            f"Says nothing of smaller errors (probabilities wrong by less than {width:.2f}), of "
            "other quantities, or of data that the model does not simulate."
        )
        return "\n".join(lines)


def rows_of_failing(result: Any) -> list[str]:
    """A line for each of the worst quantities."""
    failing, adjusted = result.failing, result.adjusted
    lines = [
        f"  {name}: {shape} (p {'=' if adjusted[name] > 1e-3 else '<'} "
        f"{max(adjusted[name], 1e-3):.2g} after Holm)"
        for name, shape in list(failing.items())[:SHOWN]
    ]
    if len(failing) > SHOWN:
        lines.append(f"  and {len(failing) - SHOWN} more")
    return lines


def sbc(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    method: Method | None = None,
    kernel: Callable[..., MCMCKernel] | None = None,
    guide: Callable[..., Any] | None = None,
    simulate: Callable[..., Any] | None = None,
    num_replications: int = 256,
    functionals: Mapping[str, Functional] | None = None,
    observed: str | tuple[str, ...] | None = None,
    level: float = 0.05,
    batch_size: int | None = None,
    progress_bar: bool = True,
    **kwargs: Any,
) -> SBC:
    """Simulation-based calibration: does inference recover what the model itself simulates?

    Parameters are drawn from the prior, data from the likelihood, and inference is run on each data
    set, vmapped. When inference is exact, the rank of each true quantity among L independent draws
    from its posterior is uniform on 0 .. L. A ∪ of ranks says that the posterior is too narrow, a
    ∩ too wide, a slope that it is shifted.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density.
    key
        Random key.
    args, kwargs
        The model's arguments, data of the right shape among them; their values do not matter.
        Keywords of the names below do not reach the model.
    method
        How to infer: an `numpyro_genprior.infer.MCMCMethod` or `numpyro_genprior.infer.SVIMethod`.
        A truth is ranked among at most 127 draws. A guide makes no more than that; the draws of
        chains are thinned evenly to 127 and, if needed, to 63, 31 or 15, until nine in ten data
        sets have that many effective draws of every quantity.
    kernel, guide
        Short for ``method=MCMCMethod(kernel)`` and ``method=SVIMethod(guide)``. Without any of the
        three, the kernel is NumPyro's NUTS.
    simulate
        Another model that simulates the data, with the same arguments and names of sites: to see
        whether a misspecification would show. None: `model`.
    num_replications
        Number of data sets.
    functionals
        Quantities of interest, each a function of a dictionary of all sites (data included), by
        name; arrays count by entry. None: mean, root mean square and up to 16 pixels of each
        event. Latents and the log likelihood are looked at in any case.
    observed
        Names of the sites that are simulated. None: all that have data.
    level
        Probability of calling any quantity miscalibrated when none is.
    batch_size
        Data sets that run at once. None: as memory allows, at most 64.
    progress_bar
        Show one.

    Returns
    -------
    SBC
        ``.verdict``, ``.ranks``, ``.p_values``, ``.simultaneous``; prints as a finding.

    Raises
    ------
    TypeError
        When `kernel` or `guide` is one itself, and no callable that makes one.
    ValueError
        When the model has no data, latents are discrete, or simulated data are not finite.

    Warns
    -----
    UserWarning
        When the density has terms that are not simulated, such as ``numpyro.factor``.

    Notes
    -----
    An effective number of draws below L matters little: half of it adds about 2/L to the variance
    of ranks, relative to the uniform one's. The bands hold for all points at once; their levels
    come from simulated uniform ranks, and the verdict is Holm's over quantities. The log
    likelihood depends on the data: it catches a posterior that is the prior, whose latents have
    uniform ranks.

    **Fails when** errors are small (256 replications see a posterior sd that is wrong by about a
    fifth), or lie in quantities that are not looked at. It says whether inference is right under
    the model, and nothing of whether the model is: see `coverage` with real events. A chain that
    has not converged shows as miscalibration, too: read what it says of r_hat.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari, Gelman, Validating Bayesian inference algorithms with
    simulation-based calibration, 2018. Säilynoja, Bürkner, Vehtari, Graphical test for discrete
    uniformity and its applications in goodness-of-fit evaluation and multiple sample comparison,
    Statistics and Computing 2022 (bands). Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman,
    Vehtari, Simulation-based calibration checking for Bayesian computation, Bayesian Analysis 2023
    (quantities that depend on the data).

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> import numpyro_genprior as ngp
    >>> @ngp.latent
    ... def model(y):
    ...     x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.stack([z[0], z[0] + z[1]]), 2))
    ...     numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)
    >>> found = ngp.diagnostics.sbc(
    ...     model,
    ...     jax.random.key(0),
    ...     jnp.zeros(2),
    ...     guide=ngp.infer.AutoFisherLaplace,
    ...     progress_bar=False,
    ... )
    >>> found.verdict  # a linear model, of which it is exact
    'calibrated'
    """
    method = limit_draws(choose_method("sbc", method, kernel, guide))
    experiment = prepare("sbc", model, args, kwargs, observed, num_replications, method)
    functionals = default_quantities(experiment.sites, functionals)
    quantities = Quantities(functionals, experiment.shapes())
    data_key, run_key = jax.random.split(validation.random_key(key))
    drawn = experiment.simulate(data_key, num_replications, model=simulate)
    truth = experiment.at(quantities, drawn)
    batches = experiment.run(
        run_key, drawn, quantities, batch_size=batch_size, progress_bar=progress_bar
    )
    found = ranked(batches, truth, method, name="sbc")
    ranks = dict(zip(quantities.names, found.ranks.T, strict=True))
    return SBC.of(ranks, found.num_draws, level, found.health)
