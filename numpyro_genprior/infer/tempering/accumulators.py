"""Running sums of a tempering run: rejections, round trips, stepping-stone weights."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

NUM_BATCHES = 32  # of batch means, for the error of the evidence; even


class Accumulators(NamedTuple):
    """Sums over iterations since the last reset, for n replicas.

    Attributes
    ----------
    count
        Number of iterations.
    rejection
        Sum of the rejection probabilities of swaps, of shape ``(n - 1,)``.
    acceptance
        Sum of the acceptance probabilities of local moves, of shape ``(n - 1,)``: the replica at
        β = 0 is drawn from the prior and has none.
    restarts, round_trips
        Number of times that a replica went from the prior to the posterior, and from there back
        to the prior.
    log_sums
        Log of the sum of stepping-stone weights, by batch and pair, of shape
        ``(NUM_BATCHES, n - 1)``.
    batch_size
        Number of iterations in a batch. It doubles once all batches are full.
    nonfinite
        Number of log likelihoods, at ends of trajectories and at prior draws, that were NaN or +∞.
    """

    count: jax.Array
    rejection: jax.Array
    acceptance: jax.Array
    restarts: jax.Array
    round_trips: jax.Array
    log_sums: jax.Array
    batch_size: jax.Array
    nonfinite: jax.Array


def empty_accumulators(num_replicas: int, dtype: jnp.dtype) -> Accumulators:
    """The sums before the first iteration."""
    pairs, zero = jnp.zeros(num_replicas - 1, dtype), jnp.zeros((), int)
    log_sums = jnp.full((NUM_BATCHES, num_replicas - 1), -jnp.inf, dtype)
    return Accumulators(
        count=zero,
        rejection=pairs,
        acceptance=pairs,
        restarts=zero,
        round_trips=zero,
        log_sums=log_sums,
        batch_size=jnp.ones((), int),
        nonfinite=zero,
    )


def add_stepping_stones(sums: Accumulators, log_weights: jax.Array) -> Accumulators:
    """Add the stepping-stone weights ``Δβ log L`` of one iteration, of shape ``(n - 1,)``."""
    # Once all batches are full, merge neighbours into batches of twice the size.
    full = sums.count == NUM_BATCHES * sums.batch_size
    pairs = sums.log_sums.reshape(NUM_BATCHES // 2, 2, -1)
    merged = jnp.logaddexp(pairs[:, 0], pairs[:, 1])
    merged = jnp.concatenate([merged, jnp.full_like(merged, -jnp.inf)])
    log_sums = jnp.where(full, merged, sums.log_sums)
    batch_size = jnp.where(full, 2 * sums.batch_size, sums.batch_size)
    batch = sums.count // batch_size
    log_sums = log_sums.at[batch].set(jnp.logaddexp(log_sums[batch], log_weights))
    return sums._replace(log_sums=log_sums, batch_size=batch_size, count=sums.count + 1)


def log_evidence(sums: Accumulators) -> tuple[jax.Array, jax.Array]:
    """Stepping-stone log evidence of one ensemble, and its standard error.

    ``log Z = Σ log E[L^(Δβ)]``, where each expectation is under the lower of two neighbouring β
    (Xie, Lewis, Fan, Kuo & Chen 2011). The error comes from batch means of the whole sum,
    linearised, so that it accounts for correlation in time and between temperatures.
    """
    num_full = sums.count // sums.batch_size
    is_full = (jnp.arange(NUM_BATCHES) < num_full)[:, None]
    log_ratios = jax.nn.logsumexp(sums.log_sums, axis=0) - jnp.log(sums.count)
    relative_means = jnp.exp(sums.log_sums - jnp.log(sums.batch_size) - log_ratios[None])
    influence = jnp.sum(jnp.where(is_full, relative_means - 1, 0), axis=1)
    deviation = jnp.where(is_full[:, 0], influence - jnp.sum(influence) / num_full, 0)
    error = jnp.sqrt(jnp.sum(deviation**2) / jnp.maximum(num_full - 1, 1) / num_full)
    return jnp.sum(log_ratios), jnp.where(num_full > 1, error, jnp.inf)
