"""Conjugate gradients for metrics that are at least the identity, stopped by the error itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Solution(NamedTuple):
    """Solutions of ``M x = b``.

    Attributes
    ----------
    x
        Of the shape of b.
    square
        xᵀMx, of the shape of b but for its last dimension.
    steps
        Iterations of each.
    converged
        Whether each has met its bound. False when the limit of iterations, or numbers that are
        not finite, stopped it.
    """

    x: jax.Array
    square: jax.Array
    steps: jax.Array
    converged: jax.Array


class _State(NamedTuple):
    x: jax.Array
    residual: jax.Array
    direction: jax.Array
    square: jax.Array  # |residual|²
    share: jax.Array  # |residual|² / |direction|²
    gained: jax.Array
    steps: jax.Array
    going: jax.Array
    converged: jax.Array
    count: jax.Array


def solve(
    metric: Callable[[jax.Array], jax.Array],
    right: jax.Array,
    *,
    error: jax.Array | float,
    relative: float = 0.0,
    smallest: jax.Array | float = 1.0,
    max_steps: int,
) -> Solution:
    """Solve M x = b from x = 0, for M at least the identity.

    Parameters
    ----------
    metric
        Products with M, over the last dimension.
    right
        b, of shape ``(..., n)``: leading dimensions are systems, solved in lock-step.
    error, relative
        Stop when the error e has eᵀMe at most ``error²``, or ``relative²`` times xᵀMx. This is
        in units of N(0, M⁻¹): n stands for one standard deviation in each coordinate.
    smallest
        A lower bound of the eigenvalues of M, if they may be below 1.
    max_steps
        Iterations at most.

    Notes
    -----
    The squared error is at most ``|r|⁴ / |p|²``, with residual r and direction p, because no
    eigenvalue of M is below 1 (Meurant and Tichý 2013, *On computing quadrature-based bounds for
    the A-norm of the error in conjugate gradients*). The residual alone asks too much where the
    data are precise: it may be √|M| times the error.

    Lineax's and SciPy's conjugate gradients stop by the residual; Lineax's besides takes the
    curvature of a million coordinates in single precision for zero.

    **Fails when** M is so large that its products are rounding: the error is then at least about
    the precision times √|M| of what was asked for.
    """
    bound = jnp.asarray(error, right.dtype) ** 2

    def near(share: jax.Array, square: jax.Array, gained: jax.Array) -> jax.Array:
        return share * square <= smallest * jnp.maximum(bound, relative**2 * gained)

    def iterate(s: _State) -> _State:
        product = metric(s.direction)
        curvature = _dot(s.direction, product)
        going = s.going & (curvature > 0) & jnp.isfinite(curvature)
        # A system that is done takes steps of length 0: cheaper than to select what it was.
        length = jnp.where(going, s.square / jnp.where(going, curvature, 1), 0)
        residual = s.residual - length[..., None] * product
        square = _dot(residual, residual)
        ratio = jnp.where(going, square / jnp.where(going, s.square, 1), 0)
        share = s.share / (s.share + ratio)
        gained = s.gained + length * s.square
        done = going & near(share, square, gained)
        return _State(
            x=s.x + length[..., None] * s.direction,
            residual=residual,
            direction=residual + ratio[..., None] * s.direction,
            square=square,
            share=share,
            gained=gained,
            steps=s.steps + going,
            going=going & ~done & jnp.isfinite(square),
            converged=s.converged | done,
            count=s.count + 1,
        )

    square = _dot(right, right)
    zero, one = jnp.zeros_like(square), jnp.ones_like(square)
    easy = near(one, square, zero)
    first = _State(
        x=jnp.zeros_like(right),
        residual=right,
        direction=right,
        square=square,
        share=one,
        gained=zero,
        steps=jnp.zeros(square.shape, int),
        going=~easy & jnp.isfinite(square),
        converged=easy,
        count=jnp.zeros((), int),
    )
    last = jax.lax.while_loop(lambda s: s.going.any() & (s.count < max_steps), iterate, first)
    return Solution(last.x, last.gained, last.steps, last.converged)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, -1)
