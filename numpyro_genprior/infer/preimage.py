"""A latent of an event, for priors whose map can be undone."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from numpyro_genprior.errors import message
from numpyro_genprior.networks.frozen import promote
from numpyro_genprior.priors import FlowPrior, GaussianFieldPrior, GaussianPrior, Prior


def preimage(prior: Any, x: jax.Array) -> jax.Array:
    """A latent z with ``prior.decode(z) == x``, for events of shape ``(..., *event_shape)``.

    Where several latents give the event (`GaussianPrior`, whose latent is larger than its event),
    the one of least norm.

    Raises
    ------
    ValueError
        When the prior's map cannot be undone.
    """
    inverse = functools.partial(_preimage, prior)
    return prior._over_batch(inverse, [(x, prior.event_dim)], [prior.latent.event_dim])


@functools.singledispatch
def _preimage(prior: Prior, x: jax.Array, condition: Any) -> jax.Array:
    raise ValueError(
        message(
            f"The latent of an event of {type(prior).__name__} is not known",
            expected="a value of the latent, or a FlowPrior or a Gaussian",
            remedy="decorate the model with @ngp.latent(explicit=True) and give x_latent",
        )
    )


@_preimage.register
def _(prior: FlowPrior, x: jax.Array, condition: Any) -> jax.Array:
    flow, dtype = prior._flow.promoted(x), prior._flow.dtype(x)
    return prior._adapter.inverse(flow, promote(x, dtype), condition)[0]


@_preimage.register
def _(prior: GaussianFieldPrior, x: jax.Array, condition: Any) -> jax.Array:
    return prior._filter(x - prior.loc, jax.lax.rsqrt(prior.spectrum))


@_preimage.register
def _(prior: GaussianPrior, x: jax.Array, condition: Any) -> jax.Array:
    """Bᵀ (B Bᵀ)⁻¹ (x - loc) for x = loc + B z, by Woodbury."""
    rank = prior.factor.shape[-1]
    factor, diagonal = prior.factor.reshape(-1, rank), prior.diagonal.reshape(-1)
    weighted = (x - prior.loc).reshape(-1) / diagonal
    capacitance = jnp.eye(rank, dtype=factor.dtype) + factor.T @ (factor / diagonal[:, None])
    chol = jnp.linalg.cholesky(capacitance)
    first = cho_solve((chol, True), factor.T @ weighted)  # Fᵀ Σ⁻¹ r
    solved = weighted - (factor @ first) / diagonal  # Σ⁻¹ r
    return jnp.concatenate([first, jnp.sqrt(diagonal) * solved])
