"""`event_moments`: mean, standard deviation and quantiles of events, streamed over draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from numpyro_genprior.errors import message
from numpyro_genprior.priors import Prior
from numpyro_genprior.traces.decoding import Draws, _device, given

BLOCK_ELEMENTS = 2**25  # of draws times entries of the event held for quantiles, 128 MiB


@dataclass(frozen=True)
class EventMoments:
    """Moments of an event over draws.

    Attributes
    ----------
    mean, sd
        Of the event's shape, batch dimensions in front; in units of the event.
    quantiles
        Of shape ``(len(probabilities), *event)``.
    probabilities
        The levels of the quantiles.
    num_draws
        How many draws there were.
    """

    mean: np.ndarray
    sd: np.ndarray
    quantiles: np.ndarray
    probabilities: tuple[float, ...]
    num_draws: int


def event_moments(
    prior: Distribution,
    z: ArrayLike,
    *,
    quantiles: float | Sequence[float] = (),
    noise: bool = True,
    condition: ArrayLike | None = None,
    batch_size: int | None = None,
) -> EventMoments:
    """Mean, standard deviation and quantiles of the event over draws of its latent.

    Events are decoded, used and forgotten a batch of draws at a time: memory holds a batch, and a
    few arrays of the size of one event.

    Parameters
    ----------
    prior
        The prior whose latents these are, expanded as in the model where a plate did that.
    z
        Latents of shape ``draws + batch_shape + latent.event_shape``. All leading dimensions
        beyond the prior's batch shape (chains, draws) are averaged over.
    quantiles
        Levels in [0, 1].
    noise
        Whether the event has its decoder noise (a `VAEPrior`'s), or is g(z) alone. Where the model
        ran with ``noise="omit"`` its site is g(z), with the moments that False gives; True adds the
        noise that the model left out.
    condition
        One condition a draw, where the condition was inferred, too. None for the prior's own.
    batch_size
        Draws on the device at a time; None takes as many as hold 2²³ numbers.

    Returns
    -------
    EventMoments
        With fields ``mean``, ``sd``, ``quantiles`` (level first), in the event's dtype.

    Raises
    ------
    TypeError
        When `prior` is not a generative prior.
    ValueError
        When shapes do not fit, there is no dimension of draws, or a level is outside [0, 1].

    Notes
    -----
    The draws stand for the law that gives each the same weight, so ``sd`` divides by their number
    and not by one less. With decoder noise that law is a mixture of normals, and nothing is
    simulated: ``sd² = Var[g(z)] + E[scale(z)²]`` (law of total variance), and a quantile at level p
    is the root of ``mean_i Φ((q - g(z_i)) / scale(z_i)) = p``, by bisection to rounding. Without
    noise a quantile is NumPy's, linear between order statistics.

    Variances are updated by the pairwise rule of Chan et al., batches two-pass in the event's
    dtype and merged in double precision. Quantiles need all draws of an entry at once: they are
    made by blocks of entries, small enough that draws × block holds 2²⁵ numbers, and the draws are
    decoded once for each block.

    **Fails when** the decoder noise was itself inferred (noncentered or centered noise, with a
    likelihood that informs it): the noise added here is a fresh one. Take the moments of the
    recorded event then.

    References
    ----------
    Chan, Golub, LeVeque, Algorithms for computing the sample variance, The American Statistician
    1983.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, numpyro_genprior as ngp
    >>> prior = ngp.VAEPrior(lambda z: jnp.zeros((2, 2)), 3, scale=0.5)
    >>> moments = ngp.event_moments(prior, jnp.zeros((4, 100, 3)), quantiles=(0.05, 0.95))
    >>> moments.sd[0, 0].item(), moments.quantiles.shape
    (0.5, (2, 2, 2))
    """
    levels = _levels(quantiles)
    draws = Draws(prior, z, condition, batch_size, "event_moments")
    if not draws.draws_shape or draws.number == 0:
        raise ValueError(
            message(
                "event_moments: there is no dimension of draws to average over",
                expected=f"latents of shape draws + {draws.inner_shape} + "
                f"{draws.prior.latent.event_shape}",
                got=np.shape(z),
                remedy="pass all draws, and a condition for every draw as condition=",
            )
        )
    noise = noise and draws.prior.density == "conditional"
    mean, variance = _mean_and_variance(draws, noise)
    dtype = draws.prior.event_dtype
    return EventMoments(
        mean=mean.astype(dtype),
        sd=np.sqrt(variance).astype(dtype),
        quantiles=_quantiles(draws, noise, levels),
        probabilities=levels,
        num_draws=draws.number,
    )


def _levels(quantiles: float | Sequence[float]) -> tuple[float, ...]:
    levels = tuple(float(p) for p in np.atleast_1d(np.asarray(quantiles, float)))
    if any(not 0 <= p <= 1 for p in levels):
        raise ValueError(
            message(
                "event_moments: these are not levels of quantiles",
                expected="numbers in [0, 1]",
                got=levels,
                remedy="pass e.g. quantiles=(0.05, 0.5, 0.95)",
            )
        )
    return levels


def _law(
    prior: Any, z: jax.Array, condition: jax.Array | None, noise: bool
) -> tuple[jax.Array, jax.Array | None]:
    """Mean and standard deviation of the events given their latents."""
    prior = given(prior, condition)
    return prior.event_loc_scale(z) if noise else (prior.decode(z), None)


@partial(jax.jit, static_argnames="noise")
def _batch_moments(
    prior: Prior, z: jax.Array, condition: jax.Array | None, count: Any, noise: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, sum of squared deviations and sum of noise variances of the first `count` draws."""
    loc, scale = _law(prior, z, condition, noise)
    real = (jnp.arange(loc.shape[0]) < count).astype(loc.dtype)

    def total(values: jax.Array) -> jax.Array:  # as a product: a sum over the first axis is slow
        return jnp.tensordot(real, values, 1, precision="highest")

    number = jnp.asarray(count, loc.dtype)
    mean = total(loc) / number
    deviation = loc - mean[None]
    shift = total(deviation) / number  # what rounding left in the mean
    squares = total(deviation**2) - number * shift**2
    return mean + shift, squares, jnp.zeros_like(mean) if scale is None else total(scale**2)


def _mean_and_variance(draws: Draws, noise: bool) -> tuple[np.ndarray, np.ndarray]:
    mean = np.zeros(draws.event_shape)
    squares, noises = np.zeros_like(mean), np.zeros_like(mean)
    for batch in draws.batches():
        parts = _batch_moments(
            draws.prior, jnp.asarray(batch.z), _device(batch.condition), batch.count, noise
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
    prior: Prior, z: jax.Array, condition: jax.Array | None, start: Any, noise: bool, size: int
) -> tuple[jax.Array, jax.Array | None]:
    """Entries ``start`` to ``start + size`` of the flat events of a batch."""

    def block(events: jax.Array) -> jax.Array:
        rows = events.reshape(events.shape[0], -1)
        return jax.lax.dynamic_slice_in_dim(rows, start, size, axis=1)

    loc, scale = _law(prior, z, condition, noise)
    return block(loc), None if scale is None else block(scale)


def _quantiles(draws: Draws, noise: bool, levels: tuple[float, ...]) -> np.ndarray:
    entries, dtype = math.prod(draws.event_shape), draws.prior.event_dtype
    result = np.empty((len(levels), entries), dtype)
    held = draws.number * (2 if noise else 1)
    size = max(1, min(entries, BLOCK_ELEMENTS // held))
    for first in range(0, entries if levels else 0, size):
        start = min(first, entries - size)  # the last block reaches back, to have the same shape
        loc = np.empty((draws.number, size), dtype)
        scale = np.empty_like(loc) if noise else None
        for batch in draws.batches():
            rows = slice(batch.start, batch.start + batch.count)
            part = _batch_block(
                draws.prior, jnp.asarray(batch.z), _device(batch.condition), start, noise, size
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
    on_device = jnp.asarray(loc), jnp.asarray(scale)
    return np.stack([np.asarray(_mixture_quantile(*on_device, p)) for p in levels])


@jax.jit
def _mixture_quantile(loc: jax.Array, scale: jax.Array, level: Any) -> jax.Array:
    """Quantile of an equal mixture of normals along the first axis, by bisection.

    It lies between the least and the greatest quantile of the components.
    """
    standard = ndtri(jnp.asarray(level, loc.dtype))
    apart = jnp.where(scale > 0, scale * standard, 0.0)
    scale = jnp.maximum(scale, jnp.finfo(loc.dtype).tiny)

    def halve(_: Any, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = low + (high - low) / 2
        below = jnp.mean(ndtr((middle[None] - loc) / scale), axis=0) < level
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    ends = jnp.min(loc + apart, axis=0), jnp.max(loc + apart, axis=0)
    low, high = jax.lax.fori_loop(0, jnp.finfo(loc.dtype).nmant + 1, halve, ends)
    return jnp.where(jnp.isfinite(standard), low + (high - low) / 2, standard)
