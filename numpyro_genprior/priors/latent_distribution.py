"""The distribution of a prior's latent, from what a user passes as ``latent=``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.priors.standard_normal import StandardNormal


def as_latent(
    latent: int | tuple[int, ...] | Distribution, *, allow_batch: bool = False
) -> Distribution:
    """An integer, a shape or a distribution as the distribution of the latent.

    `allow_batch`: whether a distribution may have batch dimensions, as a prior with a batch of
    conditions has.

    Raises
    ------
    TypeError
        If `latent` is none of these.
    ValueError
        If the distribution is discrete, or has batch dimensions that are not allowed.
    """
    if isinstance(latent, Distribution):
        return _continuous_event(latent, allow_batch)
    shape = (latent,) if isinstance(latent, (int, np.integer)) else latent
    is_shape = isinstance(shape, tuple) and all(
        isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in shape
    )
    if not is_shape:
        raise TypeError(
            message(
                "The latent is not a distribution",
                expected="a positive integer, a shape, or a NumPyro distribution",
                got=repr(latent),
                remedy="pass the size of a standard normal latent, e.g. latent=20",
            )
        )
    return StandardNormal(tuple(int(n) for n in shape))


def _continuous_event(latent: Distribution, allow_batch: bool) -> Distribution:
    if latent.batch_shape and not allow_batch:
        raise ValueError(
            message(
                "The latent distribution has batch dimensions",
                expected="batch_shape ()",
                got=latent.batch_shape,
                remedy=f"make them event dimensions: latent.to_event({len(latent.batch_shape)})",
            )
        )
    if latent.is_discrete:
        raise ValueError(
            message(
                "The latent distribution is discrete",
                expected="a continuous distribution",
                got=type(latent).__name__,
                remedy="use one prior for each value and mix them, or condition= for labels",
            )
        )
    return jax.tree.map(_as_float, latent)


def _as_float(leaf: ArrayLike) -> ArrayLike:
    """Parameters given as integers (``StudentT(3)``) become floats, so that they have gradients."""
    if isinstance(leaf, bool) or isinstance(leaf, Tracer):
        return leaf
    return jnp.asarray(leaf, float) if jnp.issubdtype(jnp.result_type(leaf), jnp.integer) else leaf
