"""The annealing schedule β: an initial one, and the one that equalises the rejections of swaps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

MIN_REJECTION = 1e-3  # smaller rejections are raised to it, so that no two β coincide


def initial_schedule(log_likelihoods: jax.Array, num_replicas: int) -> jax.Array:
    """β = 0, then a geometric sequence to 1.

    The smallest positive β is the one at which the tempered likelihood begins to distinguish
    prior draws, the inverse of the median absolute deviation of `log_likelihoods`.

    Parameters
    ----------
    log_likelihoods
        Log likelihoods of some prior draws.
    num_replicas
        Number of β, at least 2.
    """
    if num_replicas == 2:
        return jnp.array([0.0, 1.0], log_likelihoods.dtype)
    finite = jnp.where(jnp.isfinite(log_likelihoods), log_likelihoods, jnp.nan)
    deviation = jnp.nanmedian(jnp.abs(finite - jnp.nanmedian(finite)))
    uniform = 1 / (num_replicas - 1)
    smallest = jnp.where(deviation > 0, 1 / jnp.maximum(deviation, 1e-30), uniform)
    log_smallest = jnp.log(jnp.clip(smallest, 1e-12, uniform))
    positive = jnp.exp(log_smallest * jnp.linspace(1, 0, num_replicas - 1))
    return jnp.concatenate([jnp.zeros(1), positive]).astype(log_likelihoods.dtype)


def equalise(betas: jax.Array, rejections: jax.Array) -> jax.Array:
    """The schedule at which the rejections of all swaps would be equal.

    The communication barrier Λ(β) is the sum of the rejections up to β (Syed, Bouchard-Côté,
    Deligiannidis & Doucet 2022, section 5); the new β solve ``Λ(βₖ) = k / (n - 1) · Λ(1)``.
    Between the current β, Λ is interpolated linearly in ``log(β + β₁)``.

    Parameters
    ----------
    betas
        The current schedule, of shape ``(n,)``, from 0 to 1.
    rejections
        Mean rejection of swaps between neighbours, of shape ``(n - 1,)``.
    """
    n = len(betas)
    rejections = jnp.maximum(rejections, MIN_REJECTION)
    barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(rejections)])
    targets = jnp.linspace(0, 1, n) * barrier[-1]
    log_betas = jnp.interp(targets, barrier, log_scale(betas, betas[1]))
    new = betas[1] * jnp.expm1(log_betas)
    return new.at[0].set(0).at[-1].set(1).astype(betas.dtype)


def log_scale(betas: jax.Array, unit: jax.Array) -> jax.Array:
    """``log(1 + β / unit)``: linear in β below `unit` and logarithmic above."""
    return jnp.log1p(betas / unit)


def interpolate(old: jax.Array, new: jax.Array, values: jax.Array) -> jax.Array:
    """Values ``(n, ...)`` at the schedule `old`, interpolated to the schedule `new`."""
    unit = old[1]
    index = jnp.arange(len(old), dtype=old.dtype)
    position = jnp.interp(log_scale(new, unit), log_scale(old, unit), index)
    lower = jnp.clip(jnp.floor(position).astype(int), 0, len(old) - 2)
    weight = (position - lower).reshape((-1,) + (1,) * (values.ndim - 1))
    return (1 - weight) * values[lower] + weight * values[lower + 1]
