"""`tarp`: calibration of a joint posterior, by distances from reference points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from numpyro.infer.mcmc import MCMCKernel

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.calibration.experiment import Values, prepare
from numpyro_genprior.diagnostics.calibration.inference import choose_method, limit_draws
from numpyro_genprior.diagnostics.calibration.ranked_quantities import (
    Functional,
    Quantities,
    SiteValues,
)
from numpyro_genprior.diagnostics.calibration.ranks import rank_truths
from numpyro_genprior.diagnostics.calibration.uniformity_test import (
    CALIBRATED,
    MISCALIBRATED,
    UNDECIDED,
    RankTest,
)
from numpyro_genprior.infer.methods import Method

RANDOM, SIMILAR = "random reference", "reference by the data"
_DEVIATIONS = {  # a truth farther from the reference than the draws has a high rank
    "posterior too low": "draws too near the reference",
    "posterior too high": "draws too far from the reference",
}


@dataclass(frozen=True, repr=False, eq=False)
class TARP(RankTest):
    """Ranks of the truth's distance from reference points among the distances of the draws.

    Attributes
    ----------
    ranks
        For ``"random reference"`` and ``"reference by the data"``: how many draws are nearer to
        the reference than the truth, integers from 0 to `num_draws`, of shape ``(replications,)``.
    num_draws
        Number of draws that each truth was ranked among, after thinning.
    p_values
        For each kind of reference, the p-value of Pearson's χ² test for uniform ranks.
    simultaneous
        Bands: ``.difference`` is expected coverage minus credibility, at credibility ``.points``.
    level
        Probability of calling a posterior miscalibrated if it is not.
    convergence
        Convergence of the inference runs.
    """

    def __str__(self) -> str:
        failing, number = self.failing, self.num_replications
        head = {
            CALIBRATED: f"Jointly calibrated, as far as {number} replications can tell.",
            MISCALIBRATED: "Jointly miscalibrated.",
            UNDECIDED: "Undecided: expected coverage is right, but inference was unreliable.",
        }[self.verdict]
        lines = [head]
        for name, curve in self.simultaneous.difference.items():
            worst = int(np.argmax(np.abs(curve)))
            credibility = self.simultaneous.points[worst]
            line = (
                f"  {name}: regions of credibility {credibility:.2f} contain the truth in "
                f"{credibility + curve[worst]:.2f} of cases (p = {self.adjusted[name]:.2g})"
            )
            if name in failing:
                line += f"; {_DEVIATIONS.get(failing[name], failing[name])}"
            lines.append(line)
        lines.append(f"  {number} replications, each truth ranked among {self.num_draws} draws")
        lines += [f"  {warning}" for warning in self.warnings]
        lines.append(
            "Distances are in prior standard deviations: errors along few of many directions "
            "hardly change them. `sbc` tests single quantities."
        )
        return "\n".join(lines)


def tarp(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    method: Method | None = None,
    kernel: Callable[..., MCMCKernel] | None = None,
    guide: Callable[..., Any] | None = None,
    simulate: Callable[..., Any] | None = None,
    functional: Functional | None = None,
    num_replications: int = 256,
    observed: str | tuple[str, ...] | None = None,
    level: float = 0.05,
    batch_size: int | None = None,
    progress_bar: bool = True,
    **kwargs: Any,
) -> TARP:
    """Tests of accuracy with random points: is the joint posterior calibrated?

    Given a reference point r, the region of draws that are nearer to r than the truth is a credible
    region; its credibility is uniform if the posterior is right. Where `sbc` tests one quantity
    at a time, this tests all of them jointly.

    Each data set gets two references, both truths of further simulations. One is a random one. The
    other is the one whose data are most similar: it depends on the data, and so detects a
    posterior that equals the prior, which the first cannot.

    Parameters
    ----------
    model, key, args, kwargs, method, kernel, guide, simulate
        As for `sbc`.
    functional
        A function of a dictionary of all sites that returns an array; distances are between
        values of it. None: all latents.
    num_replications, observed
        As for `sbc`.
    level
        Probability of calling a posterior miscalibrated if it is not.
    batch_size, progress_bar
        As for `sbc`.

    Returns
    -------
    TARP
        ``.verdict``, ``.ranks``, ``.simultaneous``.

    Raises
    ------
    TypeError, ValueError
        As `sbc` does.

    Notes
    -----
    The distance is Euclidean, with each entry in units of its standard deviation over the
    simulated truths.

    **Fails when** there are many entries of which few are wrong: all distances are then similar. If
    no data sets resemble each other, the second reference is a random one, too.

    References
    ----------
    Lemos, Coogan, Hezaveh, Perreault-Levasseur, Sampling-based accuracy testing of posterior
    estimators for general inference, ICML 2023.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> import numpyro_genprior as ngp
    >>> @ngp.latent
    ... def model(y):
    ...     x = numpyro.sample("x", ngp.GANPrior(lambda z: jnp.stack([z[0], z[0] + z[1]]), 2))
    ...     numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)
    >>> result = ngp.diagnostics.tarp(
    ...     model,
    ...     jax.random.key(0),
    ...     jnp.zeros(2),
    ...     guide=ngp.infer.AutoFisherLaplace,
    ...     progress_bar=False,
    ... )
    >>> result.verdict
    'calibrated'
    """
    method = limit_draws(choose_method("tarp", method, kernel, guide))
    experiment = prepare("tarp", model, args, kwargs, observed, num_replications, method)
    data_key, other_key, run_key = jax.random.split(validation.random_key(key), 3)
    simulated = experiment.simulate(data_key, num_replications, model=simulate)
    others = experiment.simulate(other_key, num_replications, model=simulate)
    function = functional or _Flattened(experiment.sites.latents)
    value = Quantities({"value": function}, experiment.shapes())
    truth, points = experiment.evaluate(value, simulated), experiment.evaluate(value, others)
    deviation = truth.std(0)
    scale = np.where(deviation > 0, deviation, 1).astype(truth.dtype)
    similar = _most_similar(simulated, others, experiment.sites.data)
    reference_pair = np.stack([points, points[similar]], axis=1)  # (replications, 2, entries)
    distance = np.linalg.norm((truth[:, None] - reference_pair) / scale, axis=-1)
    scales = np.broadcast_to(scale, (num_replications, 1, len(scale)))
    references = np.concatenate([reference_pair, scales], axis=1)
    shape = jax.ShapeDtypeStruct(references.shape[1:], references.dtype)
    quantities = Quantities(
        {"distance": _Distances(function)}, {**experiment.shapes(), "references": shape}
    )
    batches = experiment.run(
        run_key,
        simulated,
        quantities,
        references=references,
        batch_size=batch_size,
        progress_bar=progress_bar,
    )
    ranked = rank_truths(batches, distance, method, name="tarp")
    return TARP.from_ranks(ranked, [RANDOM, SIMILAR], level)


@dataclass(frozen=True)
class _Flattened:
    """The named sites as one vector."""

    names: tuple[str, ...]

    def __call__(self, sites: SiteValues) -> jax.Array:
        return jnp.concatenate([jnp.ravel(sites[name]) for name in self.names])


@dataclass(frozen=True)
class _Distances:
    """Distances of a function's value from both references; the last row of these is the scale."""

    function: Functional

    def __call__(self, sites: SiteValues) -> jax.Array:
        value = jnp.ravel(self.function(sites))
        *references, scale = sites["references"]
        return jnp.stack([jnp.linalg.norm((value - r) / scale) for r in references])


def _most_similar(
    simulated: Values, others: Values, names: tuple[str, ...]
) -> Int[np.ndarray, " replications"]:
    """For each data set the most similar one among the others."""
    distance = np.zeros(())
    for name in names:
        a, b = (np.asarray(of[name], float) for of in (simulated, others))
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
        distance = distance + square / (np.median(square) or 1.0)
    return distance.argmin(1)
