"""The annealing schedule: where rejections of swaps are equal, from the rejections of another."""

from __future__ import annotations

import jax
import jax.numpy as jnp

LEAST = 1e-3  # a rejection below this is taken for it, so that no two temperatures coincide


def first_schedule(log_likelihoods: jax.Array, num_replicas: int) -> jax.Array:
    """0, then geometrically to 1, from where the likelihood begins to tell prior draws apart.

    Parameters
    ----------
    log_likelihoods
        Those of some prior draws.
    num_replicas
        Number of temperatures, at least 2.
    """
    if num_replicas == 2:
        return jnp.array([0.0, 1.0], log_likelihoods.dtype)
    finite = jnp.where(jnp.isfinite(log_likelihoods), log_likelihoods, jnp.nan)
    spread = jnp.nanmedian(jnp.abs(finite - jnp.nanmedian(finite)))
    coldest = 1 / (num_replicas - 1)
    least = jnp.where(spread > 0, 1 / jnp.maximum(spread, 1e-30), coldest)
    start = jnp.log(jnp.clip(least, 1e-12, coldest))
    inner = jnp.exp(start * jnp.linspace(1, 0, num_replicas - 1))
    return jnp.concatenate([jnp.zeros(1), inner]).astype(log_likelihoods.dtype)


def equalise(betas: jax.Array, rejections: jax.Array) -> jax.Array:
    """The schedule at which all rejections would be equal.

    The communication barrier Λ(β) is the sum of the rejections up to β (Syed, Bouchard-Côté,
    Deligiannidis & Doucet 2022, section 5); between the temperatures of the present schedule it
    is interpolated linearly in ``log(β + β₁)``.

    Parameters
    ----------
    betas
        Of shape ``(n,)``, from 0 to 1.
    rejections
        Mean rejection of a swap between neighbours, of shape ``(n - 1,)``.
    """
    n = len(betas)
    barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.maximum(rejections, LEAST))])
    place = stretch(betas, betas[1])
    wanted = jnp.interp(jnp.linspace(0, 1, n) * barrier[-1], barrier, place)
    new = betas[1] * jnp.expm1(wanted)
    return new.at[0].set(0).at[-1].set(1).astype(betas.dtype)


def stretch(betas: jax.Array, unit: jax.Array) -> jax.Array:
    """Inverse temperatures on a scale that is linear below `unit` and logarithmic above."""
    return jnp.log1p(betas / unit)


def carry_over(old: jax.Array, new: jax.Array, values: jax.Array) -> jax.Array:
    """Values ``(n, ...)`` at the temperatures `old`, interpolated to `new`."""
    unit = old[1]
    place = jnp.arange(len(old), dtype=old.dtype)
    at = jnp.interp(stretch(new, unit), stretch(old, unit), place)
    low = jnp.clip(jnp.floor(at).astype(int), 0, len(old) - 2)
    weight = (at - low).reshape((-1,) + (1,) * (values.ndim - 1))
    return (1 - weight) * values[low] + weight * values[low + 1]
