"""`adequacy`: can any event of the prior explain the data?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jax.scipy.stats import chi2 as chi2_law
from jax.typing import ArrayLike

from numpyro_genprior import validation
from numpyro_genprior.diagnostics.posterior.goodness_of_fit import (
    Fit,
    descend,
    examine,
    missed_by_events,
    replicate,
)
from numpyro_genprior.diagnostics.posterior.handlers import Tempered
from numpyro_genprior.errors import message
from numpyro_genprior.infer.initial_points import draw_starts
from numpyro_genprior.infer.map_result import number
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.priors import Prior

ADEQUATE, NOISE, OUTSIDE = "adequate", "noise_too_small", "out_of_range"
LEVEL, FAR, STRUCTURED = 0.01, 1e-3, 1e-3  # p-values below which χ², latent and whiteness fail
HALF, BEYOND = 0.5, 3.0  # least share explained, and most error in units of what is expected
ROUNDS, SETTLED = 30, 0.01  # refits while the noise is inflated, and what ends them


@dataclass(frozen=True, repr=False)
class Adequacy:
    """Whether any event of the prior explains the data. Print it to read what that means.

    Attributes
    ----------
    verdict
        ``"adequate"``, ``"noise_too_small"`` or ``"out_of_range"``.
    chi2
        Pearson's χ² of the data at the mode.
    degrees
        What is expected of it: the number of data less ``Σ s²/(1+s²)``, which the latents fitted.
    p_value
        Share of replicates with a larger χ²: the data drawn anew at the mode, and fitted to first
        order.
    predictive_p_value
        The posterior predictive one: χ² of replicates against χ² of the data, over draws of the
        Gaussian posterior at the mode. Conservative: too seldom small.
    latent_distance
        ``Σ (v·ẑ)² (1+s²)/s²`` over identified directions (s > 1): how far out the latent lies, χ²
        with `num_identified` degrees under the prior.
    num_identified
        Number of these directions.
    latent_p_value
        Probability of a larger distance.
    explained
        Share of the data's variance about the prior predictive mean that the mode explains, in
        units of the noise; of the refit where there was one.
    inflation
        Factor on the noise at which χ² of the refit is as expected; 1 where the fit was adequate.
    refit_latent_p_value
        `latent_p_value` of that refit.
    structure_p_value
        Of the hypothesis that its residual is nothing but noise: by the correlation of neighbours
        along the axes of data in which those of the prior are smooth, and by the mean. None where
        no data are smooth.
    beyond
        Size of its residual over what noise and `event_scale` lead to expect; None without an
        event scale.
    residual
        Pearson residual at the mode, data-shaped (a dictionary where several sites are observed).
    direction
        The part of it that no movement of the latent reaches, to first order, of unit length: where
        in the data to look for what the prior does not have.
    values
        All sites at the mode.
    """

    verdict: str
    chi2: float
    degrees: float
    p_value: float
    predictive_p_value: float
    latent_distance: float
    num_identified: int
    latent_p_value: float
    explained: float
    inflation: float
    refit_latent_p_value: float
    structure_p_value: float | None
    beyond: float | None
    residual: Any
    direction: Any
    values: dict[str, jax.Array]

    @property
    def noise_factor(self) -> float:
        """``√(χ² / degrees)``: residuals in units of what the noise says, at the mode."""
        return math.sqrt(self.chi2 / self.degrees)

    def __repr__(self) -> str:
        said = {
            ADEQUATE: "Adequate: an event of the prior explains the data as well as it should.",
            NOISE: "Noise too small: the prior has an event like this one, but not to within the "
            "noise.",
            OUTSIDE: "Out of range: no event of the prior explains these data.",
        }
        if self.verdict == OUTSIDE and self.explained >= HALF and self.refit_latent_p_value < FAR:
            said[OUTSIDE] = (
                "Out of range: what explains these data is an event that the prior finds all but "
                "impossible."
            )
        lines = [
            said[self.verdict],
            f"  χ² {self.chi2:.4g} where {self.degrees:.4g} is expected (p {_p(self.p_value)}): "
            f"residuals are {self.noise_factor:.3g} times the noise",
            f"  the latent's squared distance is {self.latent_distance:.4g} along "
            f"{number(self.num_identified, 'identified direction')}, a χ² of as many degrees under "
            f"the prior (p {_p(self.latent_p_value)})",
            f"  {self.explained:.0%} of the data's variance about the prior's mean is explained",
        ]
        if self.verdict != ADEQUATE:
            lines.append(
                f"  with the noise {self.inflation:.3g} times as large the fit is as it should be; "
                f"its latent has p {_p(self.refit_latent_p_value)}, its residual "
                + self._structure()
            )
        if self.beyond is not None:
            lines.append(
                f"  the residual is {self.beyond:.2g} times what noise and event_scale explain"
            )
        lines.append(self._remedy())
        return "\n".join(lines)

    def _structure(self) -> str:
        if self.structure_p_value is None:
            return "cannot be told from noise in these data"
        is_noise = self.structure_p_value >= STRUCTURED
        return f"{'looks like noise' if is_noise else 'has structure'} (p " + (
            f"{_p(self.structure_p_value)})"
        )

    def _remedy(self) -> str:
        if self.verdict == NOISE:
            return (
                "The posterior of this model is overconfident. Observe with "
                "ngp.operators.MarginalNormal and the scale of "
                "ngp.diagnostics.estimate_event_scale, or make the noise scale a latent site."
            )
        if self.verdict == OUTSIDE:
            return (
                "Do not read this posterior as if it were of the truth: look at direction and "
                "residual, at the forward model and the units, and take a prior of such events."
            )
        close = "It does not say that the explanation is right, only that nothing contradicts it."
        if self.p_value > 1 - LEVEL:
            return "The noise is larger than what the data show. " + close
        return close


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
        A NumPyro model; decorated with `numpyro_genprior.latent` when it has priors without an
        exact density.
    key
        Random key: starts of the search, replicates.
    args, kwargs
        The model's arguments. Keywords of the names below do not reach it.
    event_scale
        What the prior misses of an event, a pixel: `estimate_event_scale`. None: the
        scale of a prior with decoder noise among the arguments, where the model leaves its noise
        out; otherwise nothing is assumed. Not for models that have it in their likelihood
        (`MarginalNormal`).
    num_starts
        Descents; more where the mode is hard to find.
    num_replicates
        Replicates of the data.

    Returns
    -------
    Adequacy
        ``.verdict`` and the numbers behind it; prints as a finding.

    Raises
    ------
    ValueError
        When an observed law has no variance, or correlated entries and is not normal; when no start
        has a finite energy; for latent sites that `numpyro_genprior.infer.Posterior` refuses.

    Notes
    -----
    The rule:

    1. *Adequate* when ``p_value ≥ 0.01`` and ``latent_p_value ≥ 0.001``.
    2. Otherwise the noise is inflated (the likelihood taken to a power below 1, which for normal
       noise is the same, and for counts is overdispersion) until χ² of the refit is as expected.
    3. *Out of range* when the latent of the refit is still atypical (p < 0.001); or the refit
       explains less than half of the data's variance and its residual is not plainly noise
       (`structure_p_value` below 0.01, or None); or the residual has structure (p < 0.001) and is
       more than three times what the noise and `event_scale` lead to expect.
    4. Otherwise *noise too small*.

    Means of the data are linearised at the mode, with ``M = ∂(mean/sd)/∂ξ = U diag(s) Vᵀ``. With
    normal noise and a linear generator ``(I + M Mᵀ)⁻¹ (ε + M ν)`` is exactly the law of the
    residual over data, and `p_value` is uniform.

    **Fails when** the search misses the mode: an event in range then looks out of range (raise
    `num_starts`). Data that are few, or sums over the whole event, cannot show what the prior does
    not have: an adequate fit then says little, and with no smooth axis in the data (random
    projections) strong noise and an event out of range look alike. Noise with tails of infinite
    variance (Student's t of two degrees or less) fits anything. The matrix M is formed: data
    times latents.

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
    found = _judge(posterior, fit, keys[2], num_replicates, 1.0)
    if _is_adequate(found):
        return _result(posterior, ADEQUATE, fit, found, fit, found, 1.0, None, None)
    refit, inflation, refitted = _inflate(posterior, ends, starts, fit, keys[1])
    again, lower = _descend(posterior, refitted)  # a path through weaker data finds better modes
    if lower < energy - 1.0:
        fit = examine(posterior, again[0], keys[1])
        found = _judge(posterior, fit, keys[2], num_replicates, 1.0)
        if _is_adequate(found):
            return _result(posterior, ADEQUATE, fit, found, fit, found, 1.0, None, None)
    second = _judge(posterior, refit, keys[2], num_replicates, inflation)
    beyond = None
    scale = _event_scale(posterior, event_scale)
    if scale is not None:
        expected = second["degrees"] + scale**2 * float(missed_by_events(posterior, refit, keys[3]))
        beyond = math.sqrt(float(refit.chi2) / expected)
    explained = 1 - float(refit.chi2 / refit.from_mean)
    white = second["structure"]
    outside = (
        second["latent_p"] < FAR
        or (explained < HALF and (white is None or white < LEVEL))
        or (beyond is not None and beyond > BEYOND and white is not None and white < STRUCTURED)
    )
    verdict = OUTSIDE if outside else NOISE
    return _result(posterior, verdict, fit, found, refit, second, inflation, white, beyond)


_draw = eqx.filter_jit(draw_starts)


def _descend(posterior: Posterior, starts: jax.Array) -> tuple[jax.Array, float]:
    """Ends of the starts, the best first, and its energy."""
    ends, best, energy = descend(posterior, starts)
    if not math.isfinite(float(energy)):
        raise ValueError(
            message(
                f"The energy is not finite at any of {len(starts)} starts",
                expected="a finite log density at draws from the prior",
                remedy="look for NaN in the data, and for data outside the support of their law",
            )
        )
    order = jnp.roll(jnp.arange(len(starts)), -best)
    return ends[order], float(energy)


def _inflate(
    posterior: Posterior, ends: jax.Array, starts: jax.Array, fit: Fit, key: jax.Array
) -> tuple[Fit, float, jax.Array]:
    """The fit under noise that makes χ² what it should be, its factor, and where all starts are."""
    current = jnp.concatenate([ends[:1], starts[1:]])
    refit, inflation = fit, max(math.sqrt(float(fit.chi2) / _degrees(fit, 1.0)), 1.0)
    for _ in range(ROUNDS):
        weight = jnp.asarray(inflation**-2, starts.dtype)
        weaker = eqx.tree_at(lambda p: p._arrays[0][0], posterior, weight)
        current, _ = _descend(weaker, current)
        refit = examine(posterior, current[0], key)
        new = max(math.sqrt(float(refit.chi2) / _degrees(refit, inflation)), 1.0)
        change, inflation = abs(new / inflation - 1), new
        if change < SETTLED:
            break
    return refit, inflation, current


def _degrees(fit: Fit, inflation: float) -> float:
    squares = np.asarray(fit.singular_values, float) ** 2 / inflation**2
    return max(float(fit.num_data) - float(np.sum(squares / (1 + squares))), 1e-6)


def _judge(
    posterior: Posterior, fit: Fit, key: jax.Array, num_replicates: int, inflation: float
) -> dict[str, Any]:
    """p-values of a fit under noise that is `inflation` times what the model says."""
    weight = jnp.asarray(inflation**-2, fit.xi.dtype)
    made = replicate(posterior, fit, key, num_replicates, weight)
    chi2 = float(fit.chi2) / inflation**2
    s = np.asarray(fit.singular_values, float) / inflation
    known = s > 1
    ratio = (1 + s[known] ** 2) / s[known] ** 2
    distance = float(np.sum(np.asarray(fit.along, float)[known] ** 2 * ratio))
    latent_p = float(chi2_law.sf(distance, int(known.sum()))) if known.any() else 1.0
    return {
        "degrees": _degrees(fit, inflation),
        "p": (1 + int(np.sum(np.asarray(made.chi2) >= chi2))) / (1 + num_replicates),
        "predictive": (1 + int(np.sum(np.asarray(made.predictive) >= 0))) / (1 + num_replicates),
        "distance": distance,
        "identified": int(known.sum()),
        "latent_p": latent_p,
        "structure": _structure(fit, np.asarray(made.structure)),
    }


def _structure(fit: Fit, made: np.ndarray) -> float | None:
    """The p-value of the residual's neighbours and mean against replicates, by normal laws."""
    if not bool(np.any(np.asarray(fit.smooth))):
        return None
    counts = np.append(np.asarray(fit.smooth), True)
    spread = np.maximum(made.std(0), 1e-12)
    z = np.abs(np.asarray(fit.structure) - made.mean(0)) / spread
    p = 2 * np.asarray(ndtr(-z[counts]))
    return float(min(1.0, counts.sum() * p.min()))


def _is_adequate(found: dict[str, Any]) -> bool:
    return found["p"] >= LEVEL and found["latent_p"] >= FAR


def _event_scale(posterior: Posterior, given: ArrayLike | None) -> float | None:
    """What events miss: as given, or the scale of a VAE whose noise the model leaves out."""
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


@eqx.filter_jit
def _values(posterior: Posterior, xi: jax.Array) -> dict[str, jax.Array]:
    return posterior.values(xi)


def _result(
    posterior: Posterior,
    verdict: str,
    fit: Fit,
    found: dict[str, Any],
    refit: Fit,
    second: dict[str, Any],
    inflation: float,
    white: float | None,
    beyond: float | None,
) -> Adequacy:
    residual = fit.residual
    flat = jnp.concatenate([jnp.ravel(r) for r in residual.values()])
    reached = fit.singular_values > 1e-5 * jnp.max(fit.singular_values)
    basis = jnp.where(reached[None], fit.directions, 0)
    rest = flat - basis @ (flat @ basis)
    rest = rest / jnp.maximum(jnp.linalg.norm(rest), jnp.finfo(rest.dtype).tiny)
    direction, start = {}, 0
    for name, array in residual.items():
        direction[name] = rest[start : start + array.size].reshape(array.shape)
        start += array.size
    single = len(residual) == 1
    return Adequacy(
        verdict=verdict,
        chi2=float(fit.chi2),
        degrees=found["degrees"],
        p_value=found["p"],
        predictive_p_value=found["predictive"],
        latent_distance=found["distance"],
        num_identified=found["identified"],
        latent_p_value=found["latent_p"],
        explained=1 - float(refit.chi2 / refit.from_mean),
        inflation=inflation,
        refit_latent_p_value=second["latent_p"],
        structure_p_value=white,
        beyond=beyond,
        residual=next(iter(residual.values())) if single else residual,
        direction=next(iter(direction.values())) if single else direction,
        values=_values(posterior, fit.xi),
    )


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


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"
