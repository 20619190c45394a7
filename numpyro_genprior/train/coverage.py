"""Measures of whether a generator covers all of its data."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

__all__ = ["energy_distance", "sample_coverage"]


def _distances(a: Array, b: Array) -> Array:
    """Euclidean distances between the rows of two matrices, by one matrix product."""
    squared = jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1)[None, :] - 2.0 * a @ b.T
    return jnp.sqrt(jnp.maximum(squared, 1e-12))


def _off_diagonal_mean(distances: Array) -> Array:
    n = distances.shape[0]
    return (jnp.sum(distances) - jnp.trace(distances)) / (n * (n - 1))


def energy_distance(samples: ArrayLike, data: ArrayLike) -> Array:
    """Energy distance between two samples, ``2 E|X−Y| − E|X−X'| − E|Y−Y'|``, an unbiased estimate.

    Its expectation is zero if and only if both have the same distribution (Székely & Rizzo 2013,
    *Energy statistics*).

    Parameters
    ----------
    samples, data
        Events, shape ``(rows, *event_shape)``; two rows or more each.

    Returns
    -------
    A scalar in the units of the events; it can fall below zero by chance.
    """
    x = jnp.reshape(jnp.asarray(samples), (len(jnp.asarray(samples)), -1))
    y = jnp.reshape(jnp.asarray(data), (len(jnp.asarray(data)), -1))
    centre = jnp.mean(y, 0, keepdims=True)
    x, y = x - centre, y - centre
    within = _off_diagonal_mean(_distances(x, x)) + _off_diagonal_mean(_distances(y, y))
    return 2.0 * jnp.mean(_distances(x, y)) - within


def sample_coverage(
    samples: ArrayLike, data: ArrayLike, *, num_neighbours: int = 5
) -> dict[str, float]:
    """Compare generated samples with held-out events by nearest neighbours.

    Parameters
    ----------
    samples
        Generated events, shape ``(rows, *event_shape)``; as many as ``data`` for the reference
        values below to hold.
    data
        Events that training has not seen, shape ``(rows, *event_shape)``.
    num_neighbours
        k: the ball around an event has the distance to its k-th neighbour among the events as
        radius.

    Returns
    -------
    Three numbers. ``"coverage"``: fraction of events whose ball holds a sample; a perfect generator
    has 1 − 2^−k, so 0.97 at k = 5. ``"density"``: number of balls that a sample lies in, divided by
    k, on average; 1 is expected, more for samples that crowd where events are dense.
    ``"diversity"``: mean distance among samples over mean distance among events; 1 is expected.

    Raises
    ------
    ValueError
        If there are too few rows for that many neighbours.

    Notes
    -----
    Source: Naeem et al. (2020), *Reliable fidelity and diversity metrics for generative models*,
    with Euclidean distances between events in place of features. **Fails when** Euclidean distance
    says little about similarity, as between large photographs: use features there.
    """
    x = jnp.reshape(jnp.asarray(samples), (np.shape(samples)[0], -1))
    y = jnp.reshape(jnp.asarray(data), (np.shape(data)[0], -1))
    if y.shape[0] <= num_neighbours or x.shape[0] < 2:
        raise ValueError(
            f"Coverage with {num_neighbours} neighbours needs more than {num_neighbours} events "
            f"and two samples or more, got {y.shape[0]} and {x.shape[0]}. Give more rows."
        )
    centre = jnp.mean(y, 0, keepdims=True)
    x, y = x - centre, y - centre
    among_data = _distances(y, y)
    radius = jnp.sort(among_data, axis=1)[:, num_neighbours]  # rank 0 is the event itself
    inside = _distances(y, x) <= radius[:, None]
    spread = _off_diagonal_mean(_distances(x, x)) / _off_diagonal_mean(among_data)
    return {
        "coverage": float(jnp.mean(jnp.any(inside, axis=1))),
        "density": float(jnp.sum(inside) / (num_neighbours * x.shape[0])),
        "diversity": float(spread),
    }
