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
from numpyro_genprior.diagnostics.calibration.inference import choose_method, limit_draws
from numpyro_genprior.diagnostics.calibration.ranked_quantities import (
    Functional,
    Quantities,
    default_quantities,
)
from numpyro_genprior.diagnostics.calibration.ranks import rank_truths
from numpyro_genprior.diagnostics.calibration.uniformity_test import (
    CALIBRATED,
    MISCALIBRATED,
    UNDECIDED,
    RankTest,
)
from numpyro_genprior.infer.methods import Method

MAX_PRINTED = 6  # failing quantities that are printed


@dataclass(frozen=True, repr=False, eq=False)
class SBC(RankTest):
    """Ranks of the truth among posterior draws, and whether they are uniform.

    Attributes
    ----------
    ranks
        For each quantity (``"x_latent[3]"``), its ranks, integers from 0 to `num_draws`, of shape
        ``(replications,)``. Replications whose draws are not finite are left out.
    num_draws
        Number of draws that each truth was ranked among, after thinning.
    p_values
        For each quantity, the p-value of Pearson's χ² test for uniform ranks.
    simultaneous
        Simultaneous bands for the empirical distribution functions, with the test by them.
    level
        Probability of calling any quantity miscalibrated if none is.
    convergence
        Convergence of the inference runs.
    """

    def __str__(self) -> str:
        failing, adjusted = self.failing, self.adjusted
        trouble = "" if self.convergence.acceptable else ", possibly due to unreliable inference"
        head = {
            CALIBRATED: f"Calibrated, as far as {self.num_replications} replications can tell",
            MISCALIBRATED: f"Miscalibrated{trouble}",
            UNDECIDED: "Undecided: no quantity fails, but inference was unreliable",
        }[self.verdict]
        plural = "quantity" if len(self.ranks) == 1 else "quantities"
        lines = [
            f"{head}: {len(failing)} of {len(self.ranks)} {plural} leave the bands "
            f"(level {self.level:g} over all)."
        ]
        for name in list(failing)[:MAX_PRINTED]:
            p = f"= {adjusted[name]:.2g}" if adjusted[name] > 1e-3 else "< 0.001"
            lines.append(f"  {name}: {failing[name]} (p {p} after Holm)")
        if len(failing) > MAX_PRINTED:
            lines.append(f"  and {len(failing) - MAX_PRINTED} more")
        if not failing:
            worst, p = min(adjusted.items(), key=lambda item: item[1])
            lines.append(f"  closest to failing: {worst} (p = {p:.2g} after Holm)")
        lines.append(
            f"  {self.num_replications} replications, each truth ranked among "
            f"{self.num_draws} draws"
        )
        lines += [f"  {warning}" for warning in self.warnings]
        width = float(np.max(self.simultaneous.upper))
        lines.append(
            f"This cannot detect smaller errors (probabilities wrong by less than {width:.2f}), "
            "errors of other quantities, or errors on data that the model does not simulate."
        )
        return "\n".join(lines)


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
    set, vmapped. If inference is exact, the rank of each true quantity among L independent draws
    from its posterior is uniform on 0 .. L. A ∪ of ranks means that the posterior is too narrow, a
    ∩ that it is too wide, a slope that it is biased.

    Parameters
    ----------
    model
        A NumPyro model; decorated with `numpyro_genprior.latent` if it has priors without an
        exact density.
    key
        Random key.
    args, kwargs
        The model's arguments, including data of the right shape, whose values do not matter.
        Keywords with the names below do not reach the model.
    method
        An `numpyro_genprior.infer.MCMCMethod` or `numpyro_genprior.infer.SVIMethod`.
        A truth is ranked among at most 127 draws. A guide makes no more than that; draws of
        chains are thinned evenly to 127 and, if needed, to 63, 31 or 15, until nine in ten data
        sets have that many effective draws of every quantity.
    kernel, guide
        Short for ``method=MCMCMethod(kernel)`` and ``method=SVIMethod(guide)``. Without any of the
        three, the kernel is NumPyro's NUTS.
    simulate
        Another model to simulate the data, with the same arguments and names of sites, to see
        whether a misspecification would be noticed. None: `model`.
    num_replications
        Number of data sets.
    functionals
        Quantities of interest by name, each a function of a dictionary of all sites (data
        included); arrays count by entry. None: mean, root mean square and up to 16 pixels of each
        event. Latents and the log likelihood are always ranked.
    observed
        Names of the sites that are simulated. None: all that have data.
    level
        Probability of calling any quantity miscalibrated if none is.
    batch_size
        Data sets that run at once. None: as memory allows, at most 64.
    progress_bar
        Whether to show a progress bar.

    Returns
    -------
    SBC
        ``.verdict``, ``.ranks``, ``.p_values``, ``.simultaneous``, ``.to_datatree()``.

    Raises
    ------
    TypeError
        If `kernel` or `guide` is not a callable of the model, or `method` has another type.
    ValueError
        If two of `method`, `kernel` and `guide` are given, the model has no data, latents are
        discrete, or simulated data are not finite.

    Warns
    -----
    UserWarning
        If the density has terms that are not simulated, such as ``numpyro.factor``.

    Notes
    -----
    An effective sample size below L matters little: half of it increases the variance of ranks by
    a relative 2/L. The bands hold for all points at once; their levels come from simulated uniform
    ranks, and the verdict applies Holm's method over quantities. The log likelihood depends on the
    data: it reveals a posterior that equals the prior, whose latents have uniform ranks.

    **Fails when** errors are small (256 replications detect a posterior sd that is wrong by about
    a fifth) or are in quantities that are not ranked. It says whether inference is right under
    the model, and nothing of whether the model is: see `coverage` with real events. Chains that
    have not converged look miscalibrated, too: read the warnings.

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
    >>> result = ngp.diagnostics.sbc(
    ...     model,
    ...     jax.random.key(0),
    ...     jnp.zeros(2),
    ...     guide=ngp.infer.AutoFisherLaplace,  # exact: the model is linear
    ...     progress_bar=False,
    ... )
    >>> result.verdict
    'calibrated'
    """
    method = limit_draws(choose_method("sbc", method, kernel, guide))
    experiment = prepare("sbc", model, args, kwargs, observed, num_replications, method)
    functionals = default_quantities(experiment.sites, functionals)
    quantities = Quantities(functionals, experiment.shapes())
    data_key, run_key = jax.random.split(validation.random_key(key))
    simulated = experiment.simulate(data_key, num_replications, model=simulate)
    truth = experiment.evaluate(quantities, simulated)
    batches = experiment.run(
        run_key, simulated, quantities, batch_size=batch_size, progress_bar=progress_bar
    )
    return SBC.from_ranks(rank_truths(batches, truth, method, name="sbc"), quantities.names, level)
