"""Adaptation in warm-up: step sizes, metrics and the schedule, in rounds of doubling length."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_genprior.infer.tempering.hmc import Metric, ReplicaState
from numpyro_genprior.infer.tempering.schedule import equalise, interpolate

MIN_ROUND_LENGTH = 8  # iterations
MAX_FINAL_ITERATIONS = 100  # after the last round, in which only step sizes adapt
MAX_TRAJECTORY_TIME = 2.0  # in time scales of the metric; a quarter of a turn is π/2
PRIOR_WEIGHT = 5  # weight of the prior precision in a metric, as a number of draws


class Adaptation(NamedTuple):
    """Adapted quantities of the n - 1 replicas that move locally.

    Attributes
    ----------
    log_step, mean_log_step
        Log step sizes ``(n - 1,)``, and their mean over the current round, in which later
        iterations have more weight.
    metric
        Time scales ``(n - 1, d)`` and directions ``(n - 1, d, d)``, or None if diagonal.
    score_squares
        Sums over the round of squares ``(n - 1, d)``, or outer products ``(n - 1, d, d)``, of the
        score of the tempered posterior. Their mean is the mean curvature.
    """

    log_step: jax.Array
    mean_log_step: jax.Array
    metric: Metric
    score_squares: jax.Array


def initial_adaptation(
    betas: jax.Array, replicas: ReplicaState, *, num_steps: int, dense: bool
) -> Adaptation:
    """Step sizes from the slope of the likelihood at the first draws, and the identity metric."""
    n, d = replicas.xi.shape
    slope = jnp.sqrt(jnp.mean(replicas.gradient**2, axis=1))
    slope = jnp.nanmedian(jnp.where(jnp.isfinite(slope), slope, jnp.nan))
    curvature = 1 + betas[1:] * jnp.where(jnp.isfinite(slope), slope, 1)
    log_step = jnp.minimum(-0.5 * jnp.log(curvature), max_log_step(num_steps))
    scale = jnp.ones((n - 1, d), betas.dtype)
    basis = jnp.broadcast_to(jnp.eye(d, dtype=betas.dtype), (n - 1, d, d)) if dense else None
    squares = jnp.zeros((n - 1, d, d) if dense else (n - 1, d), betas.dtype)
    return Adaptation(log_step, log_step, Metric(scale, basis), squares)


def max_log_step(num_steps: int) -> float:
    """Largest log step size."""
    return math.log(MAX_TRAJECTORY_TIME / num_steps)


def update_adaptation(
    adaptation: Adaptation,
    betas: jax.Array,
    replicas: ReplicaState,
    accept_prob: jax.Array,
    count: jax.Array,
    *,
    target_accept_prob: float,
    num_steps: int,
) -> Adaptation:
    """Robbins-Monro update of the step sizes, and the scores for the next metric.

    `count` is the number of earlier iterations in this round.
    """
    gain = (count + 3.0) ** -0.6
    log_step = adaptation.log_step + gain * (accept_prob - target_accept_prob)
    log_step = jnp.minimum(log_step, max_log_step(num_steps))
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
    """Whether a round ends with iteration `i`: each is twice as long as the one before."""
    last = num_warmup - jnp.minimum(num_warmup // 4, MAX_FINAL_ITERATIONS)
    ends = last >> jnp.arange(20)
    return jnp.any(i == ends) & (i >= MIN_ROUND_LENGTH)


def end_round(
    adaptation: Adaptation, betas: jax.Array, rejections: jax.Array, count: jax.Array
) -> tuple[Adaptation, jax.Array]:
    """The schedule and the metrics for the next round.

    Parameters
    ----------
    adaptation, betas
        At the end of the round.
    rejections
        Mean rejection of swaps in the round, of shape ``(n - 1,)``.
    count
        Number of iterations in the round.
    """
    new = equalise(betas, rejections)
    squares = adaptation.score_squares
    dense = adaptation.metric.basis is not None
    d = squares.shape[-1]
    prior = jnp.eye(d, dtype=squares.dtype) if dense else jnp.ones(d, squares.dtype)
    curvature = (squares + PRIOR_WEIGHT * prior[None]) / (count + PRIOR_WEIGHT)
    metric = metric_of(_at_new_betas(betas, new, curvature, prior), dense=dense)
    # The stiffest direction limits the step size: keep the step along it as the metric changes.
    shortest = jnp.min(adaptation.metric.scale, axis=1)
    log_step = adaptation.mean_log_step + jnp.log(shortest)
    log_step = _at_new_betas(betas, new, log_step, jnp.zeros(()))
    log_step = log_step - jnp.log(jnp.min(metric.scale, axis=1))
    return Adaptation(log_step, log_step, metric, jnp.zeros_like(squares)), new


def metric_of(curvature: jax.Array, *, dense: bool) -> Metric:
    """The metric of a mean curvature, which is at least 1 under a standard normal prior."""
    if not dense:
        return Metric(jnp.maximum(curvature, 1) ** -0.5, None)
    eigenvalues, basis = jnp.linalg.eigh(curvature)
    return Metric(jnp.maximum(eigenvalues, 1) ** -0.5, basis)


def final_adaptation(adaptation: Adaptation) -> Adaptation:
    """The step sizes to sample with: the mean over the last round."""
    return adaptation._replace(log_step=adaptation.mean_log_step)


def _at_new_betas(
    betas: jax.Array, new: jax.Array, values: jax.Array, prior_value: jax.Array
) -> jax.Array:
    """Values at all positive `betas`, interpolated to `new`; `prior_value` is that at β = 0."""
    return interpolate(betas, new, jnp.concatenate([prior_value[None], values]))[1:]
