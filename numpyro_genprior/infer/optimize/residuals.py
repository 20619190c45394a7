"""Residuals whose half squared norm is the energy of a posterior, for least-squares solvers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.infer.fisher.constant_parameters import require_constant
from numpyro_genprior.infer.fisher.whitening import append_dimensions
from numpyro_genprior.infer.posterior import Posterior
from numpyro_genprior.operators import MarginalNormal
from numpyro_genprior.priors.low_rank import inverse_root

REMEDY = (
    "pass a minimiser, which is given the energy, e.g. ngp.infer.LevenbergMarquardt(), "
    "ngp.infer.LBFGS() or optimistix.BFGS(rtol=1e-6, atol=1e-6)"
)


def residuals(xi: Float[Array, " latent"], posterior: Posterior) -> Float[Array, " residual"]:
    """Residuals r with ``|r|²/2 = energy + constant``.

    The prior of standard normal coordinates contributes ``r = ξ``. An observed Gaussian with a
    fixed covariance Σ contributes ``r = Σ^(-1/2) (y - loc(ξ))``, for a normal ``(y - loc) / scale``
    (`Normal`, `MultivariateNormal`, `LowRankMultivariateNormal`, `MarginalNormal`, and each of them
    under a fixed transform, e.g. `LogNormal`). A mask sets the residuals of the elements that it
    hides to 0, and a weight w of a site (``numpyro.handlers.scale``) multiplies them by √w.

    Parameters
    ----------
    xi
        Coordinates.
    posterior
        A `Posterior`.

    Raises
    ------
    ValueError
        If a coordinate is not standard normal, or an observed distribution is not one of these;
        during differentiation, if a covariance, transform or weight depends on latent variables.
    """
    posterior.require_standard_normal("A least-squares solver")
    trace = posterior.trace(xi)
    parts = [xi]
    with jax.numpy_rank_promotion("allow"):  # NumPyro's distributions rely on it
        for name in posterior.layout.observed:
            site = trace[name]
            rows = _distribution_residuals(site["fn"], jnp.asarray(site["value"]), name)
            if site["scale"] is not None:
                weight = jnp.sqrt(jnp.asarray(site["scale"], rows.dtype))
                rows = require_constant(
                    rows, weight, _refusal(name, "has a weight that depends on latents")
                )
                rows = rows * append_dimensions(weight, rows)
            parts.append(jnp.ravel(rows))
    return jnp.concatenate(parts)


def check_residuals(posterior: Posterior) -> None:
    """Raise, without computing anything, if `posterior` has no residuals."""
    xi = jax.ShapeDtypeStruct((posterior.size,), jnp.result_type(float))
    jax.eval_shape(lambda xi: jax.linearize(lambda xi: residuals(xi, posterior), xi)[0], xi)


def _distribution_residuals(d: Distribution, value: jax.Array, name: str) -> jax.Array:
    """Of the shape of the batch, with the residuals of one element in further dimensions."""
    if isinstance(d, (dist.Independent, dist.ExpandedDistribution)):
        return _distribution_residuals(d.base_dist, value, name)
    if isinstance(d, dist.MaskedDistribution):
        rows = _distribution_residuals(d.base_dist, value, name)
        mask = jnp.broadcast_to(jnp.asarray(d._mask), d.batch_shape)
        return jnp.where(append_dimensions(mask, rows), rows, 0)
    if isinstance(d, dist.TransformedDistribution):
        value = require_constant(
            value, d.transforms, _refusal(name, "has a transform that depends on latents")
        )
        for transform in reversed(d.transforms):
            value = jnp.asarray(transform.inv(value))
        return _distribution_residuals(d.base_dist, value, name)
    refusal = _refusal(name, f"is {type(d).__name__} with a scale that depends on latents")
    return _gaussian_residuals(d, value, name, refusal)


@functools.singledispatch
def _gaussian_residuals(d: Distribution, value: jax.Array, name: str, refusal: str) -> jax.Array:
    raise ValueError(_refusal(name, f"is {type(d).__name__}, whose density is not Gaussian"))


@_gaussian_residuals.register
def _(d: dist.Normal, value: jax.Array, name: str, refusal: str) -> jax.Array:
    loc, scale = jnp.asarray(d.loc), jnp.asarray(d.scale)
    return require_constant((value - loc) / scale, scale, refusal)


@_gaussian_residuals.register
def _(d: dist.MultivariateNormal, value: jax.Array, name: str, refusal: str) -> jax.Array:
    tril = jnp.asarray(d.scale_tril)
    difference = require_constant(value - jnp.asarray(d.loc), tril, refusal)
    tril = jnp.broadcast_to(tril, (*difference.shape, difference.shape[-1]))
    return solve_triangular(tril, difference[..., None], lower=True)[..., 0]


@_gaussian_residuals.register
def _(d: dist.LowRankMultivariateNormal, value: jax.Array, name: str, refusal: str) -> jax.Array:
    factor, diagonal = jnp.asarray(d.cov_factor), jnp.asarray(d.cov_diag)
    difference = require_constant(value - jnp.asarray(d.loc), (factor, diagonal), refusal)
    factor = jnp.broadcast_to(factor, (*difference.shape, factor.shape[-1]))
    diagonal = jnp.broadcast_to(diagonal, difference.shape)
    return jnp.concatenate(inverse_root(factor, diagonal, difference), -1)


@_gaussian_residuals.register
def _(d: MarginalNormal, value: jax.Array, name: str, refusal: str) -> jax.Array:
    difference = require_constant(
        value - d.operator(d.event_loc), (d.operator, d.event_scale, d.noise_scale), refusal
    )
    return d.whiten(difference)


def _refusal(name: str, why: str) -> str:
    return message(
        "The energy is not a sum of squares, so that there are no residuals",
        expected="Gaussian observations of fixed covariance",
        got=f"site {name!r}, which {why}",
        remedy=REMEDY,
    )
