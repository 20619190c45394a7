"""Randomised subspace iteration: the leading eigenspace of a symmetric operator from products."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

OVERSAMPLING = 10  # directions beyond those that are wanted
NUM_ITERATIONS = 4


def random_probes(width: int, size: int, dtype: DTypeLike) -> Float[Array, "width size"]:
    """Standard normal vectors as rows, from a fixed key."""
    return jax.random.normal(jax.random.key(0), (width, size), dtype)


def leading_subspace(
    products: Callable[[Float[Array, "width size"]], Float[Array, "width size"]],
    size: int,
    width: int,
    dtype: DTypeLike,
    *,
    num_iterations: int = NUM_ITERATIONS,
) -> Float[Array, "width size"]:
    """Orthonormal rows that nearly span the eigenvectors of the largest eigenvalues.

    The Ritz values follow from a singular value decomposition of the images of these rows under a
    root of the operator, which keeps twice the digits of its eigenvalues.

    Parameters
    ----------
    products
        Products of a symmetric, positive semidefinite operator with each row.
    size, width
        Length and number of the rows; `width` exceeds the number of directions that are wanted by
        `OVERSAMPLING`, if `size` allows.
    dtype
        Of the rows.
    num_iterations
        Number of multiplications; each reduces the error by the ratio of the eigenvalues beyond
        `width` to those wanted.

    References
    ----------
    Halko, Martinsson, Tropp, Finding structure with randomness, SIAM Review 2011, algorithm 4.4.

    Notes
    -----
    Chosen over ``jax.experimental.sparse.linalg.lobpcg_standard``, which needs five times as many
    coordinates as directions, and over Lanczos (matfree): all products of an iteration are one
    batch, and directions of equal eigenvalues are found together.

    **Fails when** eigenvalues fall slowly beyond `width`: the last directions are then mixtures.
    """

    # Steps 2, 4 and 5, which are the same for a symmetric operator: multiply, orthonormalise.
    def iterate(_: jax.Array, rows: jax.Array) -> jax.Array:
        return jnp.linalg.qr(products(rows).T)[0].T

    # Step 1: a Gaussian test matrix.
    first = random_probes(width, size, dtype)
    return jax.lax.fori_loop(0, num_iterations, iterate, first)
