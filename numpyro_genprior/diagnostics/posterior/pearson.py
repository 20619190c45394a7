"""Pearson residuals of observed laws: data minus mean, in units of the noise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular

from numpyro_genprior.errors import message
from numpyro_genprior.operators import MarginalNormal
from numpyro_genprior.priors.vectorise import vectorise
from numpyro_genprior.sites.wrappers import WRAPPERS, unwrap

HEAVY = (dist.Cauchy, dist.HalfCauchy)
FULL = (dist.MultivariateNormal, dist.LowRankMultivariateNormal)


def pearson(law: Any, difference: jax.Array, name: str) -> jax.Array:
    """A difference of data in units of a law's noise, with masked entries 0.

    Divided by the standard deviation, or by a root of the covariance where entries are correlated:
    then ``L⁻¹`` of Cholesky's factor (the symmetric root for `MarginalNormal`).

    Parameters
    ----------
    law
        The law of the data, wrappers included.
    difference
        Of the shape of the data.
    name
        Of the site, for messages.

    Raises
    ------
    ValueError
        When the law has no variance, or correlated entries that are not normal.
    """
    core = unwrap(law)
    with jax.numpy_rank_promotion("allow"):
        if isinstance(core, MarginalNormal):
            scaled = core.whiten(difference)
        elif isinstance(core, FULL):
            chol = jnp.asarray(core.scale_tril)
            solve = lambda chol, r: solve_triangular(chol, r, lower=True)  # noqa: E731
            scaled = vectorise(solve, [(chol, 2), (difference, 1)], [1])
        elif isinstance(core, HEAVY):
            raise ValueError(_unknown(name, core, "has no variance"))
        elif core.event_shape:
            raise ValueError(_unknown(name, core, "has correlated entries"))
        else:
            variance = moment(law, "variance", name)
            scaled = jnp.where(variance > 0, difference / jnp.sqrt(variance), 0.0)
        mask = _mask(law)
        return scaled if mask is None else jnp.where(mask, scaled, 0.0)


def seen(law: Any, shape: tuple[int, ...]) -> jax.Array:
    """Which entries of data of a shape are not masked."""
    mask = _mask(law)
    return jnp.ones(shape, bool) if mask is None else jnp.broadcast_to(mask, shape)


def moment(law: Any, which: str, name: str) -> jax.Array:
    """``"mean"`` or ``"variance"`` of a law.

    Raises
    ------
    ValueError
        When it has none.
    """
    try:
        with jax.numpy_rank_promotion("allow"):
            return jnp.asarray(getattr(law, which))
    except NotImplementedError as error:
        raise ValueError(_unknown(name, unwrap(law), f"has no {which}")) from error


def _mask(law: Any) -> jax.Array | None:
    """The mask of a law with all its wrappers, to broadcast with data from the right."""
    inner = _mask(law.base_dist) if isinstance(law, WRAPPERS) else None
    if not isinstance(law, dist.MaskedDistribution):
        return inner
    own = jnp.asarray(law._mask)
    own = jnp.reshape(own, own.shape + (1,) * law.event_dim)
    return own if inner is None else own & inner


def _unknown(name: str, core: Any, what: str) -> str:
    return message(
        f"The law of site {name!r}, {type(core).__name__}, {what}",
        expected="independent entries with a mean and a variance, or a normal law",
        remedy="check this model with posterior predictive draws instead "
        "(numpyro.infer.Predictive)",
    )
