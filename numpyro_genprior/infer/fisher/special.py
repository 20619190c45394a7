"""Special functions for Fisher information, as sums of positive terms that do not cancel."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

NUM_NODES = 64  # of the trapezoidal rule in log t


def inverse(x: jax.Array) -> jax.Array:
    """``1 / x`` for positive x, and 0 at the edge of the range, x = 0."""
    is_positive = x >= jnp.finfo(x.dtype).tiny
    return jnp.where(is_positive, 1 / jnp.where(is_positive, x, 1), 0)


def inverse_root(x: jax.Array) -> jax.Array:
    """``x^(-1/2)`` for positive x, and 0 at x = 0."""
    return jnp.sqrt(inverse(x))


def trigamma_excess(a: jax.Array) -> jax.Array:
    """``ψ₁(a) - 1/a`` for positive a, without cancellation.

    The recurrence ``ψ₁(a) - 1/a = 1/(a²(a+1)) + [ψ₁(a+1) - 1/(a+1)]`` is applied eight times, then
    the asymptotic series (Abramowitz & Stegun 1964, 6.4.6 and 6.4.12).
    """
    a = jnp.maximum(a, 1e-18)
    shifted = _shifted(a, range(8))
    total = jnp.sum(1 / (shifted**2 * (shifted + 1)), -1)
    u = 1 / (a + 8)
    tail = _polynomial(u, (1 / 2, 1 / 6, 0, -1 / 30, 0, 1 / 42, 0, -1 / 30, 0, 5 / 66))
    return total + u**2 * tail


def student_t_df(df: jax.Array) -> jax.Array:
    """Information about the degrees of freedom of Student's t if the scale is unknown.

    This is the Schur complement of the scale in the matrix of Lange, Little & Taylor (1989),
    ``S(ν) = ¼ [ψ₁(ν/2) - ψ₁((ν+1)/2)] - (ν+3) / (2ν(ν+1)²)``, which falls as ``1.5 ν⁻⁴``. The
    recurrence ``S(ν) - S(ν+2) = 6(2ν+3) / (ν²(ν+1)(ν+2)(ν+3)²)`` is applied twelve times, then the
    asymptotic series of the first term, whose leading terms cancel the second exactly.
    """
    x = jnp.clip(df, 1e-6, 1e6)
    n = _shifted(x, range(0, 24, 2))
    terms = 6 * (2 * n + 3) / ((n * (n + 3)) ** 2 * (n + 1) * (n + 2))
    total, u = jnp.sum(terms, -1), 1 / (x + 24)
    tail = _polynomial(u**2, (-1 / 2, 3 / 2, -17 / 2, 155 / 2, -2073 / 2))
    return total + u**4 * ((3 + u) / (2 * (1 + u) ** 2) + u * tail)


def negative_binomial_concentration(r: jax.Array, q: jax.Array, p: jax.Array) -> jax.Array:
    """Information about the concentration r of a negative binomial with known mean μ.

    With ``q = μ/(r+μ)`` and ``p = 1-q``,
    ``I(r) = ∫₀¹ (1-x)^(r-1) [-log(1-qx) - qx] / x dx``, whose integrand is positive.

    Derivation: Lawless (1987) has ``I = E[ψ₁(r) - ψ₁(r+Y)] - μ/(r(r+μ))``, whose derivative in μ is
    ``(E[1/(r+Y)] - 1/(r+μ)) / (r+μ)``. Because ``E[1/(r+Y)] = (p/r) ₂F₁(1, 1; r+1; q)``,
    ``I = (1/r) Σ_{k≥1} k! q^(k+1) / ((k+1) (r+1)_k)``. With ``x = 1 - exp(-t/r)`` the integral is
    evaluated by the trapezoidal rule in log t; its relative error is below 1e-4 (1e-6 for r ≥ 1).
    """
    r = jnp.maximum(r, 1e-6)
    low, high = jnp.log(jnp.minimum(r, 1.0)) - 8.0, math.log(40.0)
    step = (high - low) / (NUM_NODES - 1)

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        t = jnp.exp(low + i * step)
        x = -jnp.expm1(-t / r)
        y = q * x
        series = _polynomial(jnp.minimum(y, 0.1), tuple(1 / k for k in range(2, 14)))
        one_minus_y = jnp.where(y < 0.1, 1.0, jnp.exp(-t / r) + p * x)
        direct = -jnp.log(one_minus_y) - y
        return total + t * jnp.exp(-t) * jnp.where(
            y < 0.1, q**2 * x * series, direct / jnp.where(y < 0.1, 1.0, x)
        )

    return step / r * jax.lax.fori_loop(0, NUM_NODES, add, jnp.zeros_like(r * q))


def _shifted(x: jax.Array, shifts: range) -> jax.Array:
    """`x` plus each of the shifts, along a new last axis."""
    steps = jnp.asarray(np.asarray(shifts), x.dtype)
    return x[..., None] + steps.reshape((1,) * x.ndim + steps.shape)


def _polynomial(x: jax.Array, coefficients: tuple[float, ...]) -> jax.Array:
    total = jnp.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total
