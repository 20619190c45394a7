"""What warm-up learns: step sizes, metrics and the schedule, in rounds of doubling length."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_genprior.infer.tempering.hmc import Metric, ReplicaState
from numpyro_genprior.infer.tempering.schedule import carry_over, equalise

FIRST = 8  # shortest round
LAST = 100  # most steps after the last round, in which only step sizes adapt
REACH = 2.0  # longest trajectory in units of the metric's time; a quarter turn is π/2
PRIOR_WEIGHT = 5  # draws from the prior that the identity is worth in a metric


class Adaptation(NamedTuple):
    """Of the n - 1 replicas that move locally.

    Attributes
    ----------
    log_step, mean_log_step
        Log step sizes, and their mean over the present round with more weight on later ones.
    metric
        Time scales ``(n - 1, d)`` and directions ``(n - 1, d, d)``, or None when diagonal.
    score_squares
        Sums over the round of squares ``(n - 1, d)``, or outer squares ``(n - 1, d, d)``, of the
        score of the tempered posterior. Its mean is the mean curvature.
    """

    log_step: jax.Array
    mean_log_step: jax.Array
    metric: Metric
    score_squares: jax.Array


def first_adaptation(
    betas: jax.Array, replicas: ReplicaState, *, num_steps: int, dense: bool
) -> Adaptation:
    """A step size from the slope of the likelihood at the first draws, and a flat metric."""
    n, d = replicas.xi.shape
    slope = jnp.sqrt(jnp.mean(replicas.gradient**2, axis=1))
    slope = jnp.nanmedian(jnp.where(jnp.isfinite(slope), slope, jnp.nan))
    curvature = 1 + betas[1:] * jnp.where(jnp.isfinite(slope), slope, 1)
    log_step = jnp.minimum(-0.5 * jnp.log(curvature), longest(num_steps))
    scale = jnp.ones((n - 1, d), betas.dtype)
    basis = jnp.broadcast_to(jnp.eye(d, dtype=betas.dtype), (n - 1, d, d)) if dense else None
    squares = jnp.zeros((n - 1, d, d) if dense else (n - 1, d), betas.dtype)
    return Adaptation(log_step, log_step, Metric(scale, basis), squares)


def longest(num_steps: int) -> float:
    """Largest log step size."""
    return math.log(REACH / num_steps)


def learn(
    adaptation: Adaptation,
    betas: jax.Array,
    replicas: ReplicaState,
    accept_prob: jax.Array,
    count: jax.Array,
    *,
    target: float,
    num_steps: int,
) -> Adaptation:
    """Step sizes by Robbins and Monro towards a mean acceptance; scores for the next metric.

    `count` is the number of steps in this round so far, this one not included.
    """
    gain = (count + 3.0) ** -0.6
    log_step = adaptation.log_step + gain * (accept_prob - target)
    log_step = jnp.minimum(log_step, longest(num_steps))
    weight = 2 / (count + 2.0)
    mean = adaptation.mean_log_step + weight * (log_step - adaptation.mean_log_step)
    score = betas[1:, None] * replicas.gradient[1:] - replicas.xi[1:]
    score = jnp.where(jnp.all(jnp.isfinite(score), axis=1, keepdims=True), score, 0)
    if adaptation.metric.basis is None:
        squares = score**2
    else:
        squares = score[:, :, None] * score[:, None, :]
    return adaptation._replace(
        log_step=log_step,
        mean_log_step=mean,
        score_squares=adaptation.score_squares + squares,
    )


def is_round_end(i: jax.Array, num_warmup: jax.Array) -> jax.Array:
    """Whether a round ends with step `i`."""
    last = num_warmup - jnp.minimum(num_warmup // 4, LAST)
    ends = last >> jnp.arange(20)
    return jnp.any(i == ends) & (i >= FIRST)


def next_round(
    adaptation: Adaptation, betas: jax.Array, rejections: jax.Array, count: jax.Array
) -> tuple[Adaptation, jax.Array]:
    """The schedule and the metric that the round has taught.

    Parameters
    ----------
    adaptation, betas
        At the end of the round.
    rejections
        Mean rejections of swaps in the round.
    count
        Its number of steps.
    """
    new = equalise(betas, rejections)
    squares = adaptation.score_squares
    dense = adaptation.metric.basis is not None
    d = squares.shape[-1]
    flat = jnp.eye(d, dtype=squares.dtype) if dense else jnp.ones(d, squares.dtype)
    curvature = (squares + PRIOR_WEIGHT * flat[None]) / (count + PRIOR_WEIGHT)
    metric = metric_of(_at(betas, new, curvature, flat), dense=dense)
    # The stiffest direction decides about the step size: keep what has been learnt there.
    stiff = jnp.min(adaptation.metric.scale, axis=1)
    log_step = _at(betas, new, adaptation.mean_log_step + jnp.log(stiff), jnp.zeros(()))
    log_step = log_step - jnp.log(jnp.min(metric.scale, axis=1))
    return Adaptation(log_step, log_step, metric, jnp.zeros_like(squares)), new


def metric_of(curvature: jax.Array, *, dense: bool) -> Metric:
    """The metric of a mean curvature, which under a standard normal prior is at least 1."""
    if not dense:
        return Metric(jnp.maximum(curvature, 1) ** -0.5, None)
    eigenvalues, basis = jnp.linalg.eigh(curvature)
    return Metric(jnp.maximum(eigenvalues, 1) ** -0.5, basis)


def freeze(adaptation: Adaptation) -> Adaptation:
    """The step sizes with which to sample."""
    return adaptation._replace(log_step=adaptation.mean_log_step)


def _at(betas: jax.Array, new: jax.Array, values: jax.Array, hot: jax.Array) -> jax.Array:
    """Values of all but the hot replica at new temperatures, given their value at the hot one."""
    return carry_over(betas, new, jnp.concatenate([hot[None], values]))[1:]
