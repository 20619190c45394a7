"""Pearson residuals: data minus mean, in units of the noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.operators import MarginalNormal
from numpyro_genprior.priors.vectorise import vectorise
from numpyro_genprior.sites.wrappers import WRAPPERS, unwrap

NO_VARIANCE = (dist.Cauchy, dist.HalfCauchy)
FULL_COVARIANCE = (dist.MultivariateNormal, dist.LowRankMultivariateNormal)


def pearson(distribution: Distribution, difference: jax.Array, name: str) -> jax.Array:
    """A difference of data in units of a distribution's noise; masked entries are 0.

    Divided by the standard deviation. If entries are correlated, multiplied by ``L⁻¹`` with the
    Cholesky factor L of the covariance (the symmetric root for `MarginalNormal`).

    Parameters
    ----------
    distribution
        The distribution of the data, with its wrappers.
    difference
        Array of the data's shape.
    name
        Name of the site, for messages.

    Raises
    ------
    ValueError
        If the distribution has no variance, or correlated entries that are not normal.
    """
    core = unwrap(distribution)
    with jax.numpy_rank_promotion("allow"):
        if isinstance(core, MarginalNormal):
            scaled = core.whiten(difference)
        elif isinstance(core, FULL_COVARIANCE):
            chol = jnp.asarray(core.scale_tril)
            solve = lambda chol, r: solve_triangular(chol, r, lower=True)  # noqa: E731
            scaled = vectorise(solve, [(chol, 2), (difference, 1)], [1])
        elif isinstance(core, NO_VARIANCE):
            raise ValueError(_unsupported(name, core, "has no variance"))
        elif core.event_shape:
            raise ValueError(_unsupported(name, core, "has correlated entries"))
        else:
            variance = moment(distribution, "variance", name)
            scaled = jnp.where(variance > 0, difference / jnp.sqrt(variance), 0.0)
        mask = _mask(distribution)
        return scaled if mask is None else jnp.where(mask, scaled, 0.0)


def unmasked(distribution: Distribution, shape: tuple[int, ...]) -> jax.Array:
    """Which entries of data of this shape are not masked."""
    mask = _mask(distribution)
    return jnp.ones(shape, bool) if mask is None else jnp.broadcast_to(mask, shape)


def moment(distribution: Distribution, which: str, name: str) -> jax.Array:
    """``"mean"`` or ``"variance"`` of a distribution.

    Raises
    ------
    ValueError
        If it has none.
    """
    try:
        with jax.numpy_rank_promotion("allow"):
            return jnp.asarray(getattr(distribution, which))
    except NotImplementedError as error:
        raise ValueError(_unsupported(name, unwrap(distribution), f"has no {which}")) from error


def _mask(distribution: Distribution) -> jax.Array | None:
    """The mask of a distribution and its wrappers, which broadcasts with data from the right."""
    inner = _mask(distribution.base_dist) if isinstance(distribution, WRAPPERS) else None
    if not isinstance(distribution, dist.MaskedDistribution):
        return inner
    mask = jnp.asarray(distribution._mask)
    mask = jnp.reshape(mask, mask.shape + (1,) * distribution.event_dim)
    return mask if inner is None else mask & inner


def _unsupported(name: str, core: Distribution, what: str) -> str:
    return message(
        f"The distribution of site {name!r}, {type(core).__name__}, {what}",
        expected="independent entries with a mean and a variance, or a normal distribution",
        remedy="check this model with posterior predictive draws instead "
        "(numpyro.infer.Predictive)",
    )
