"""Mean, variance and quantiles of events, streamed over draws of their latents."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jax.typing import ArrayLike

from numpyro_genprior.priors import Prior
from numpyro_genprior.traces.latent_draws import LatentDraws, to_device, with_condition

MAX_BLOCK_ELEMENTS = 2**25  # draws times entries held on the host for quantiles, 128 MiB


def _loc_scale(
    prior: Prior, z: jax.Array, condition: jax.Array | None, noise: bool
) -> tuple[jax.Array, jax.Array | None]:
    """Mean and standard deviation of the events given their latents."""
    prior = with_condition(prior, condition)
    return prior.event_loc_scale(z) if noise else (prior.decode(z), None)


@partial(jax.jit, static_argnames="noise")
def _batch_moments(
    prior: Prior, z: jax.Array, condition: jax.Array | None, count: ArrayLike, noise: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, sum of squared deviations and sum of noise variances of the first `count` draws."""
    loc, scale = _loc_scale(prior, z, condition, noise)
    is_draw = (jnp.arange(loc.shape[0]) < count).astype(loc.dtype)

    def total(values: jax.Array) -> jax.Array:  # as a product: XLA's sum over axis 0 is slow
        return jnp.tensordot(is_draw, values, 1, precision="highest")

    number = jnp.asarray(count, loc.dtype)
    mean = total(loc) / number
    deviation = loc - mean[None]
    shift = total(deviation) / number  # rounding error of the mean
    squares = total(deviation**2) - number * shift**2
    return mean + shift, squares, jnp.zeros_like(mean) if scale is None else total(scale**2)


def mean_and_variance(draws: LatentDraws, noise: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over draws, in double precision, by the pairwise update of Chan et al."""
    mean = np.zeros(draws.event_shape)
    squares, noises = np.zeros_like(mean), np.zeros_like(mean)
    for batch in draws.batches():
        parts = _batch_moments(
            draws.prior, jnp.asarray(batch.z), to_device(batch.condition), batch.count, noise
        )
        batch_mean, batch_squares, batch_noises = (np.asarray(part, float) for part in parts)
        seen = batch.start + batch.count
        delta = batch_mean - mean
        mean += delta * (batch.count / seen)
        squares += batch_squares + delta**2 * (batch.start * batch.count / seen)
        noises += batch_noises
    return mean, np.maximum(squares + noises, 0.0) / draws.number


@partial(jax.jit, static_argnames=("noise", "size"))
def _batch_block(
    prior: Prior,
    z: jax.Array,
    condition: jax.Array | None,
    start: ArrayLike,
    noise: bool,
    size: int,
) -> tuple[jax.Array, jax.Array | None]:
    """Entries ``start`` to ``start + size`` of the flat events of a batch."""

    def block(events: jax.Array) -> jax.Array:
        rows = events.reshape(events.shape[0], -1)
        return jax.lax.dynamic_slice_in_dim(rows, start, size, axis=1)

    loc, scale = _loc_scale(prior, z, condition, noise)
    return block(loc), None if scale is None else block(scale)


def quantiles_over_draws(draws: LatentDraws, noise: bool, levels: tuple[float, ...]) -> np.ndarray:
    """Quantiles over draws by blocks of entries, level first; each block decodes all draws."""
    entries, dtype = math.prod(draws.event_shape), draws.prior.event_dtype
    result = np.empty((len(levels), entries), dtype)
    numbers_per_entry = draws.number * (2 if noise else 1)
    size = max(1, min(entries, MAX_BLOCK_ELEMENTS // numbers_per_entry))
    for first in range(0, entries if levels else 0, size):
        start = min(first, entries - size)  # the last block overlaps, to have the same shape
        loc = np.empty((draws.number, size), dtype)
        scale = np.empty_like(loc) if noise else None
        for batch in draws.batches():
            rows = slice(batch.start, batch.start + batch.count)
            part = _batch_block(
                draws.prior, jnp.asarray(batch.z), to_device(batch.condition), start, noise, size
            )
            loc[rows] = np.asarray(part[0])[: batch.count]
            if scale is not None:
                scale[rows] = np.asarray(part[1])[: batch.count]
        result[:, start : start + size] = _block_quantiles(loc, scale, levels)
    return result.reshape(len(levels), *draws.event_shape)


def _block_quantiles(
    loc: np.ndarray, scale: np.ndarray | None, levels: tuple[float, ...]
) -> np.ndarray:
    if scale is None:
        return np.quantile(loc, levels, axis=0, overwrite_input=True)
    loc_, scale_ = jnp.asarray(loc), jnp.asarray(scale)
    return np.stack([np.asarray(_mixture_quantile(loc_, scale_, p)) for p in levels])


@jax.jit
def _mixture_quantile(loc: jax.Array, scale: jax.Array, level: ArrayLike) -> jax.Array:
    """Quantile of an equal mixture of normals along the first axis, by bisection.

    It lies between the smallest and the largest quantile of the components.
    """
    standard = ndtri(jnp.asarray(level, loc.dtype))
    offset = jnp.where(scale > 0, scale * standard, 0.0)
    scale = jnp.maximum(scale, jnp.finfo(loc.dtype).tiny)

    def halve(_: ArrayLike, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = low + (high - low) / 2
        below = jnp.mean(ndtr((middle[None] - loc) / scale), axis=0) < level
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    ends = jnp.min(loc + offset, axis=0), jnp.max(loc + offset, axis=0)
    low, high = jax.lax.fori_loop(0, jnp.finfo(loc.dtype).nmant + 1, halve, ends)
    return jnp.where(jnp.isfinite(standard), low + (high - low) / 2, standard)


def recorded_moments(
    events: np.ndarray, levels: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and quantiles of events that are on the host, over the first axis."""
    mean = events.mean(axis=0, dtype=float)
    squares = np.zeros_like(mean)
    rows = max(1, MAX_BLOCK_ELEMENTS // max(mean.size, 1))
    for start in range(0, len(events), rows):
        squares += np.square(events[start : start + rows] - mean).sum(axis=0)
    flat = events.reshape(len(events), -1)
    result = np.empty((len(levels), flat.shape[1]), events.dtype)
    columns = max(1, MAX_BLOCK_ELEMENTS // max(len(events), 1))
    for start in range(0, flat.shape[1] if levels else 0, columns):
        block = flat[:, start : start + columns]
        result[:, start : start + columns] = np.quantile(block, levels, axis=0)
    return mean, squares / len(events), result.reshape(len(levels), *mean.shape)
