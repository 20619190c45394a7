"""What is counted along a run: rejections, journeys between the ends, evidence, mishaps."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

BATCHES = 32  # for the error of the evidence; each is doubled in length when all are full


class Tally(NamedTuple):
    """Sums over iterations since the last reset.

    Attributes
    ----------
    count
        Number of iterations.
    rejection
        Sum of the probabilities to reject a swap, of shape ``(n - 1,)``.
    acceptance
        Sum of the acceptance probabilities of local moves, of shape ``(n - 1,)``: the hot end
        has none.
    restarts, round_trips
        Journeys from the prior to the posterior, and on back to the prior.
    log_sums
        Log of the sum of stepping-stone weights, by batch and pair, of shape ``(batches, n - 1)``.
    batch_size
        Iterations in a batch.
    nonfinite
        Number of evaluations (ends of trajectories and prior draws) that gave no number.
    """

    count: jax.Array
    rejection: jax.Array
    acceptance: jax.Array
    restarts: jax.Array
    round_trips: jax.Array
    log_sums: jax.Array
    batch_size: jax.Array
    nonfinite: jax.Array


def empty(num_replicas: int, dtype: jnp.dtype) -> Tally:
    pairs, zero = jnp.zeros(num_replicas - 1, dtype), jnp.zeros((), int)
    log_sums = jnp.full((BATCHES, num_replicas - 1), -jnp.inf, dtype)
    return Tally(zero, pairs, pairs, zero, zero, log_sums, jnp.ones((), int), zero)


def add_stones(tally: Tally, log_weights: jax.Array) -> Tally:
    """Add one iteration's stepping-stone weights, of shape ``(n - 1,)``."""
    full = tally.count == BATCHES * tally.batch_size
    pairs = tally.log_sums.reshape(BATCHES // 2, 2, -1)
    halved = jnp.logaddexp(pairs[:, 0], pairs[:, 1])
    halved = jnp.concatenate([halved, jnp.full_like(halved, -jnp.inf)])
    log_sums = jnp.where(full, halved, tally.log_sums)
    batch_size = jnp.where(full, 2 * tally.batch_size, tally.batch_size)
    batch = tally.count // batch_size
    log_sums = log_sums.at[batch].set(jnp.logaddexp(log_sums[batch], log_weights))
    return tally._replace(log_sums=log_sums, batch_size=batch_size, count=tally.count + 1)


def log_evidence(tally: Tally) -> tuple[jax.Array, jax.Array]:
    """Stepping-stone log evidence of one ensemble, and its standard error.

    ``log Z = Σ log E[L^(Δβ)]``, each expectation under the hotter of two neighbours (Xie, Lewis,
    Fan, Kuo & Chen 2011). The error is by means over batches of the whole sum, to first order, so
    that it knows of correlation in time and between temperatures.
    """
    full = tally.count // tally.batch_size
    used = (jnp.arange(BATCHES) < full)[:, None]
    total = jax.nn.logsumexp(tally.log_sums, axis=0) - jnp.log(tally.count)
    means = jnp.exp(tally.log_sums - jnp.log(tally.batch_size) - total[None])
    influence = jnp.sum(jnp.where(used, means - 1, 0), axis=1)
    spread = jnp.sum(jnp.where(used[:, 0], influence - jnp.sum(influence) / full, 0) ** 2)
    error = jnp.sqrt(spread / jnp.maximum(full - 1, 1) / full)
    return jnp.sum(total), jnp.where(full > 1, error, jnp.inf)
