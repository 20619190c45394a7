"""`tarp`: calibration of a joint posterior, by distances from reference points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.mcmc import MCMCKernel

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.calibration.experiment import prepare
from numpyro_genprior.diagnostics.calibration.inference import Method, choose_method, limit_draws
from numpyro_genprior.diagnostics.calibration.ranked_quantities import Functional, Quantities
from numpyro_genprior.diagnostics.calibration.ranking import ranked
from numpyro_genprior.diagnostics.calibration.uniformity_test import (
    CALIBRATED,
    MISCALIBRATED,
    RankTest,
)

RANDOM, NEAR = "random reference", "reference by the data"
_WORDS = {  # a distance above the draws' is a truth farther from the reference than they are
    "posterior too low": "draws too near the reference",
    "posterior too high": "draws too far from the reference",
    "posterior too narrow": "posterior too narrow",
    "posterior too wide": "posterior too wide",
}


@dataclass(frozen=True, repr=False)
class TARP(RankTest):
    """Ranks of the truth's distance from reference points among the draws'. Print it to read it.

    Attributes
    ----------
    ranks
        For ``"random reference"`` and ``"reference by the data"``: how many draws are nearer to
        the reference than the truth, integers from 0 to `num_draws`, of shape ``(replications,)``.
    num_draws
        Draws that each truth was ranked among, after thinning.
    p_values
        For each kind of reference, of Pearson's χ² for uniform ranks.
    simultaneous
        Bands: ``.difference`` is expected coverage minus credibility, at credibility ``.points``.
    level
        Probability of calling a posterior miscalibrated when it is not.
    health
        In how many replications inference had trouble.
    """

    def __repr__(self) -> str:
        used = len(next(iter(self.ranks.values())))
        head = {
            CALIBRATED: f"Jointly calibrated, as far as {used} replications can tell.",
            MISCALIBRATED: "Jointly miscalibrated.",
        }.get(self.verdict, "Undecided: expected coverage is right, and inference had trouble.")
        lines = [head]
        for name, curve in self.simultaneous.difference.items():
            worst = int(np.argmax(np.abs(curve)))
            credible = self.simultaneous.points[worst]
            says = f"; {_WORDS[self.failing[name]]}" if name in self.failing else ""
            lines.append(
                f"  {name}: regions of credibility {credible:.2f} have the truth in "
                f"{credible + curve[worst]:.2f} of cases (p = {self.adjusted[name]:.2g}){says}"
            )
        lines.append(f"  {used} replications, each truth among {self.num_draws} draws")
        lines += self.health.lines(self.num_draws)
        lines.append(
            "By distances in prior standard deviations: errors along few of many directions "
            "hardly change these. `sbc` looks at single quantities."
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

    With a reference point r, the region of draws that are nearer to r than the truth is a credible
    region; its credibility is uniform when the posterior is right. Where `sbc` takes one quantity
    at a time, this takes all of them at once.

    Two references are used for each data set, truths of as many further simulations. One is any of
    them. The other is that whose data are most like these: it depends on the data, and finds out a
    posterior that is the prior, which the first cannot.

    Parameters
    ----------
    model, key, args, kwargs, method, kernel, guide, simulate
        As for `sbc`.
    functional
        A function of a dictionary of all sites: what distances are taken between, an array. None:
        all latents.
    num_replications, observed
        As for `sbc`.
    level
        Probability of calling a posterior miscalibrated when it is not.
    batch_size, progress_bar
        As for `sbc`.

    Returns
    -------
    TARP
        ``.ranks``, ``.verdict``, ``.simultaneous``; prints as a finding.

    Raises
    ------
    TypeError, ValueError
        As `sbc` does.

    Notes
    -----
    The distance is Euclidean, with each entry in units of its standard deviation over the
    simulated truths.

    **Fails when** there are many entries of which few are wrong: all distances are then alike. Data
    that do not resemble each other make the second reference a random one.

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
    >>> found = ngp.diagnostics.tarp(
    ...     model,
    ...     jax.random.key(0),
    ...     jnp.zeros(2),
    ...     guide=ngp.infer.AutoFisherLaplace,
    ...     progress_bar=False,
    ... )
    >>> found.verdict
    'calibrated'
    """
    method = limit_draws(choose_method("tarp", method, kernel, guide))
    experiment = prepare("tarp", model, args, kwargs, observed, num_replications, method)
    data_key, other_key, run_key = jax.random.split(validation.random_key(key), 3)
    drawn = experiment.simulate(data_key, num_replications, model=simulate)
    others = experiment.simulate(other_key, num_replications, model=simulate)
    function = functional or _Flat(experiment.sites.latents)
    value = Quantities({"value": function}, experiment.shapes())
    truth, points = experiment.at(value, drawn), experiment.at(value, others)
    deviation = truth.std(0)
    scale = np.where(deviation > 0, deviation, 1).astype(truth.dtype)
    nearest = _nearest(drawn, others, experiment.sites.data)
    references = np.stack([points, points[nearest]], axis=1)  # (replications, 2, entries)
    distance = np.linalg.norm((truth[:, None] - references) / scale, axis=-1)
    units = np.broadcast_to(scale, (num_replications, 1, len(scale)))
    extra = np.concatenate([references, units], axis=1)
    shapes = {**experiment.shapes(), "extra": extra[0]}
    quantities = Quantities({"distance": _Distance(function)}, shapes)
    batches = experiment.run(
        run_key,
        drawn,
        quantities,
        extra=extra,
        batch_size=batch_size,
        progress_bar=progress_bar,
    )
    found = ranked(batches, distance, method, name="tarp")
    ranks = {RANDOM: found.ranks[:, 0], NEAR: found.ranks[:, 1]}
    return TARP.of(ranks, found.num_draws, level, found.health)


@dataclass(frozen=True)
class _Flat:
    """Sites as one vector."""

    names: tuple[str, ...]

    def __call__(self, sites: Mapping[str, Any]) -> jax.Array:
        return jnp.concatenate([jnp.ravel(sites[name]) for name in self.names])


@dataclass(frozen=True)
class _Distance:
    """Distances of a function's value from the references, both in given units."""

    function: Functional

    def __call__(self, sites: Mapping[str, Any]) -> jax.Array:
        value = jnp.ravel(self.function(sites))
        *references, unit = sites["extra"]
        return jnp.stack([jnp.linalg.norm((value - r) / unit) for r in references])


def _nearest(drawn: dict[str, Any], others: dict[str, Any], names: tuple[str, ...]) -> np.ndarray:
    """For each data set the most similar one among others."""
    apart = np.zeros(())
    for name in names:
        a, b = (np.asarray(of[name], float) for of in (drawn, others))
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
        apart = apart + square / (np.median(square) or 1.0)
    return apart.argmin(1)
