"""`adequacy`: can any event of the prior explain the data?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jax.scipy.stats import chi2 as chi2_distribution
from jax.typing import ArrayLike

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.posterior.adequacy_result import (
    ADEQUATE,
    MIN_EXPLAINED,
    MIN_LATENT_P_VALUE,
    MIN_P_VALUE,
    MIN_STRUCTURE_P_VALUE,
    NOISE,
    OUTSIDE,
    Adequacy,
)
from numpyro_genprior.diagnostics.posterior.goodness_of_fit import (
    Fit,
    descend,
    examine,
    flatten,
    missed_by_events,
    replicate,
    unflatten,
)
from numpyro_genprior.diagnostics.posterior.handlers import Tempered
from numpyro_genprior.errors import message
from numpyro_genprior.infer.initial_points import draw_starts
from numpyro_genprior.infer.posterior import Posterior, site_values
from numpyro_genprior.priors import Prior

MIN_NOISE_P_VALUE = 0.01  # `structure_p_value` above which a residual is clearly noise
MAX_RESIDUAL_RATIO = 3.0  # size of a residual with structure, relative to what is expected
MAX_REFITS, MIN_CHANGE = 30, 0.01  # refits with inflated noise; relative change to stop at


class Judgement(NamedTuple):
    """p-values of a fit, and what they are based on; see `Adequacy`."""

    degrees: float
    p_value: float
    predictive_p_value: float
    latent_distance: float
    num_identified: int
    latent_p_value: float
    structure_p_value: float | None

    @property
    def adequate(self) -> bool:
        return self.p_value >= MIN_P_VALUE and self.latent_p_value >= MIN_LATENT_P_VALUE


def adequacy(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    event_scale: ArrayLike | None = None,
    num_starts: int = 16,
    num_replicates: int = 400,
    **kwargs: Any,
) -> Adequacy:
    """Check whether any event of the prior explains the data, and if not, why.

    Parameters
    ----------
    model
        A NumPyro model, decorated with `numpyro_genprior.latent` if it has priors without an
        exact density.
    key
        Random key of the starts of the search and of the replicates.
    args, kwargs
        The model's arguments. The keywords below are not passed to it.
    event_scale
        Representation error of the prior per entry of an event, from `estimate_event_scale`. None:
        the decoder noise of a prior among the arguments, if there is just one that has any and the
        model leaves it out; otherwise none is assumed. Leave it out if the likelihood
        already includes this error (`MarginalNormal`).
    num_starts
        Number of descents; use more if the mode is hard to find.
    num_replicates
        Number of replicated data sets, at least 100.

    Returns
    -------
    Adequacy
        ``.verdict`` and the numbers behind it; ``print`` states the finding.

    Raises
    ------
    ValueError
        If an observed distribution has no variance, or has correlated entries and is not normal;
        if no start has a finite energy; for latent sites that `numpyro_genprior.infer.Posterior`
        refuses; if a number is out of range.

    Notes
    -----
    The rule:

    1. *Adequate* if ``p_value ≥ 0.01`` and ``latent_p_value ≥ 0.001``.
    2. Otherwise the noise is inflated until χ² of the refit is as expected. The likelihood is
       raised to a power below 1, which is the same for normal noise and gives overdispersion for
       counts.
    3. *Out of range* if the latent of the refit is still atypical (p < 0.001); or if the refit
       explains less than half of the data's variance and its residual is not clearly noise
       (`structure_p_value` below 0.01, or None); or if the residual has structure (p < 0.001) and
       is more than three times as large as expected from the noise and `event_scale`.
    4. Otherwise *noise too small*.

    Means of the data are linearised at the mode, with ``M = ∂(mean/sd)/∂ξ = U diag(s) Vᵀ``. With
    normal noise and a linear generator ``(I + M Mᵀ)⁻¹ (ε + M ν)`` is exactly the distribution of
    the residual over data, and `p_value` is uniform.

    **Fails when** the search misses the mode: an event in range then looks out of range (raise
    `num_starts`). If data are few, or sums over the whole event, they cannot show what the prior
    lacks: an adequate fit then means little, and if no axis of the data is smooth (random
    projections), strong noise and an event out of range look alike. Noise with tails of infinite
    variance (Student's t of two degrees of freedom or less) fits anything. The matrix M, data
    times latents, is formed.

    References
    ----------
    Gelman, Meng, Stern, Posterior predictive assessment of model fitness via realized
    discrepancies, 1996. Box, Sampling and Bayes' inference in scientific modelling and robustness,
    1980.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> import numpyro_genprior as ngp
    >>> @ngp.latent
    ... def model(prior, y):
    ...     x = numpyro.sample("x", prior)
    ...     numpyro.sample("y", dist.Normal(x, 0.1).to_event(1), obs=y)
    >>> wave = jnp.sin(jnp.linspace(0, 6, 50))
    >>> prior = ngp.GANPrior(lambda z: z[0] * wave + z[1] * wave**2, 2)
    >>> noise = jax.random.normal(jax.random.key(0), (50,))
    >>> for y in (wave + 0.1 * noise, wave + 0.5 * noise, 10 * jnp.cos(jnp.linspace(0, 30, 50))):
    ...     ngp.diagnostics.adequacy(model, jax.random.key(1), prior, y).verdict
    'adequate'
    'noise_too_small'
    'out_of_range'
    """
    _check(num_starts, num_replicates)
    posterior = Posterior(Tempered(model), (jnp.ones(()), {}, *args), kwargs)
    keys = jax.random.split(validation.random_key(key), 4)
    starts, _ = _draw(posterior, keys[0], num_starts)
    ends, energy = _descend(posterior, starts)
    fit = examine(posterior, ends[0], keys[1])
    judged = _judge(posterior, fit, keys[2], num_replicates, 1.0)
    if judged.adequate:
        return _adequate(posterior, fit, judged)
    refit, inflation, ends = _inflate(posterior, ends, starts, fit, keys[1])
    # The path through weaker data may have led to a better mode of the original posterior.
    ends, other_energy = _descend(posterior, ends)
    if other_energy < energy - 1.0:
        fit = examine(posterior, ends[0], keys[1])
        judged = _judge(posterior, fit, keys[2], num_replicates, 1.0)
        if judged.adequate:
            return _adequate(posterior, fit, judged)
    rejudged = _judge(posterior, refit, keys[2], num_replicates, inflation)
    residual_ratio = None
    scale = _event_scale(posterior, event_scale)
    if scale is not None:
        missed = float(missed_by_events(posterior, refit, keys[3]))
        residual_ratio = math.sqrt(float(refit.chi2) / (rejudged.degrees + scale**2 * missed))
    verdict = OUTSIDE if _out_of_range(_explained(refit), rejudged, residual_ratio) else NOISE
    return _result(
        posterior,
        fit,
        judged,
        verdict=verdict,
        explained=_explained(refit),
        inflation=inflation,
        refit_latent_p_value=rejudged.latent_p_value,
        structure_p_value=rejudged.structure_p_value,
        residual_ratio=residual_ratio,
    )


_draw = eqx.filter_jit(draw_starts)


def _out_of_range(explained: float, refit: Judgement, residual_ratio: float | None) -> bool:
    """Step 3 of the rule."""
    if refit.latent_p_value < MIN_LATENT_P_VALUE:
        return True
    p = refit.structure_p_value
    if explained < MIN_EXPLAINED and (p is None or p < MIN_NOISE_P_VALUE):
        return True
    has_structure = p is not None and p < MIN_STRUCTURE_P_VALUE
    return residual_ratio is not None and residual_ratio > MAX_RESIDUAL_RATIO and has_structure


def _descend(posterior: Posterior, starts: jax.Array) -> tuple[jax.Array, float]:
    """Ends of the descents from all starts, the best first, and its energy."""
    ends, best, energy = descend(posterior, starts)
    if not math.isfinite(float(energy)):
        raise ValueError(
            message(
                f"The energy is not finite at any of {len(starts)} starts",
                expected="a finite log density at draws from the prior",
                remedy="look for NaN in the data, and for data outside the support of their "
                "distribution",
            )
        )
    order = jnp.roll(jnp.arange(len(starts)), -best)
    return ends[order], float(energy)


def _inflate(
    posterior: Posterior, ends: jax.Array, starts: jax.Array, fit: Fit, key: jax.Array
) -> tuple[Fit, float, jax.Array]:
    """The fit under noise at which χ² is as expected, its factor, and the ends of all descents."""
    current = jnp.concatenate([ends[:1], starts[1:]])
    refit, inflation = fit, max(math.sqrt(float(fit.chi2) / _degrees(fit, 1.0)), 1.0)
    for _ in range(MAX_REFITS):
        weight = jnp.asarray(inflation**-2, starts.dtype)
        weaker = eqx.tree_at(lambda p: p.arguments[0][0], posterior, weight)
        current, _ = _descend(weaker, current)
        refit = examine(posterior, current[0], key)
        new = max(math.sqrt(float(refit.chi2) / _degrees(refit, inflation)), 1.0)
        change, inflation = abs(new / inflation - 1), new
        if change < MIN_CHANGE:
            break
    return refit, inflation, current


def _degrees(fit: Fit, inflation: float) -> float:
    """Number of data minus the degrees of freedom that the latents fitted."""
    squares = np.asarray(fit.singular_values, float) ** 2 / inflation**2
    return max(float(fit.num_data) - float(np.sum(squares / (1 + squares))), 1e-6)


def _explained(fit: Fit) -> float:
    return 1 - float(fit.chi2 / fit.from_mean)


def _judge(
    posterior: Posterior, fit: Fit, key: jax.Array, num_replicates: int, inflation: float
) -> Judgement:
    """p-values of a fit under noise that is `inflation` times that of the model."""
    weight = jnp.asarray(inflation**-2, fit.xi.dtype)
    replicates = replicate(posterior, fit, key, num_replicates, weight)
    chi2 = float(fit.chi2) / inflation**2
    num_larger = int(np.sum(np.asarray(replicates.chi2) >= chi2))
    num_predictive = int(np.sum(np.asarray(replicates.predictive) >= 0))
    s = np.asarray(fit.singular_values, float) / inflation
    known = s > 1
    ratio = (1 + s[known] ** 2) / s[known] ** 2
    distance = float(np.sum(np.asarray(fit.along, float)[known] ** 2 * ratio))
    latent_p = float(chi2_distribution.sf(distance, int(known.sum()))) if known.any() else 1.0
    return Judgement(
        degrees=_degrees(fit, inflation),
        p_value=(1 + num_larger) / (1 + num_replicates),
        predictive_p_value=(1 + num_predictive) / (1 + num_replicates),
        latent_distance=distance,
        num_identified=int(known.sum()),
        latent_p_value=latent_p,
        structure_p_value=_structure(fit, np.asarray(replicates.structure)),
    )


def _structure(fit: Fit, replicates: np.ndarray) -> float | None:
    """p-value of the residual's structure, by normal approximations to that of replicates.

    Bonferroni's over the axes along which the prior's data are smooth, and the mean.
    """
    if not bool(np.any(np.asarray(fit.smooth))):
        return None
    counts = np.append(np.asarray(fit.smooth), True)
    spread = np.maximum(replicates.std(0), 1e-12)
    z = np.abs(np.asarray(fit.structure) - replicates.mean(0)) / spread
    p = 2 * np.asarray(ndtr(-z[counts]))
    return float(min(1.0, counts.sum() * p.min()))


def _event_scale(posterior: Posterior, given: ArrayLike | None) -> float | None:
    """The event scale given, or the decoder noise of a prior if the model leaves it out."""
    if given is not None:
        scale = float(np.asarray(given))
        if not scale > 0:
            raise ValueError(
                message(
                    "adequacy: the event_scale is not positive",
                    expected="a standard deviation",
                    got=scale,
                    remedy="pass ngp.diagnostics.estimate_event_scale(prior, key, events)",
                )
            )
        return scale
    leaves = jax.tree.leaves(posterior.arguments, is_leaf=lambda node: isinstance(node, Prior))
    scales = [p.event_scale for p in leaves if isinstance(p, Prior)]
    scales = [scale for scale in scales if scale is not None]
    noisy = any(site.role == "noise" for site in posterior.sites.values())
    if len(scales) != 1 or noisy:
        return None
    return float(np.sqrt(np.mean(np.asarray(scales[0]) ** 2)))


def _adequate(posterior: Posterior, fit: Fit, judged: Judgement) -> Adequacy:
    return _result(
        posterior,
        fit,
        judged,
        verdict=ADEQUATE,
        explained=_explained(fit),
        inflation=1.0,
        refit_latent_p_value=judged.latent_p_value,
        structure_p_value=None,
        residual_ratio=None,
    )


def _result(posterior: Posterior, fit: Fit, judged: Judgement, **conclusions: Any) -> Adequacy:
    """The result; `conclusions` are the fields that a refit decides."""
    residual, direction = fit.residual, _unreached(fit)
    single = len(residual) == 1
    return Adequacy(
        chi2=float(fit.chi2),
        degrees=judged.degrees,
        p_value=judged.p_value,
        predictive_p_value=judged.predictive_p_value,
        latent_distance=judged.latent_distance,
        num_identified=judged.num_identified,
        latent_p_value=judged.latent_p_value,
        residual=next(iter(residual.values())) if single else residual,
        direction=next(iter(direction.values())) if single else direction,
        values=site_values(posterior, fit.xi),
        **conclusions,
    )


def _unreached(fit: Fit) -> dict[str, jax.Array]:
    """The residual's part that no movement of the latent reaches, of unit length."""
    residual = flatten(fit.residual)
    reached = fit.singular_values > 1e-5 * jnp.max(fit.singular_values)
    basis = jnp.where(reached[None], fit.directions, 0)
    unreached = residual - basis @ (residual @ basis)
    unreached = unreached / jnp.maximum(jnp.linalg.norm(unreached), jnp.finfo(unreached.dtype).tiny)
    return unflatten(unreached, {name: r.shape for name, r in fit.residual.items()})


def _check(num_starts: int, num_replicates: int) -> None:
    if num_starts < 1 or num_replicates < 100:
        raise ValueError(
            message(
                "adequacy needs starts and replicates",
                expected="num_starts of at least 1 and num_replicates of at least 100",
                got=(num_starts, num_replicates),
                remedy="leave num_starts=16, num_replicates=400",
            )
        )
